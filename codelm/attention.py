"""Attention: one function and one mask, whatever computes it.

A query sees a key when both are in the same segment, the key's position is not later than the query's and, with a
window, it is one of the last `window` positions, the query's own included. Position and segment are arrays, not row
numbers, so the same rule is right for packed documents (positions restart), for cached decoding (few queries, many
slots, an unused slot in a segment no query has) and for keys gathered from other devices. A query that sees no key
gets zeros.

- xla runs everywhere and refuses nothing: queries go in chunks, so memory grows with S and with T, not with S times T.
- splash, a Pallas kernel for TPUs that skips masked blocks, refuses keys that are not the queries' own rows, and a
  number of rows on each device that is no multiple of 128.
- pallas, a Triton kernel for GPUs, refuses the same and windows, soft-caps, float32, heads over 128, context axes.
- cudnn is refused: it has no segment ids, and without them packed documents would read each other.

`auto` takes the kernel of the platform if it can do the job, else xla, and says which and why once, at WARNING when a
long sequence takes the slow path. Under an explicit mesh all of it runs in one shard_map: batch over data, fsdp and
expert, heads over tensor, queries over context, keys and values gathered over context.

>>> rows = dict(query_positions=p, key_positions=p, query_segments=s, key_segments=s)  # doctest: +SKIP
>>> attend(query, key, value, **rows, scale=head_dim**-0.5, window=4096)  # doctest: +SKIP
"""

import functools
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from codelm.errors import UserError, nearest
from codelm.sharding import dealt, dealt_back, platform

log = logging.getLogger("codelm.attention")

KERNELS = {"tpu": "splash", "gpu": "pallas"}  # what auto wants on each platform; elsewhere xla is all there is
LONG = 2048  # queries from which falling back to xla is worth a warning
SCORES = 2**20  # scores that xla holds at a time for each head of each row: 1024 x 1024 in one go, 128 x 8192 in chunks
MIN_CHUNK = 128  # queries, whatever the number of keys: fewer would starve a matrix unit
PARTS, SPLIT_FROM = (
    4,
    512,
)  # where rows are in order, queries from which xla takes them in parts, each with its own keys
NAME = "attention"  # of what remat policies may keep of it
MASKED = -1e30  # finite: an infinity would turn into NaN in the gradient of rows that see nothing


@dataclass(frozen=True)
class Rule:
    """How a score is made of a query and a key, and how far back a query sees (0: all the way)."""

    scale: float
    window: int
    softcap: float
    in_order: bool
    """Whether queries and keys are the same rows, so that no query sees a later row."""


class Rows(NamedTuple):
    """Where queries and keys stand."""

    query_positions: Int[Array, "B S"]
    key_positions: Int[Array, "B T"]
    query_segments: Int[Array, "B S"]
    key_segments: Int[Array, "B T"]

    def visible(self, window: int) -> Bool[Array, "B S T"]:
        """Which keys each query sees."""
        query_at, key_at = self.query_positions[:, :, None], self.key_positions[:, None, :]
        seen = (self.query_segments[:, :, None] == self.key_segments[:, None, :]) & (key_at <= query_at)
        return seen & (key_at > query_at - window) if window else seen


def attend(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    *,
    query_positions: Int[Array, "B S"],
    key_positions: Int[Array, "B T"],
    query_segments: Int[Array, "B S"],
    key_segments: Int[Array, "B T"],
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    backend: str = "auto",
) -> Float[Array, "B S N H"]:
    """Causal grouped-query attention within segments; softmax statistics in float32, result in the query's dtype.

    The kernels mask by row number, which is the same thing only when queries and keys are the same rows, a segment's
    rows are neighbours and their positions rise by one. Arrays cannot tell that while tracing, so the caller says it:
    pass the very same positions and segments objects for queries and keys. Anything else goes to xla, always right.
    """
    heads, kv_heads = query.shape[2], key.shape[2]
    if heads % kv_heads:
        raise UserError(f"{heads} query heads cannot share {kv_heads} key heads evenly: make one divide the other")
    same_rows = query_positions is key_positions and query_segments is key_segments
    rule = Rule(float(scale), window, float(softcap), same_rows)
    axes, where = explicit_axes(), platform()
    refused = refusals(where, query.shape, query.dtype, axes.get("context", 1), rule)
    local = LOCAL[choose(backend, where, refused, query.shape[1])]
    rows = Rows(query_positions, key_positions, query_segments, key_segments)
    return sharded(local, axes, query, key, value, rows, rule) if axes else local(query, key, value, rows, rule)


