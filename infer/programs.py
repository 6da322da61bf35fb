"""What runs on devices: reading a chunk of a prompt, decoding several tokens for several rows, verifying drafts of what
comes next, moving rows and pages.

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
    allowed: Bool[Array | np.ndarray, "R V"]
    """At each place of each row whose next token is chosen, one row after the other; decoding has one place a row."""


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
    ahead: Int[Array, "B heads"]
    """What the model's own further heads expect after them."""


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
    end = jax.lax.dynamic_slice_in_dim(hidden, count - 1, 1, axis=1)
    nothing = Choice(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.float32))
    none = jnp.full((1, 1, 1), -1)
    choice = jax.lax.cond(last, lambda: pick(model, end, choosing, none), lambda: nothing)
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
    none = jnp.zeros(rows, jnp.int32)
    nothing = Written(jnp.full((rows, steps), -1), jnp.zeros((rows, steps)), none, none[:, None][:, :0])
    stream = jnp.zeros((rows, model.config.width if model.config.mtp_heads else 0), model.config.compute_dtype)

    def goes_on(state: tuple[Any, ...]) -> Bool[Array, ""]:
        return jnp.any(state[1])

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        done, running, last, stream, memory, written = state
        # A row that is done stays where it is, so that it writes over nothing.
        at = (position + written.count)[:, None]
        segments = jnp.where(running, 0, PAD)[:, None]
        hidden, after, _ = model.hidden(last[:, None], at, segments, cache._replace(memory=memory))
        next_ = choosing._replace(index=choosing.index + written.count)
        token, logprob = (x[:, 0] for x in pick(model, hidden, next_, written.tokens[:, None]))
        count = written.count + running
        written = written._replace(
            tokens=written.tokens.at[:, done].set(jnp.where(running, token, -1)),
            logprobs=written.logprobs.at[:, done].set(jnp.where(running, logprob, 0)),
            count=count,
        )
        stopped = jnp.any(token[:, None] == stops, axis=1) | (token < 0) | (count >= most)
        if model.config.mtp_heads:
            stream = jnp.where(running[:, None], everywhere(hidden)[:, 0], stream)
        return done + 1, running & ~stopped, jnp.where(running, token, last), stream, after.memory, written

    start = (jnp.int32(0), most > 0, tokens, stream, cache.memory, nothing)
    _, _, _, stream, memory, written = jax.lax.while_loop(goes_on, step, start)
    kept = jnp.arange(steps) < written.count[:, None]
    pages, memory = _stored(model.config, pages, memory, sight, position, kept, targets)
    return pages, memory, written._replace(ahead=_ahead(model, stream, choosing, written.count))


@functools.partial(jax.jit, static_argnames=("tree", "dtype"), donate_argnames=("pages", "memory"))
def verify(
    tree: PyTreeDef,
    leaves: list[Array],
    pages: tuple[Pages, ...],
    memory: tuple[Memory, ...],
    sight: Sight,
    targets: Targets,
    tokens: Int[Array, "B S"],
    position: Int[Array, " B"],
    given: Int[Array, " B"],
    choosing: Choosing,
    dtype: str,
) -> tuple[tuple[Pages, ...], tuple[Memory, ...], Written]:
    """Every row reads its last token and a draft of what follows, at once, and goes on as it would have by itself.

    At each place the token is chosen that decoding would choose there, noise and all. Those of the draft are kept up to
    the first that is another one, which is kept in its stead; after a draft that is right throughout comes one more. Of
    the `given` tokens of a row (0: nobody's row) the first is its last, the others are the draft.
    """
    model: Transformer = jax.tree.unflatten(tree, leaves)
    index = jnp.arange(tokens.shape[1])
    cache = _cache(pages, memory, sight, dtype)
    segments = jnp.where(index < given[:, None], 0, PAD)
    hidden, cache, _ = model.hidden(tokens, position[:, None] + index, segments, cache)
    before = jnp.where(index[1:] <= index[:, None], tokens[:, None, 1:], -1)  # what each place has of the draft
    chosen, logprobs = pick(model, hidden, choosing, before)
    right = (chosen[:, :-1] == tokens[:, 1:]) & (index[1:] < given[:, None])
    count = jnp.where(given > 0, 1 + jnp.sum(jnp.cumprod(right, axis=1), axis=1), 0)
    kept = index < count[:, None]
    pages, memory = _stored(model.config, pages, cache.memory, sight, position, kept, targets)
    ends = jnp.maximum(count - 1, 0)[:, None, None]
    stream = jnp.take_along_axis(everywhere(hidden), ends, axis=1)[:, 0] if model.config.mtp_heads else hidden[:, 0]
    ahead = _ahead(model, stream, choosing, count)
    return pages, memory, Written(jnp.where(kept, chosen, -1), jnp.where(kept, logprobs, 0), count, ahead)


load = jax.jit(views.load, static_argnames="config", donate_argnames="views")
copy = jax.jit(views.copy, static_argnames="config", donate_argnames="pages")
PROGRAMS = (extend, decode, verify, load, copy)


def pick(
    model: Transformer, hidden: Float[Array, "B S D"], choosing: Choosing, before: Int[Array, "B S W"] | None
) -> Choice:
    """The next token at each of some places of each row. `before` is what was written up to there since the steering
    was counted, -1 elsewhere; None: whatever the rows ask for, nothing is steered."""
    rows, places = hidden.shape[:2]
    scores = everywhere(model.logits(hidden)).reshape(rows * places, -1)
    each = functools.partial(jnp.repeat, repeats=places, axis=0)
    settings = Settings(*(each(jnp.asarray(setting)) for setting in choosing.settings))
    index = (jnp.asarray(choosing.index)[:, None] + jnp.arange(places)).reshape(-1)

    def plain(sampled: bool, filtered: bool) -> Choice:
        return choose(scores, settings, index, sampled=sampled, filtered=filtered)

    def steered() -> Choice:
        assert before is not None
        prompt, counts, bias = (each(jnp.asarray(x)) for x in choosing.steering[:3])
        where = jnp.where(before < 0, scores.shape[1], before).reshape(len(scores), -1)
        counts = counts.at[jnp.arange(len(counts))[:, None], where].add(1, mode="drop")
        given: dict[str, Any] = {"prompt": prompt, "counts": counts, "bias": bias, "mask": choosing.steering.allowed}
        return choose(scores, settings, index, sampled=True, filtered=True, **given)

    ways = [functools.partial(plain, *flags) for flags in ((False, False), (True, False), (True, True))]
    chosen = jax.lax.switch(choosing.how, ways if before is None else [*ways, steered])
    return Choice(*(x.reshape(rows, places) for x in chosen))


def _ahead(
    model: Transformer, stream: Float[Array, "B D"], choosing: Choosing, written: Int[Array, " B"]
) -> Int[Array, "B heads"]:
    """What the model's further heads expect after the next token, with the noise that will draw it."""
    heads = range(model.config.mtp_heads)
    if not heads:
        return jnp.zeros((len(stream), 0), jnp.int32)
    streams = jnp.concatenate([model.ahead(stream[:, None], head) for head in heads], axis=1)
    return pick(model, streams, choosing._replace(index=choosing.index + written), None).token


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
