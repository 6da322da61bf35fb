"""The engine's cache on devices: pages that requests share, and views of them that attention reads.

A page holds the keys and values of a stretch of tokens in one layer. Read from pages, XLA would copy all of a row's at
every token. So rows are brought together once, into views: whole, and in the layout that matrix products read well.
What decoding adds to a view goes back to the pages. A view of a layer that slides begins with the first page still in
sight: slot t of row b is position starts[b] + t.

What pages keep in fewer bits is rounded as it enters a view, so that a row reads the same whether or not it has been to
the pages and back.

Layers with one window (0: those that see everything) have their pages numbered alike: tables go by window.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from codelm.attention import MASKED, MIN_CHUNK, SCORES
from codelm.cache import Heads, Memory, Rows, Rule
from codelm.config import ModelConfig
from codelm.sharding import has_mesh, place, spec
from codelm.windows import layer_windows

PAGES = ("pages", "slots", "kv_heads", "head_dim")
PAIRS = ("pages", "slots", "kv_heads", "pair", "head_dim")
VIEW = ("batch", "kv_heads", "slots", "head_dim")
QUERY = ("batch", "slots", "heads", "head_dim")
GROUPED = ("batch", "slots", "kv_heads", "group", "head_dim")


class Pages(NamedTuple):
    """Of one layer."""

    values: Shaped[Array, "P page 2K H"]
    """Keys and values alternate, as the kernel for TPUs wants them: a dimension more, and XLA would make it a copy."""
    scales: Float[Array, "P page K 2"] | None
    """Of values in eight bits."""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["starts"], meta_fields=["dtype"])
@dataclass(frozen=True)
class Slots:
    """Where each row's views begin, and in how many bits pages keep what goes in."""

    starts: Mapping[int, Int[Array | np.ndarray, " B"]]
    dtype: str

    def attend(self, memory: Memory, heads: Heads, rows: Rows, rule: Rule) -> tuple[Float[Array, "B S N H"], Memory]:
        at = rows.positions - self.starts[rule.window][:, None]
        new = (place(rounded(x, self.dtype).swapaxes(1, 2), *VIEW) for x in (heads.key, heads.value))
        memory = Memory(*(_put(view, x, at[:, 0]) for view, x in zip(memory, new, strict=True)))
        # Or XLA puts what is new in its place twice, each time in a copy: once more in the shape that products like.
        memory = Memory(*jax.lax.optimization_barrier(tuple(memory)))
        return read(heads.query, memory, at, rule), memory


def make_pages(config: ModelConfig, counts: Mapping[int, int], size: int, dtype: str) -> tuple[Pages, ...]:
    """Empty pages for every layer, so many of `size` tokens each for the layers of each window."""
    made = []
    for window in layer_windows(config):
        pairs = place(jnp.zeros((counts[window], size, config.kv_heads, 2, config.head_dim), dtype), *PAIRS)
        scales = place(jnp.zeros(pairs.shape[:-1]), *PAIRS[:-1]) if dtype == "int8" else None
        made.append(Pages(side_by_side(pairs), scales))
    return tuple(made)


def make_views(config: ModelConfig, rows: int, slots: Mapping[int, int]) -> tuple[Memory, ...]:
    """Empty views of so many rows, with so many slots in the layers of each window."""
    made = []
    for window in layer_windows(config):
        shape = (rows, config.kv_heads, slots[window], config.head_dim)
        made.append(Memory(*(place(jnp.zeros(shape, config.compute_dtype), *VIEW) for _ in range(2))))
    return tuple(made)


def load(
    config: ModelConfig,
    views: tuple[Memory, ...],
    pages: tuple[Pages, ...],
    row: Int[Array, ""] | int,
    tables: Mapping[int, Int[Array, " n"]],
) -> tuple[Memory, ...]:
    """The views with one row brought from its pages, which go to its first slots in the order of the table."""
    loaded = []
    for window, view, page in zip(layer_windows(config), views, pages, strict=True):
        table = tables[window]
        found = page.values[table]
        found = place(found.reshape(*found.shape[:2], -1, 2, found.shape[-1]), *PAIRS)  # n page K 2 H
        if page.scales is not None:
            found = found * page.scales[table][..., None]
        pair = found.astype(view.key.dtype).transpose(3, 2, 0, 1, 4)  # 2 K n page H
        whole = pair.reshape(2, 1, pair.shape[1], -1, pair.shape[4])
        put = (_put_row(v, w, row) for v, w in zip(view, whole, strict=True))
        loaded.append(Memory(*put))
    return tuple(loaded)


def store(
    config: ModelConfig,
    pages: tuple[Pages, ...],
    views: tuple[Memory, ...],
    starts: Mapping[int, Int[Array | np.ndarray, " B"]],
    positions: Int[Array, " B"],
    targets: Mapping[int, Int[Array | np.ndarray, "B S"]],
    offsets: Int[Array | np.ndarray, "B S"],
) -> tuple[Pages, ...]:
    """The pages with S tokens of each row, from a position on, each in the page and at the place there it is meant for.

    What is not to be kept goes to a page that nobody reads.
    """
    stored = []
    for window, view, page in zip(layer_windows(config), views, pages, strict=True):
        cut = jax.vmap(functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=offsets.shape[1], axis=1))
        new = [cut(x, place(positions - starts[window], "batch")) for x in view]
        pairs = place(jnp.stack(new, axis=3).swapaxes(1, 2), *PAIRS)  # B S K 2 H
        scales = page.scales
        if scales is not None:
            scale = _scale(pairs)
            scales = scales.at[targets[window], offsets].set(scale)
            pairs = jnp.round(pairs / scale[..., None])
        new = side_by_side(pairs).astype(page.values.dtype)
        stored.append(Pages(page.values.at[targets[window], offsets].set(new), scales))
    return tuple(stored)