# --- Which backend ---------------------------------------------------------------------------------------------------


def choose(backend: str, platform: str, refusals: dict[str, str], rows: int) -> str:
    """The backend to use: the one asked for or an error; for auto, the platform's or xla, and the log says why."""
    if backend not in ("auto", *refusals):
        raise UserError(
            f"no attention backend {backend!r} (did you mean {nearest(backend, ['auto', *refusals])!r}?): "
            f"take one of auto, {', '.join(refusals)}"
        )
    if backend != "auto":
        if refusals[backend]:
            raise UserError(f"attention backend {backend!r} refuses: {refusals[backend]}; take 'auto' or 'xla'")
        log_once(logging.INFO, f"attention: {backend}, as asked, on {platform}")
        return backend
    wanted = KERNELS.get(platform, "xla")
    if not refusals[wanted]:
        log_once(logging.INFO, f"attention: {wanted} on {platform}")
        return wanted
    level = logging.WARNING if rows >= LONG else logging.INFO
    log_once(level, f"attention: xla instead of {wanted} on {platform}: {refusals[wanted]}")
    return "xla"


def refusals(platform: str, shape: tuple[int, ...], dtype: jnp.dtype, context: int, rule: Rule) -> dict[str, str]:
    """For each backend why it cannot do this ('' when it can); `shape` and `dtype` are the query's."""
    rows = ""
    if not rule.in_order:
        rows = "queries and keys are not one row order (pass the same positions and segments objects for both)"
    elif shape[1] % (128 * context):
        rows = "it needs a multiple of 128 positions on each device"
    splash = pallas = rows
    if platform != "tpu":
        splash = f"it needs a TPU and this is {platform}"
    if platform != "gpu":
        pallas = f"it needs a GPU and this is {platform}"
    elif rule.window or rule.softcap:
        pallas = "it has no window and no soft-cap"
    elif context > 1:
        pallas = "it takes one list of segments for queries and keys, so no context parallelism"
    elif dtype not in (jnp.bfloat16, jnp.float16) or shape[3] > 128:
        pallas = "its tiles only fit bfloat16 or float16 heads of 128 or less"
    cudnn = "it has no segment ids, so packed documents would read each other"
    return {"xla": "", "splash": splash, "pallas": pallas, "cudnn": cudnn}


@functools.cache
def log_once(level: int, message: str) -> None:
    log.log(level, message)


# --- Over a mesh -----------------------------------------------------------------------------------------------------


