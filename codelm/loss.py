"""Cross-entropy of a language model's head, without ever holding [B, S, V] logits.

Tokens are taken a chunk at a time: logits, their statistics, and in the backward pass (a custom VJP that recomputes the
logits) their gradient exist for one chunk only. Under a mesh all of it is one shard_map: tokens stay where they are,
the vocabulary is split over "tensor", and the head's width is gathered from "fsdp".

    loss, stats = cross_entropy(hidden, head, targets, loss_weights, z_weight=1e-4)
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from codelm.sharding import MESH_AXES, has_mesh

BATCH_AXES = MESH_AXES["batch"]
# The head's gradient is a sum over the shards of the tokens; over fsdp it is summed and scattered, so it is not here.
REPLICATED_HEAD_AXES = ("data", "expert", "context")
ALL_AXES = ("data", "fsdp", "expert", "tensor", "context")


class Stats(NamedTuple):
    """Weighted sums over tokens, float32: they add up over microbatches, and loss = (cross_entropy + z) / weight."""

    cross_entropy: Float[Array, ""]
    """In nats."""
    z: Float[Array, ""]
    """z_weight times the squared log-partition."""
    weight: Float[Array, ""]
    correct: Float[Array, ""]
    """Tokens whose target is the argmax; the lower id wins a tie."""


class _Head(NamedTuple):
    """What turns hidden @ head.T into logits, and how to compute it."""

    logit_multiplier: float
    softcap: float
    chunk: int
    sharded: bool


def cross_entropy(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
    *,
    z_weight: float = 0.0,
    logit_multiplier: float = 1.0,
    softcap: float = 0.0,
    chunk: int = 1024,
) -> tuple[Float[Array, ""], Stats]:
    """The weighted mean of cross-entropy + z_weight * lse**2 over tokens (0 where no token has weight), and its sums.

    Logits are softcap(logit_multiplier * hidden @ head.T), softcap(x) = softcap * tanh(x / softcap), 0 for none. The
    product runs in hidden's dtype with float32 accumulation; chunk is tokens a device, the memory/speed trade.
    """
    losses, lse, correct = _statistics(hidden, head, targets, logit_multiplier, softcap, chunk)
    if has_mesh():
        weights = jax.reshard(weights, P(BATCH_AXES, "context"))
    weights = weights.astype(jnp.float32)
    stats = Stats(
        cross_entropy=jnp.sum(weights * losses),
        z=z_weight * jnp.sum(weights * lse**2),
        weight=jnp.sum(weights),
        correct=jnp.sum(weights * correct),
    )
    return (stats.cross_entropy + stats.z) / jnp.where(stats.weight == 0, 1.0, stats.weight), stats


def token_losses(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B S"],
    *,
    logit_multiplier: float = 1.0,
    softcap: float = 0.0,
    chunk: int = 1024,
) -> Float[Array, "B S"]:
    """Each token's cross-entropy in nats, for evaluation."""
    return _statistics(hidden, head, targets, logit_multiplier, softcap, chunk)[0]


def _statistics(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B S"],
    logit_multiplier: float,
    softcap: float,
    chunk: int,
) -> tuple[Float[Array, "B S"], Float[Array, "B S"], Float[Array, "B S"]]:
    """Cross-entropy, log-partition and correctness (0 or 1) of each token."""
    sharded = has_mesh()
    options = _Head(logit_multiplier, softcap, chunk, sharded)

    def local(hidden: Array, head: Array, targets: Array) -> tuple[Array, Array, Array]:
        flat = hidden.reshape(-1, hidden.shape[-1])
        losses, lse, correct = _token_statistics(options, flat, head, targets.reshape(-1))
        return losses.reshape(targets.shape), lse.reshape(targets.shape), correct.reshape(targets.shape)

    if not sharded:
        return local(hidden, head, targets)
    tokens = P(BATCH_AXES, "context")
    specs = (P(BATCH_AXES, "context", None), P("tensor", "fsdp"), tokens)
    arguments = [jax.reshard(x, spec) for x, spec in zip((hidden, head, targets), specs, strict=True)]
    return jax.shard_map(local, in_specs=specs, out_specs=(tokens, tokens, tokens))(*arguments)


# From here on shapes are one device's: V and D of the head are its shards.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _token_statistics(
    options: _Head, hidden: Float[Array, "T D"], head: Float[Array, "V d"], targets: Int[Array, " T"]
) -> tuple[Float[Array, " T"], Float[Array, " T"], Float[Array, " T"]]:
    return _forward(options, hidden, head, targets)[0]


