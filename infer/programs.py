"""What runs on devices: reading a chunk of a prompt, decoding several tokens for several rows, moving rows and pages.

Each is one jitted function of arrays whose shapes come from few buckets; how many steps, which row, how tokens are
chosen are values, so nothing is compiled anew for them. Pages and views are donated: what goes in is used up.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jaxtyping import Array, Bool, Float, Int

from codelm import paged, views
from codelm.cache import Apart, Memory
from codelm.config import ModelConfig
from codelm.model import PAD, Transformer
from codelm.sharding import everywhere
from codelm.views import Pages, Slots
from codelm.windows import layer_windows
from infer.sampling import Choice, Settings, choose

# How tokens of a batch are chosen, by what its rows ask for: each does all that those before it do.
LIKELIEST, SAMPLED, FILTERED, STEERED = range(4)


class Steering(NamedTuple):
    """What changes scores by token. Of rows that ask for none: nothing generated, no bias, everything allowed."""

    prompt: Bool[Array | np.ndarray, "B V"]
    counts: Int[Array | np.ndarray, "B V"]
    """How often each token was generated before this call."""
    bias: Float[Array | np.ndarray, "B V"]
    allowed: Bool[Array | np.ndarray, "B V"]


class Choosing(NamedTuple):
    """How the rows' tokens are chosen."""

    settings: Settings
    index: Int[Array | np.ndarray, " B"]
    """Which of its request's tokens comes next."""
    steering: Steering
    how: Int[Array, ""] | np.integer
    """One of the four above."""


class Targets(NamedTuple):
    """Where new keys and values are to be kept: pages by window, and places in them."""

    pages: Mapping[int, Int[Array | np.ndarray, "B S"]]
    offsets: Int[Array | np.ndarray, "B S"]


class Sight(NamedTuple):
    """What rows read, by window: the position with which their views or tables of pages begin, and those tables.

    Tables are for the kernel that reads pages. Without it there are none, but views.
    """

    starts: Mapping[int, Int[Array | np.ndarray, " B"]]
    tables: Mapping[int, Int[Array | np.ndarray, "B n"]] | None


class Written(NamedTuple):
    tokens: Int[Array, "B S"]
    logprobs: Float[Array, "B S"]
    count: Int[Array, " B"]
    """Of each row's tokens that were written; the last may be one that stops it, or -1 where nothing was allowed."""


@functools.partial(jax.jit, static_argnames=("tree", "dtype"), donate_argnames=("pages", "memory"))
def extend(
    tree: PyTreeDef,
    leaves: list[Array],
    pages: tuple[Pages, ...],
    memory: tuple[Memory, ...],
    sight: Sight,
    targets: Targets,
    tokens: Int[Array, "1 S"],
    position: Int[Array, "1"],
    count: Int[Array, ""],
    choosing: Choosing,
    last: Bool[Array, ""],
    dtype: str,
) -> tuple[tuple[Pages, ...], tuple[Memory, ...], Choice]:
    """One row goes on by so many given tokens; if they are its last, the token that follows is chosen."""
    model: Transformer = jax.tree.unflatten(tree, leaves)
    index = jnp.arange(tokens.shape[1])[None]
    cache = _cache(pages, memory, sight, dtype)
    segments = jnp.where(index < count, 0, PAD)
    hidden, cache, _ = model.hidden(tokens, position[:, None] + index, segments, cache)
    pages, memory = _stored(model.config, pages, cache.memory, sight, position, index < count, targets)
    end = jax.lax.dynamic_slice_in_dim(hidden, count - 1, 1, axis=1)[:, 0]
    nothing = Choice(jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.float32))
    choice = jax.lax.cond(last, lambda: pick(model, end, choosing, jnp.full_like(tokens, -1)), lambda: nothing)
    return pages, memory, choice