def explicit_axes() -> dict[str, int]:
    """The mesh axes that are ours to shard over, with their sizes; none inside somebody else's shard_map."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types or (), strict=False)
    return {name: size for name, size, kind in kinds if kind == AxisType.Explicit}


def sharded(
    local: Callable,
    axes: dict[str, int],
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
) -> Float[Array, "B S N H"]:
    """`local` on each device's rows, heads and queries, against keys gathered from the whole sequence."""
    (batch_size, queries, _, _), (_, keys, kv_heads, _) = query.shape, key.shape
    batch = tuple(name for name in ("data", "fsdp", "expert") if name in axes)
    if batch_size % math.prod(axes[name] for name in batch):
        batch = ()  # one prompt on many devices: each computes it
    tensor = "tensor" if "tensor" in axes else None
    if tensor and kv_heads % axes[tensor]:
        raise UserError(
            f"{kv_heads} key heads do not divide over tensor={axes[tensor]}: take a tensor that divides them"
        )
    context = "context" if axes.get("context", 1) > 1 else None
    if context and (queries % axes[context] or keys % axes[context]):
        if queries >= LONG:
            log_once(logging.WARNING, "attention: the sequence does not divide over context: each device does it all")
        context = None
    heads, row = P(batch or None, context, tensor, None), P(batch or None, context)
    specs = (heads, heads, heads, jax.tree.map(lambda _: row, rows))

    def on_device(query: Array, key: Array, value: Array, rows: Rows) -> Array:
        if context:
            gather = functools.partial(jax.lax.all_gather, axis_name=context, axis=1, tiled=True)
            key, value = gather(key), gather(value)
            rows = rows._replace(key_positions=gather(rows.key_positions), key_segments=gather(rows.key_segments))
        return local(query, key, value, rows, rule, context)

    # Pallas kernels do not say along which axes their results vary, so that cannot be checked.
    run = jax.shard_map(on_device, in_specs=specs, out_specs=heads, axis_names=set(axes), check_vma=False)
    return run(*jax.tree.map(jax.reshard, (query, key, value, rows), specs))


# --- On one device ---------------------------------------------------------------------------------------------------


def xla(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
    context: str | None = None,
) -> Float[Array, "B S N H"]:
    """Plain JAX. Where rows are in order, queries go in parts, each against the keys that it can see at all."""
    queries = query.shape[1]
    if not rule.in_order or context or queries < SPLIT_FROM or queries % PARTS:
        return checkpoint_name(chunked(query, key, value, rows, rule), NAME)
    parts, size = [], queries // PARTS
    for start in range(0, queries, size):
        end = start + size
        own, seen = slice(start, end), slice(max(start - rule.window + 1, 0) if rule.window else 0, end)
        part = Rows(
            rows.query_positions[:, own],
            rows.key_positions[:, seen],
            rows.query_segments[:, own],
            rows.key_segments[:, seen],
        )
        parts.append(chunked(query[:, own], key[:, seen], value[:, seen], part, rule))
    return checkpoint_name(jnp.concatenate(parts, axis=1), NAME)