def _forward(options: _Head, hidden: Float[Array, "T D"], head: Float[Array, "V d"], targets: Int[Array, " T"]):
    # Cast before the gather: half the bytes on the wire and in memory when training in bfloat16.
    table = head.astype(hidden.dtype)
    if options.sharded:
        table = jax.lax.all_gather(table, "fsdp", axis=1, tiled=True)
    ids = _vocabulary_ids(options, table)

    def chunk_statistics(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        hidden, targets = chunk
        logits = _logits(options, hidden, table)
        top = jnp.max(logits, axis=-1)
        best = ids[jnp.argmax(logits, axis=-1)]
        total_top = jax.lax.pmax(top, "tensor") if options.sharded else top
        partition = jnp.sum(jnp.exp(logits - total_top[:, None]), axis=-1)
        target = jnp.sum(jnp.where(ids == targets[:, None], logits, 0.0), axis=-1)
        if options.sharded:
            partition, target = jax.lax.psum((partition, target), "tensor")
            best = jax.lax.pmin(jnp.where(top == total_top, best, jnp.iinfo(best.dtype).max), "tensor")
        lse = total_top + jnp.log(partition)
        return lse - target, lse, (best == targets).astype(jnp.float32)

    chunks = (_chunked(hidden, options.chunk), _chunked(targets, options.chunk))
    losses, lse, correct = (x.reshape(-1)[: targets.size] for x in jax.lax.map(chunk_statistics, chunks))
    # An empty slice keeps the head's stored dtype, which the gradient is returned in.
    return (losses, lse, correct), (hidden, table, targets, lse, head[:0, :0])


def _backward(options: _Head, residuals: tuple[Array, ...], gradients: tuple[Array, Array, Array]):
    hidden, table, targets, lse, stored = residuals
    loss_gradient, lse_gradient, _ = gradients
    ids = _vocabulary_ids(options, table)

    def chunk_gradient(table_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        hidden, targets, lse, loss_gradient, lse_gradient = chunk
        logits = _logits(options, hidden, table)
        gradient = (loss_gradient + lse_gradient)[:, None] * jnp.exp(logits - lse[:, None])
        gradient -= jnp.where(ids == targets[:, None], loss_gradient[:, None], 0.0)
        if options.softcap:
            gradient *= 1 - (logits / options.softcap) ** 2
        gradient = (gradient * options.logit_multiplier).astype(hidden.dtype)
        hidden_gradient = jnp.einsum("tv,vd->td", gradient, table, preferred_element_type=jnp.float32)
        if options.sharded:
            hidden_gradient = jax.lax.psum(hidden_gradient, "tensor")
        table_gradient += jnp.einsum("tv,td->vd", gradient, hidden, preferred_element_type=jnp.float32)
        return table_gradient, hidden_gradient.astype(hidden.dtype)

    # Summed over chunks and shards in float32, whatever the parameters are stored in.
    zeros = jnp.zeros(table.shape, jnp.float32)
    if options.sharded:
        zeros = jax.lax.pcast(zeros, ALL_AXES, to="varying")
    chunks = [_chunked(x, options.chunk) for x in (hidden, targets, lse, loss_gradient, lse_gradient)]
    table_gradient, hidden_gradient = jax.lax.scan(chunk_gradient, zeros, tuple(chunks))
    if options.sharded:
        table_gradient = jax.lax.psum_scatter(table_gradient, "fsdp", scatter_dimension=1, tiled=True)
        table_gradient = jax.lax.psum(table_gradient, REPLICATED_HEAD_AXES)
    hidden_gradient = hidden_gradient.reshape(-1, hidden.shape[-1])[: targets.size]
    return hidden_gradient, table_gradient.astype(stored.dtype), None


_token_statistics.defvjp(_forward, _backward)


def _logits(options: _Head, hidden: Float[Array, "T D"], table: Float[Array, "V D"]) -> Float[Array, "T V"]:
    logits = options.logit_multiplier * jnp.einsum("td,vd->tv", hidden, table, preferred_element_type=jnp.float32)
    return options.softcap * jnp.tanh(logits / options.softcap) if options.softcap else logits


def _vocabulary_ids(options: _Head, table: Float[Array, "V D"]) -> Int[Array, " V"]:
    """The token ids of this shard's rows."""
    first = jax.lax.axis_index("tensor") * table.shape[0] if options.sharded else 0
    return first + jnp.arange(table.shape[0])


def _chunked(x: Array, chunk: int) -> Array:
    """[T, ...] to [N, C, ...], C at most chunk and as even as can be; zeros fill the last."""
    tokens = x.shape[0]
    count = max(1, -(-tokens // chunk))
    size = -(-tokens // count)
    if padding := count * size - tokens:
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(count, size, *x.shape[1:])
