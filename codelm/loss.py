"""Cross-entropy of a language model's head, without ever holding [B, S, V] logits.

Tokens are taken a chunk at a time: their logits exist for one chunk only. What the loss is summed with is known, so its
gradient is too: where one is asked for it is computed beside the loss, from the same logits, and the backward pass only
scales it. Under a mesh all of it is one shard_map: tokens stay where they are, the vocabulary is split over "tensor",
and the head's width is gathered from "fsdp".

    loss, stats = cross_entropy(hidden, head, targets, loss_weights, z_weight=1e-4)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from codelm.sharding import MESH_AXES, has_mesh, sum_scattered

BATCH_AXES = MESH_AXES["batch"]
TOKENS = P(BATCH_AXES, "context")
HIDDEN, HEAD = P(BATCH_AXES, "context", None), P("tensor", "fsdp")
# The head's gradient is a sum over the shards of the tokens; over fsdp it is summed and scattered, so it is not here.
REPLICATED_HEAD_AXES = ("data", "expert", "context")
LOGITS = 2**25  # a device has at a time: 512 tokens of 49,152, 128 MB in float32
ALL_AXES = ("data", "fsdp", "expert", "tensor", "context")


class Stats(NamedTuple):
    """Weighted sums over tokens, float32: they add up over microbatches, and loss = (cross_entropy + z) / weight.

    No gradient goes through them, but through the loss they are of.
    """

    cross_entropy: Float[Array, ""]
    """In nats."""
    z: Float[Array, ""]
    """z_weight times the squared log-partition."""
    weight: Float[Array, ""]
    correct: Float[Array, ""]
    """Tokens whose target is the argmax; the lower id wins a tie."""


class PerToken(NamedTuple):
    losses: Float[Array, "..."]
    """Cross-entropy in nats."""
    lse: Float[Array, "..."]
    """The log-partition."""
    correct: Float[Array, "..."]
    """0 or 1."""


class _Head(NamedTuple):
    """What turns hidden @ head.T into logits and those into a loss, and how to compute it."""

    z_weight: float
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
    chunk: int = 0,
) -> tuple[Float[Array, ""], Stats]:
    """The weighted mean of cross-entropy + z_weight * lse**2 over tokens (0 where no token has weight), and its sums.

    Logits are softcap(logit_multiplier * hidden @ head.T), softcap(x) = softcap * tanh(x / softcap), 0 for none. The
    product runs in hidden's dtype with float32 accumulation; chunk is tokens a device, the memory/speed trade (0 = as
    many as have LOGITS logits).
    """
    options = _Head(z_weight, logit_multiplier, softcap, chunk, has_mesh())
    hidden, head, targets, weights = _placed(options, hidden, head, targets, weights.astype(jnp.float32))
    total, stats = _summed(options, hidden, head, targets, weights)
    return total / jnp.where(stats.weight == 0, 1.0, stats.weight), stats


def token_losses(
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B S"],
    *,
    logit_multiplier: float = 1.0,
    softcap: float = 0.0,
    chunk: int = 0,
) -> Float[Array, "B S"]:
    """Each token's cross-entropy in nats, for evaluation."""
    options = _Head(0.0, logit_multiplier, softcap, chunk, has_mesh())
    return _statistics(options, *_placed(options, hidden, head, targets)).losses


def _placed(options: _Head, hidden: Array, head: Array, *tokens: Array) -> list[Array]:
    arrays = [hidden, head, *tokens]
    if not options.sharded:
        return arrays
    specs = [HIDDEN, HEAD, *(TOKENS for _ in tokens)]
    return [jax.reshard(x, spec) for x, spec in zip(arrays, specs, strict=True)]


def _mapped(options: _Head, local: Callable[..., Any], inputs: tuple[P, ...], outputs: Any) -> Callable[..., Any]:
    """`local`, which is about one device's tokens and vocabulary, over the mesh."""
    return jax.shard_map(local, in_specs=inputs, out_specs=outputs) if options.sharded else local