def chunked(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
) -> Float[Array, "B S N H"]:
    """A chunk of queries at a time; the backward pass recomputes each chunk's scores."""
    batch, queries, heads, width = query.shape
    most = max(MIN_CHUNK, SCORES // key.shape[1])
    if queries <= most:
        return dense(query, key, value, rows, rule)
    chunks = -(-queries // most)
    chunk = -(-queries // chunks)

    def fold(x: Array) -> Array:
        padded = jnp.pad(x, [(0, 0), (0, chunks * chunk - queries)] + [(0, 0)] * (x.ndim - 2))
        return padded.reshape(batch, chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    # In float32 here so that the loop's backward pass adds the chunks' gradients up in float32.
    wide_key, wide_value = key.astype(jnp.float32), value.astype(jnp.float32)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one(part: tuple[Array, Array, Array]) -> Array:
        part_query, positions, segments = part
        part_rows = rows._replace(query_positions=positions, query_segments=segments)
        return dense(part_query, wide_key.astype(key.dtype), wide_value.astype(value.dtype), part_rows, rule)

    out = jax.lax.map(one, (fold(query), fold(rows.query_positions), fold(rows.query_segments)))
    return out.swapaxes(0, 1).reshape(batch, chunks * chunk, heads, width)[:, :queries]


def dense(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
) -> Float[Array, "B S N H"]:
    """All the scores at once. Query heads that share a key head are a dimension: nothing is repeated."""
    grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[3])
    scores = rule.scale * jnp.einsum("bskgh,btkh->bkgst", grouped, key, preferred_element_type=jnp.float32)
    if rule.softcap:
        scores = rule.softcap * jnp.tanh(scores / rule.softcap)
    seen = rows.visible(rule.window)[:, None, None]
    scores = jnp.where(seen, scores, MASKED)
    # At least MASKED / 2, so that the weights of a query that sees nothing are 0 like those of all masked keys.
    peak = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True, initial=MASKED / 2))
    weights = jnp.exp(scores - peak)
    total = jnp.moveaxis(weights.sum(axis=-1), -1, 1)[..., None]
    mixed = jnp.einsum("bkgst,btkh->bskgh", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (mixed / jnp.where(total > 0, total, 1.0)).reshape(query.shape).astype(query.dtype)


def splash(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
    context: str | None = None,
    interpret: bool = False,
) -> Float[Array, "B S N H"]:
    """The TPU kernel. With a context axis the queries are this device's share of the keys' rows.

    The last rows see many more keys than the first, so an even number of devices deal them out: each takes one of twice
    as many shares from the front, and the one as far from the end.
    """
    shares, of = key.shape[1] // query.shape[1], rows.query_segments
    run = functools.partial(splash_share, key=key, value=value, rows=rows, rule=rule, interpret=interpret)
    if context is None:
        return run(query, of, None, 1)
    me = jax.lax.axis_index(context)
    if shares % 2 or query.shape[1] % (2 * 128):
        return run(query, of, me, shares)
    (early, late), (early_of, late_of) = dealt(query, context, shares), dealt(of, context, shares)
    halves = run(early, early_of, me, 2 * shares), run(late, late_of, 2 * shares - 1 - me, 2 * shares)
    return dealt_back(*halves, context, shares)


def splash_share(
    query: Float[Array, "B S N H"],
    segments: Int[Array, "B S"],
    share: Int[Array, ""] | None,
    shares: int,
    *,
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
    interpret: bool,
) -> Float[Array, "B S N H"]:
    """The kernel on one of so many shares of the rows."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    queries, keys, heads = query.shape[1], key.shape[1], query.shape[2]
    square = (keys, keys)
    mask = kernels.LocalMask(square, (rule.window - 1, 0), 0) if rule.window else kernels.CausalMask(square)
    block = next(size for size in (512, 256, 128) if queries % size == 0)
    blocks = kernels.BlockSizes(
        block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
    )
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        attn_logits_soft_cap=rule.softcap or None,
        head_shards=1,
        q_seq_shards=shares,
        residual_checkpoint_name=NAME,  # of the statistics too, without which keeping its result saves no work
        interpret=interpret,
    )
    if share is not None:
        kernel = jax.tree.map(functools.partial(own_share, share=share, shares=shares), kernel)
    scaled = (query.astype(jnp.float32) * rule.scale).astype(query.dtype)
    of = kernels.SegmentIds(q=segments, kv=rows.key_segments)
    out: Any = jax.vmap(kernel)(*(x.swapaxes(1, 2) for x in (scaled, key, value)), of)
    return out.swapaxes(1, 2)


def own_share(info: Array, *, share: Int[Array, ""], shares: int) -> Array:
    """A share of the kernel's table of blocks ([heads, query blocks, key blocks]) or of query rows."""
    axis = 1 if info.ndim == 3 else 0
    size = info.shape[axis] // shares
    return jax.lax.dynamic_slice_in_dim(info, share * size, size, axis)


def pallas(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    rows: Rows,
    rule: Rule,
    context: str | None = None,
    interpret: bool = False,
) -> Float[Array, "B S N H"]:
    """The GPU kernel, mapped over the query heads that share a key head so that no key is repeated."""
    with warnings.catch_warnings():  # it says to move to tokamax, which codelm does not depend on
        warnings.simplefilter("ignore", DeprecationWarning)
        from jax.experimental.pallas.ops.gpu.attention import mha

    def one_of_group(query: Float[Array, "B S K H"]) -> Float[Array, "B S K H"]:
        return mha(query, key, value, rows.query_segments, sm_scale=rule.scale, causal=True, interpret=interpret)

    grouped = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[3])
    mixed = jax.vmap(one_of_group, in_axes=3, out_axes=3)(grouped).reshape(query.shape)
    return checkpoint_name(mixed, NAME)


LOCAL: dict[str, Callable] = {"xla": xla, "splash": splash, "pallas": pallas}
