"""The engine's cache read where it is, in pages, by the kernel for TPUs: no views, nothing to bring or to take back.

New keys and values go straight to the pages of their rows, those of padding to the last page, which is nobody's. A
table of a layer that slides begins with the first page still in sight, as its views would: the kernel only looks at how
far keys are from queries.

The kernel refuses what its loads do not fit (`refusal`); then the engine takes views, and the log says why.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from codelm.attention import explicit_axes, log_once
from codelm.cache import EMPTY, Heads, Rows, Rule
from codelm.config import ModelConfig
from codelm.sharding import everywhere, has_mesh, place, platform, spec
from codelm.views import PAIRS, QUERY, Pages, side_by_side

KEYS = 512  # that the kernel takes at a time: two such blocks of 8 key heads in bfloat16 are half of 16 MiB
QUERIES = 32
MOST_PAGES = 2**17  # in a table of all rows: half of the 1 MiB of scalar memory


def reads_pages(config: ModelConfig, dtype: str, entries: int) -> bool:
    """Whether the kernel can read pages of this dtype, with tables of so many entries; the log says so once."""
    where, refused = platform(), refusal(config, dtype, entries)
    told = f"views instead of the paged kernel on {where}: {refused}" if refused else f"the paged kernel on {where}"
    log_once(logging.WARNING if refused and where == "tpu" else logging.INFO, f"decoding: {told}")
    return not refused


def refusal(config: ModelConfig, dtype: str, entries: int) -> str:
    """Why the kernel cannot do it; empty if it can."""
    tensor = explicit_axes().get("tensor", 1)
    heads = config.kv_heads // tensor
    if platform() != "tpu":
        return f"it needs a TPU and this is {platform()}"
    if config.head_dim != 128:
        return f"its loads only fit heads of 128, not {config.head_dim}"
    if dtype != config.compute_dtype:
        return f"it reads keys and values in the dtype that computes ({config.compute_dtype}), not {dtype}"
    if config.kv_heads % tensor or (heads not in (1, 2, 4) and heads % 8):
        return f"on each device it takes 1, 2, 4 or a multiple of 8 key heads, not {config.kv_heads} / {tensor}"
    if entries > MOST_PAGES:
        return f"tables of {entries:,} pages are more than it holds ({MOST_PAGES:,}): take larger pages"
    return ""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["starts", "tables"], meta_fields=[])
@dataclass(frozen=True)
class Slots:
    """For layers of each window, the position with which each row's table begins, and its pages from there on."""

    starts: Mapping[int, Int[Array | np.ndarray, " B"]]
    tables: Mapping[int, Int[Array | np.ndarray, "B n"]]

    def attend(self, memory: Pages, heads: Heads, rows: Rows, rule: Rule) -> tuple[Float[Array, "B S N H"], Pages]:
        (count, page), table = memory.values.shape[:2], jnp.asarray(self.tables[rule.window])
        at = everywhere(rows.positions) - self.starts[rule.window][:, None]
        own = jnp.take_along_axis(table, at // page, axis=1)
        to = jnp.where(everywhere(rows.segments) == EMPTY, count - 1, own), at % page
        new = side_by_side(place(jnp.stack([heads.key, heads.value], axis=3), *PAIRS)).astype(memory.values.dtype)
        read = functools.partial(_write_and_read, rule=rule)
        arrays = (memory.values, heads.query, new, to, table, at[:, -1] + 1)
        mixed, values = _over_mesh(read, *arrays) if has_mesh() else read(*arrays)
        return mixed, memory._replace(values=values)


def _over_mesh(
    read: Callable,
    pages: Shaped[Array, "P page 2K H"],
    query: Float[Array, "B S N H"],
    new: Shaped[Array, "B S 2K H"],
    to: tuple[Int[Array, "B S"], Int[Array, "B S"]],
    tables: Int[Array, "B n"],
    ends: Int[Array, " B"],
) -> tuple[Float[Array, "B S N H"], Shaped[Array, "P page 2K H"]]:
    """Every device reads for its rows and heads, and writes what is new in its heads of all rows."""
    queries = spec(*QUERY, shape=query.shape)
    heads, batch = jax.typeof(pages).sharding.spec, queries[0]
    specs = (heads, queries, jax.typeof(new).sharding.spec, (P(), P()), P(batch), P(batch))
    run = jax.shard_map(read, in_specs=specs, out_specs=(queries, heads), check_vma=False)  # see attention.sharded
    return run(*jax.tree.map(jax.reshard, (pages, query, new, to, tables, ends), specs))


def _write_and_read(
    pages: Shaped[Array, "P page 2K H"],
    query: Float[Array, "B S N H"],
    new: Shaped[Array, "b S 2K H"],
    to: tuple[Int[Array, "b S"], Int[Array, "b S"]],
    tables: Int[Array, "B n"],
    ends: Int[Array, " B"],
    *,
    rule: Rule,
) -> tuple[Float[Array, "B S N H"], Shaped[Array, "P page 2K H"]]:
    """The queries are each row's last, up to where it ends."""
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    pages = pages.at[to].set(new)
    rows, each = query.shape[:2]
    mixed = ragged_paged_attention(
        query.reshape(rows * each, *query.shape[2:]),
        pages,
        ends,
        tables,
        jnp.arange(rows + 1, dtype=jnp.int32) * each,
        jnp.array([rows], jnp.int32),
        sm_scale=rule.scale,
        sliding_window=rule.window or None,
        soft_cap=rule.softcap or None,
        num_kv_pages_per_block=min(tables.shape[1], max(KEYS // pages.shape[1], 1)),
        num_queries_per_block=min(rows * each, QUERIES),
    )
    return mixed.reshape(query.shape), pages