def _statistics(
    options: _Head, hidden: Float[Array, "B S D"], head: Float[Array, "V D"], targets: Int[Array, "B S"]
) -> PerToken:
    local = partial(_local_statistics, options)
    return _mapped(options, local, (HIDDEN, HEAD, TOKENS), TOKENS)(hidden, head, targets)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    options: _Head,
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
) -> tuple[Float[Array, ""], Stats]:
    return _sums(options, _statistics(options, hidden, head, targets), weights)


def _forward(options: _Head, hidden: Array, head: Array, targets: Array, weights: Array):
    inputs, outputs = (HIDDEN, HEAD, TOKENS, TOKENS), (TOKENS, HIDDEN, HEAD)
    run = _mapped(options, partial(_local_gradients, options), inputs, outputs)
    tokens, hidden_gradient, head_gradient = run(hidden, head, targets, weights)
    # An empty slice keeps the head's stored dtype, which the gradient is returned in.
    return _sums(options, tokens, weights), (hidden_gradient, head_gradient, head[:0, :0])


def _backward(options: _Head, gradients: tuple[Array, ...], cotangents: tuple[Array, Stats]):
    hidden, head, stored = gradients
    scale = cotangents[0]
    return (hidden * scale).astype(hidden.dtype), (head * scale).astype(stored.dtype), None, None


_summed.defvjp(_forward, _backward)


def _sums(options: _Head, tokens: PerToken, weights: Float[Array, "B S"]) -> tuple[Float[Array, ""], Stats]:
    stats = Stats(
        cross_entropy=jnp.sum(weights * tokens.losses),
        z=options.z_weight * jnp.sum(weights * tokens.lse**2),
        weight=jnp.sum(weights),
        correct=jnp.sum(weights * tokens.correct),
    )
    return stats.cross_entropy + stats.z, stats


# From here on shapes are one device's: V and D of the head are its shards.


def _local_statistics(
    options: _Head, hidden: Float[Array, "B S D"], head: Float[Array, "V d"], targets: Int[Array, "B S"]
) -> PerToken:
    table = _table(options, hidden, head)

    @jax.checkpoint  # a gradient through these computes the logits of a chunk again
    def of_chunk(chunk: tuple[Array, Array]) -> PerToken:
        return _of_logits(options, _logits(options, chunk[0], table), chunk[1])

    found = jax.lax.map(of_chunk, tuple(_chunked(x, _tokens(options, table)) for x in (hidden, targets)))
    return PerToken(*(_whole(x, targets.shape) for x in found))


def _local_gradients(
    options: _Head,
    hidden: Float[Array, "B S D"],
    head: Float[Array, "V d"],
    targets: Int[Array, "B S"],
    weights: Float[Array, "B S"],
) -> tuple[PerToken, Float[Array, "B S D"], Float[Array, "V d"]]:
    """Also the gradients of the weighted sum of losses, not yet divided by the weights; the head's in float32."""
    table = _table(options, hidden, head)

    def of_chunk(table_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, tuple[PerToken, Array]]:
        hidden, targets, weights = chunk
        logits = _logits(options, hidden, table)
        tokens = _of_logits(options, logits, targets)
        through_lse = weights * (1 + 2 * options.z_weight * tokens.lse)
        gradient = through_lse[:, None] * jnp.exp(logits - tokens.lse[:, None])
        gradient -= jnp.where(_ids(options, logits) == targets[:, None], weights[:, None], 0.0)
        if options.softcap:
            gradient *= 1 - (logits / options.softcap) ** 2
        gradient = (gradient * options.logit_multiplier).astype(hidden.dtype)
        hidden_gradient = jnp.einsum("tv,vd->td", gradient, table, preferred_element_type=jnp.float32)
        if options.sharded:
            hidden_gradient = jax.lax.psum(hidden_gradient, "tensor")
        table_gradient += jnp.einsum("tv,td->vd", gradient, hidden, preferred_element_type=jnp.float32)
        return table_gradient, (tokens, hidden_gradient.astype(hidden.dtype))

    # Summed over chunks and shards in float32, whatever the parameters are stored in.
    zeros = jnp.zeros(table.shape, jnp.float32)
    if options.sharded:
        zeros = jax.lax.pcast(zeros, ALL_AXES, to="varying")
    chunks = [_chunked(x, _tokens(options, table)) for x in (hidden, targets, weights)]
    table_gradient, (tokens, hidden_gradient) = jax.lax.scan(of_chunk, zeros, tuple(chunks))
    if options.sharded:
        table_gradient = sum_scattered(table_gradient, "fsdp", 1)
        table_gradient = jax.lax.psum(table_gradient, REPLICATED_HEAD_AXES)
    tokens = PerToken(*(_whole(x, targets.shape) for x in tokens))
    return tokens, _whole(hidden_gradient, hidden.shape), table_gradient