@functools.partial(jax.jit, static_argnames=("tree", "dtype"), donate_argnames=("pages", "memory"))
def decode(
    tree: PyTreeDef,
    leaves: list[Array],
    pages: tuple[Pages, ...],
    memory: tuple[Memory, ...],
    sight: Sight,
    targets: Targets,
    tokens: Int[Array, " B"],
    position: Int[Array, " B"],
    most: Int[Array, " B"],
    stops: Int[Array, "B E"],
    choosing: Choosing,
    dtype: str,
) -> tuple[tuple[Pages, ...], tuple[Memory, ...], Written]:
    """Every row goes on by at most so many tokens, each after the one before; fewer where a token stops it.

    The targets have as many places as there can be steps; there are as many steps as the row with most takes.
    """
    model: Transformer = jax.tree.unflatten(tree, leaves)
    rows, steps = targets.offsets.shape
    cache = _cache(pages, memory, sight, dtype)
    nothing = Written(jnp.full((rows, steps), -1), jnp.zeros((rows, steps)), jnp.zeros(rows, jnp.int32))

    def goes_on(state: tuple[Array, Array, Array, Any, Written]) -> Bool[Array, ""]:
        return jnp.any(state[1])

    def step(state: tuple[Array, Array, Array, Any, Written]) -> tuple[Array, Array, Array, Any, Written]:
        done, running, last, memory, written = state
        # A row that is done stays where it is, so that it writes over nothing.
        at = (position + written.count)[:, None]
        segments = jnp.where(running, 0, PAD)[:, None]
        hidden, after, _ = model.hidden(last[:, None], at, segments, cache._replace(memory=memory))
        next_ = choosing._replace(index=choosing.index + written.count)
        token, logprob = pick(model, hidden[:, 0], next_, written.tokens)
        count = written.count + running
        written = Written(
            written.tokens.at[:, done].set(jnp.where(running, token, -1)),
            written.logprobs.at[:, done].set(jnp.where(running, logprob, 0)),
            count,
        )
        stopped = jnp.any(token[:, None] == stops, axis=1) | (token < 0) | (count >= most)
        return done + 1, running & ~stopped, jnp.where(running, token, last), after.memory, written

    start = (jnp.int32(0), most > 0, tokens, cache.memory, nothing)
    _, _, _, memory, written = jax.lax.while_loop(goes_on, step, start)
    kept = jnp.arange(steps) < written.count[:, None]
    return *_stored(model.config, pages, memory, sight, position, kept, targets), written


load = jax.jit(views.load, static_argnames="config", donate_argnames="views")
copy = jax.jit(views.copy, static_argnames="config", donate_argnames="pages")
PROGRAMS = (extend, decode, load, copy)


def pick(
    model: Transformer, hidden: Float[Array, "B D"], choosing: Choosing, written: Int[Array, "B S"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The next token of each row, after its last stream and what was written since the steering was counted."""
    scores = everywhere(model.logits(hidden[:, None])[:, 0])
    settings, steering, how = choosing.settings, choosing.steering, choosing.how
    index = jnp.asarray(choosing.index)

    def plain(sampled: bool, filtered: bool) -> Choice:
        return choose(scores, settings, index, sampled=sampled, filtered=filtered)

    def steered() -> Choice:
        prompt, counts, bias, allowed = steering
        where = jnp.where(written < 0, scores.shape[1], written)
        counts = jnp.asarray(counts).at[jnp.arange(len(counts))[:, None], where].add(1, mode="drop")
        given: dict[str, Any] = {"prompt": prompt, "counts": counts, "bias": bias, "mask": allowed}
        return choose(scores, settings, index, sampled=True, filtered=True, **given)

    ways = [functools.partial(plain, *flags) for flags in ((False, False), (True, False), (True, True))]
    return jax.lax.switch(how, [*ways, steered])


def _cache(pages: tuple[Pages, ...], memory: tuple[Memory, ...], sight: Sight, dtype: str) -> Apart:
    """Pages themselves, where there are tables to read them by."""
    if sight.tables is None:
        return Apart(memory, Slots(sight.starts, dtype))
    return Apart(pages, paged.Slots(sight.starts, sight.tables))


def _stored(
    config: ModelConfig,
    pages: tuple[Pages, ...],
    memory: Any,
    sight: Sight,
    position: Int[Array, " B"],
    kept: Bool[Array, "B S"],
    targets: Targets,
) -> tuple[tuple[Pages, ...], tuple[Memory, ...]]:
    """Pages with what memory was given, and that; what is not kept goes to the last page, which is nobody's."""
    if sight.tables is not None:
        return memory, ()
    last = {window: page.values.shape[0] - 1 for window, page in zip(layer_windows(config), pages, strict=True)}
    to = {window: jnp.where(kept, page, last[window]) for window, page in targets.pages.items()}
    return views.store(config, pages, memory, sight.starts, position, to, targets.offsets), memory