def copy(
    config: ModelConfig,
    pages: tuple[Pages, ...],
    source: Mapping[int, Int[Array, ""] | int],
    target: Mapping[int, Int[Array, ""] | int],
) -> tuple[Pages, ...]:
    """The pages with one copied to another, for each window."""
    return tuple(
        jax.tree.map(lambda x, w=window: x.at[target[w]].set(x[source[w]]), page)
        for window, page in zip(layer_windows(config), pages, strict=True)
    )


def side_by_side(pairs: Shaped[Array, "B S K 2 H"]) -> Shaped[Array, "B S 2K H"]:
    """Keys and values as pages have them, split over a mesh as the heads are: never a key apart from its value."""
    whole = pairs.reshape(*pairs.shape[:2], -1, pairs.shape[-1])
    split = spec(*PAIRS, shape=pairs.shape)
    return jax.reshard(whole, PartitionSpec(*split[:3], split[4])) if has_mesh() else whole


def rounded(x: Float[Array, "*B H"], dtype: str) -> Float[Array, "*B H"]:
    """As pages would give it back."""
    if dtype != "int8":
        return x.astype(dtype).astype(x.dtype)
    wide = x.astype(jnp.float32)
    scale = _scale(wide)[..., None]
    return (jnp.round(wide / scale) * scale).astype(x.dtype)


def _scale(x: Float[Array, "*B H"]) -> Float[Array, " *B"]:
    """What one step of eight bits is for each head: with 16 bits of its own, so that 127 steps of it are exact in
    float32, and rounding what has been rounded changes nothing."""
    step = jnp.max(jnp.abs(x), axis=-1).astype(jnp.float32) / 127
    bits = jax.lax.bitcast_convert_type(step, jnp.uint32)
    coarse = jax.lax.bitcast_convert_type((bits + 0x80) & jnp.uint32(0xFFFFFF00), jnp.float32)
    return jnp.where(step > 0, coarse, 1.0)


def _put_row(
    view: Float[Array, "B K T H"], whole: Float[Array, "1 K T H"], row: Int[Array, ""] | int
) -> Float[Array, "B K T H"]:
    whole = place(whole, *VIEW)
    if jax.typeof(whole).sharding.spec != jax.typeof(view).sharding.spec:  # rows are split over devices
        return jnp.where((jnp.arange(len(view)) == row)[:, None, None, None], whole, view)
    return jax.lax.dynamic_update_slice(view, whole, (row, 0, 0, 0))


def _put(view: Float[Array, "B K T H"], new: Float[Array, "B K S H"], at: Int[Array, " B"]) -> Float[Array, "B K T H"]:
    """The view with each row's new tokens from its own slot on."""
    if view.shape[0] == 1:
        return jax.lax.dynamic_update_slice(view, new, (0, 0, at[0], 0))
    put = jax.vmap(lambda row, added, start: jax.lax.dynamic_update_slice(row, added, (0, start, 0)))
    return put(view, new, at)


def read(query: Float[Array, "B S N H"], view: Memory, at: Int[Array, "B S"], rule: Rule) -> Float[Array, "B S N H"]:
    """Attention of queries that stand at slots of their row's view; statistics in float32."""
    batch, queries, heads, width = query.shape
    kv_heads, keys = view.key.shape[1:3]
    if queries > MIN_CHUNK and queries * keys > SCORES and queries % MIN_CHUNK == 0:  # not all scores at once
        fold = functools.partial(jnp.split, indices_or_sections=queries // MIN_CHUNK, axis=1)
        parts = zip(fold(query), fold(at), strict=True)
        return jnp.concatenate([read(part, view, where, rule) for part, where in parts], axis=1)
    # Written out as products of matrices with the cache on the right: einsum puts it on the left, and then XLA copies
    # the whole of it, transposed, at every token. So it would the matrix that comes next, but for the barrier.
    groups = heads // kv_heads
    grouped = place(query.reshape(batch, queries, kv_heads, groups, width), *GROUPED).transpose(0, 2, 3, 1, 4)
    grouped = place(grouped.reshape(batch, kv_heads, groups * queries, width), *VIEW)
    rows = ((0, 1), (0, 1))
    scores = jax.lax.dot_general(grouped, view.key, (((3,), (3,)), rows), preferred_element_type=jnp.float32)
    scores *= rule.scale
    if rule.softcap:
        scores = rule.softcap * jnp.tanh(scores / rule.softcap)
    slots = jnp.arange(keys)
    seen = slots <= at[..., None]
    if rule.window:
        seen &= slots > at[..., None] - rule.window
    seen = jnp.tile(seen, (1, groups, 1))[:, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, MASKED), axis=-1).astype(view.value.dtype)
    mixed = jax.lax.dot_general(weights, view.value, (((3,), (2,)), rows))
    mixed = mixed.reshape(batch, kv_heads, groups, queries, width).transpose(0, 3, 1, 2, 4)
    return jax.lax.optimization_barrier(place(mixed.reshape(query.shape).astype(query.dtype), *QUERY))