def _table(options: _Head, hidden: Float[Array, "B S D"], head: Float[Array, "V d"]) -> Float[Array, "V D"]:
    # Cast before the gather: half the bytes on the wire and in memory when training in bfloat16.
    table = head.astype(hidden.dtype)
    return jax.lax.all_gather(table, "fsdp", axis=1, tiled=True) if options.sharded else table


def _logits(options: _Head, hidden: Float[Array, "T D"], table: Float[Array, "V D"]) -> Float[Array, "T V"]:
    logits = options.logit_multiplier * jnp.einsum("td,vd->tv", hidden, table, preferred_element_type=jnp.float32)
    return options.softcap * jnp.tanh(logits / options.softcap) if options.softcap else logits


def _of_logits(options: _Head, logits: Float[Array, "T V"], targets: Int[Array, " T"]) -> PerToken:
    ids, none = _ids(options, logits), jnp.iinfo(jnp.int32).max
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    top = jax.lax.pmax(top, "tensor") if options.sharded else top
    partition = jnp.sum(jnp.exp(logits - top[:, None]), axis=-1)
    place = targets - ids[0]
    own = (place >= 0) & (place < ids.size)
    target = jnp.take_along_axis(logits, jnp.where(own, place, 0)[:, None], axis=-1)[:, 0]
    target = jnp.where(own, target, 0.0)
    best = jnp.min(jnp.where(logits == top[:, None], ids, none), axis=-1)  # argmax is several times slower on a CPU
    if options.sharded:
        partition, target = jax.lax.psum((partition, target), "tensor")
        best = jax.lax.pmin(best, "tensor")
    lse = top + jnp.log(partition)
    return PerToken(lse - target, lse, (best == targets).astype(jnp.float32))


def _ids(options: _Head, logits: Float[Array, "T V"]) -> Int[Array, " V"]:
    """The token ids of this shard's part of the vocabulary."""
    first = jax.lax.axis_index("tensor") * logits.shape[1] if options.sharded else 0
    return first + jnp.arange(logits.shape[1])


def _tokens(options: _Head, table: Float[Array, "V D"]) -> int:
    """Of a chunk: a power of two, which fills a matrix unit."""
    return options.chunk or 2 ** max((LOGITS // table.shape[0]).bit_length() - 1, 7)


def _chunked(x: Float[Array, "B S ..."] | Int[Array, "B S"], chunk: int) -> Array:
    """[B, S, ...] to [N, C, ...], C at most chunk and as even as can be; zeros fill the last."""
    x = x.reshape(-1, *x.shape[2:])
    tokens = x.shape[0]
    count = max(1, -(-tokens // chunk))
    size = -(-tokens // count)
    if padding := count * size - tokens:
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(count, size, *x.shape[1:])


def _whole(x: Float[Array, "N C ..."], shape: tuple[int, ...]) -> Array:
    """The reverse of `_chunked`."""
    flat = x.reshape(-1, *x.shape[2:])
    return flat[: shape[0] * shape[1]].reshape(shape)
