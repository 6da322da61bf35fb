"""Mixture of experts: each token goes through the top_k experts its router prefers. Shared experts are the model's.

Routing is plain float32 arithmetic on [B, S, E]. The experts are one shard_map: every expert shard gathers the tokens
of its "expert" group, runs its own experts on those routed to them (grouped matrix products), and the parts are summed
and scattered back; exact whatever the balance, because no buffer can overflow. The experts' hidden width is split over
"tensor", their other width gathered from "fsdp".

    out, stats = moe(x, router, gate, up, down, top_k=2, renormalise=True, capacity_factor=0.0)
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from codelm.sharding import MESH_AXES, has_mesh

BATCH_AXES = MESH_AXES["batch"]
WEIGHT_SPECS = (P("expert", "fsdp", "tensor"), P("expert", "fsdp", "tensor"), P("expert", "tensor", "fsdp"))
ACTIVATIONS = {"silu": jax.nn.silu, "gelu": partial(jax.nn.gelu, approximate=False), "gelu_tanh": jax.nn.gelu}


class MoEStats(NamedTuple):
    """What the trainer adds to the loss and watches, float32, over the real tokens of the global batch."""

    balance_loss: Float[Array, ""]
    """E * sum over experts of (share of the assignments) * (mean probability): 1 when uniform, E when collapsed."""
    z_loss: Float[Array, ""]
    """Mean of the router's squared log-partition."""
    load: Float[Array, " E"]
    """Share of the assignments that chose each expert, before any is dropped; sums to 1."""
    dropped: Float[Array, ""]
    """Share of the assignments that found their expert full."""


class _Options(NamedTuple):
    capacity: int
    activation: str
    sharded: bool


def moe(
    x: Float[Array, "B S D"],
    router: Float[Array, "D E"],
    gate: Float[Array, "E D F"],
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
    *,
    top_k: int,
    renormalise: bool,
    capacity_factor: float,
    bias: Float[Array, " E"] | None = None,
    activation: str = "silu",
    mask: Float[Array, "B S"] | None = None,
) -> tuple[Float[Array, "B S D"], MoEStats]:
    """The experts' weighted outputs, and statistics of the routing.

    An expert takes at most ceil(capacity_factor * S * top_k / E) tokens of each row, the earliest first; the others go
    without it. Counting by row keeps dropping causal, independent of the rest of the batch and of the mesh. With
    capacity_factor 0 nothing is dropped: the product is ragged_dot, native on TPU; elsewhere XLA expands it to every
    expert times every assignment, and capacity_factor = E / top_k, which drops nothing either, costs top_k times less.

    mask is 1 for tokens and 0 for padding (it is not the loss's weights): padding goes to no expert, so its output is 0
    and it takes nobody's place, and counts in no statistic.
    """
    experts = router.shape[-1]
    capacity = math.ceil(capacity_factor * x.shape[1] * top_k / experts) if capacity_factor else 0
    options = _Options(capacity, activation, sharded=has_mesh())
    mask = jnp.ones_like(x[..., 0], jnp.float32) if mask is None else mask.astype(jnp.float32)
    given = x
    if options.sharded:
        x, mask, router = _split(x), _split(mask), jax.reshard(router, P(None, None))
    # The default precision of a float32 product is bfloat16 on TPU, TF32 on GPU: enough to choose another expert.
    logits = jnp.einsum("bsd,de->bse", x.astype(jnp.float32), router.astype(jnp.float32), precision="highest")
    weights, chosen, probs = route(logits, top_k, renormalise, bias)
    assigned = jnp.where(mask[..., None] > 0, chosen, experts)
    out, kept = _experts(options, x, weights, assigned, (gate, up, down))
    if out.shape != given.shape:
        out = jax.reshard(out, jax.typeof(given).sharding.spec)[: given.shape[0], : given.shape[1]]
    return out, _statistics(logits, probs, chosen, kept, mask)


def route(
    logits: Float[Array, "*T E"], top_k: int, renormalise: bool, bias: Float[Array, " E"] | None
) -> tuple[Float[Array, "*T k"], Int[Array, "*T k"], Float[Array, "*T E"]]:
    """Each token's weights and experts, best first, and its probabilities of all experts.

    The bias moves which experts are chosen, never how their outputs are weighted.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    scores = probs if bias is None else probs + bias
    _, experts = jax.lax.top_k(scores, top_k)
    weights = jnp.take_along_axis(probs, experts, axis=-1)
    if renormalise:
        weights /= jnp.sum(weights, axis=-1, keepdims=True)
    return weights, experts, probs


def update_bias(bias: Float[Array, " E"], load: Float[Array, " E"], rate: float) -> Float[Array, " E"]:
    """One step of balancing without a loss: raise the bias of experts below the mean load, lower it above."""
    return bias + rate * jnp.sign(jnp.mean(load) - load)


def _split(x: Float[Array, "B S *D"]) -> Float[Array, "b s *D"]:
    """Tokens split over the mesh, with padding where they do not fill it: one prompt, one new token."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = (math.prod(mesh.shape[axis] for axis in BATCH_AXES), mesh.shape["context"])
    padding = [(0, -size % part) for size, part in zip(x.shape, parts, strict=False)]
    if padding != [(0, 0), (0, 0)]:
        x = jnp.pad(x, padding + [(0, 0)] * (x.ndim - 2))
    return jax.reshard(x, P(BATCH_AXES, "context", *[None] * (x.ndim - 2)))


def _statistics(
    logits: Float[Array, "B S E"],
    probs: Float[Array, "B S E"],
    chosen: Int[Array, "B S k"],
    kept: Bool[Array, "B S k"],
    mask: Float[Array, "B S"],
) -> MoEStats:
    experts, top_k = probs.shape[-1], chosen.shape[-1]
    tokens = jnp.sum(mask)
    tokens = jnp.where(tokens == 0, 1.0, tokens)
    counts = jnp.sum(jax.nn.one_hot(chosen, experts) * mask[..., None, None], axis=(0, 1, 2))
    load = counts / (tokens * top_k)
    mean_probs = jnp.sum(probs * mask[..., None], axis=(0, 1)) / tokens
    return MoEStats(
        balance_loss=experts * jnp.sum(load * mean_probs),
        z_loss=jnp.sum(mask * jax.nn.logsumexp(logits, axis=-1) ** 2) / tokens,
        load=load,
        dropped=jnp.sum(mask[..., None] * ~kept) / (tokens * top_k),
    )


def _experts(
    options: _Options,
    x: Float[Array, "B S D"],
    weights: Float[Array, "B S k"],
    assigned: Int[Array, "B S k"],
    matrices: tuple[Float[Array, "E D F"], Float[Array, "E D F"], Float[Array, "E F D"]],
) -> tuple[Float[Array, "B S D"], Bool[Array, "B S k"]]:
    """The weighted sum of each token's experts, and which assignments were kept; expert E is no expert."""
    local = partial(_local_experts, options)
    if not options.sharded:
        return local(x, weights, assigned, matrices)
    tokens = P(BATCH_AXES, "context", None)
    weights, assigned = jax.reshard(weights, tokens), jax.reshard(assigned, tokens)
    matrices = tuple(jax.reshard(matrix, spec) for matrix, spec in zip(matrices, WEIGHT_SPECS, strict=True))
    specs = (tokens, tokens, tokens, WEIGHT_SPECS)
    return jax.shard_map(local, in_specs=specs, out_specs=(tokens, tokens))(x, weights, assigned, matrices)


# From here on shapes are one device's.


def _local_experts(
    options: _Options,
    x: Float[Array, "b s D"],
    weights: Float[Array, "b s k"],
    assigned: Int[Array, "b s k"],
    matrices: tuple[Float[Array, "e d f"], Float[Array, "e d f"], Float[Array, "e f d"]],
) -> tuple[Float[Array, "b s D"], Bool[Array, "b s k"]]:
    count = matrices[0].shape[0]
    experts = count * (jax.lax.axis_size("expert") if options.sharded else 1)
    if options.capacity:
        assigned = jnp.where(_places(options, assigned, experts) < options.capacity, assigned, experts)
    kept = assigned < experts

    first, rows = 0, x.shape[0]
    if options.sharded:
        # Differentiated, this line is the sum over tensor: here, of one gradient a token, not one for each product.
        x = jax.lax.pcast(x, "tensor", to="varying")
        gather = partial(jax.lax.all_gather, axis_name="expert", axis=0, tiled=True)
        x, weights, assigned = gather(x), gather(weights), gather(assigned)
        first, rows = jax.lax.axis_index("expert") * count, x.shape[0]
        gate, up, down = matrices
        matrices = _gathered(gate, x.dtype, 1), _gathered(up, x.dtype, 1), _gathered(down, x.dtype, 2)
    mine = (assigned >= first) & (assigned < first + count)
    mine = jnp.where(mine, assigned - first, count).reshape(-1, weights.shape[-1])
    # A token picks an expert once, so a row of the batch fills at most its capacity, or its length, of an expert.
    slots = rows * min(options.capacity, x.shape[1])
    out = _dispatch(options, x.reshape(-1, x.shape[-1]), weights.reshape(mine.shape), mine, matrices, slots)
    out = out.reshape(x.shape)
    if options.sharded:
        out = jax.lax.psum(jax.lax.psum_scatter(out, "expert", scatter_dimension=0, tiled=True), "tensor")
    return out, kept


def _dispatch(
    options: _Options,
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    assigned: Int[Array, "T k"],
    matrices: tuple[Float[Array, "e D f"], Float[Array, "e D f"], Float[Array, "e f D"]],
    slots: int,
) -> Float[Array, "T D"]:
    """This device's experts on the tokens assigned to them (e: to none), each in a row of its expert's own.

    Dropless, experts' rows follow each other and there are enough for the worst case; with a capacity each expert has
    the same number of slots, which makes its product an ordinary batched one.
    """
    gate, up, down = (matrix.astype(x.dtype) for matrix in matrices)
    count, (tokens, top_k) = gate.shape[0], assigned.shape
    place, sizes = _places_and_counts(assigned.reshape(-1), count)
    starts = jnp.arange(count) * slots if slots else jnp.cumsum(sizes) - sizes
    rows = count * slots if slots else tokens * min(top_k, count)
    row = jnp.where(assigned < count, starts.at[assigned].get(mode="clip") + place.reshape(assigned.shape), rows)
    # The inverse: which assignment each row holds, or tokens * top_k for none.
    source = jnp.full(rows, tokens * top_k).at[row.reshape(-1)].set(jnp.arange(tokens * top_k), mode="drop")

    product = partial(_slotted_product, slots=slots) if slots else partial(_ragged_product, sizes=sizes)
    inputs = _permute(x, source // top_k, row)
    hidden = ACTIVATIONS[options.activation](product(inputs, gate)) * product(inputs, up)
    outputs = _permute(product(hidden, down), row, source[:, None])
    return jnp.einsum("tkd,tk->td", outputs, weights, preferred_element_type=jnp.float32).astype(x.dtype)


def _slotted_product(x: Float[Array, "R N"], matrices: Float[Array, "e N M"], slots: int) -> Float[Array, "R M"]:
    x = x.reshape(matrices.shape[0], slots, x.shape[-1])
    return jnp.einsum("esn,enm->esm", x, matrices).reshape(-1, matrices.shape[-1])


def _ragged_product(
    x: Float[Array, "R N"], matrices: Float[Array, "e N M"], sizes: Int[Array, " e"]
) -> Float[Array, "R M"]:
    # What ragged_dot leaves in rows beyond the last group is the backend's choice (zeros on CPU): make it zero, and
    # with it the gradient that comes back.
    filled = (jnp.arange(x.shape[0]) < jnp.sum(sizes))[:, None]
    return jnp.where(filled, jax.lax.ragged_dot(x, matrices, sizes), 0)


@jax.custom_vjp
def _permute(x: Float[Array, "N D"], index: Int[Array, "*M"], inverse: Int[Array, "N m"]) -> Float[Array, "*M D"]:
    """x[index], an index beyond the end giving zeros. inverse[n] are the places of index (flattened) that hold n.

    The gradient is then a gather as well: autodiff's scatter-add is slow on TPU and in no fixed order on GPU, where
    runs could not be repeated bit for bit.
    """
    return x.at[index].get(mode="fill", fill_value=0)


def _permute_forward(x: Array, index: Array, inverse: Array) -> tuple[Array, Array]:
    return _permute(x, index, inverse), inverse


def _permute_backward(inverse: Array, gradient: Array) -> tuple[Array, None, None]:
    gradient = gradient.reshape(-1, gradient.shape[-1]).at[inverse].get(mode="fill", fill_value=0)
    return jnp.sum(gradient, axis=1), None, None


_permute.defvjp(_permute_forward, _permute_backward)


def _gathered(matrices: Array, dtype: jnp.dtype, axis: int) -> Array:
    """Whole along the axis sharded over fsdp."""
    # Replicated over data and context: marked here, their gradients are summed once scattered over fsdp, in float32.
    matrices = jax.lax.pcast(matrices, ("data", "context"), to="varying")
    return jax.lax.all_gather(matrices.astype(dtype), "fsdp", axis=axis, tiled=True)


def _places(options: _Options, assigned: Int[Array, "b s k"], experts: int) -> Int[Array, "b s k"]:
    """How many earlier assignments of its row chose the same expert."""
    flat = assigned.reshape(assigned.shape[0], -1)
    place, counts = jax.vmap(partial(_places_and_counts, experts=experts))(flat)
    if options.sharded:
        # Earlier parts of the row, on other devices, come first.
        before = jax.lax.all_gather(counts, "context")
        earlier = jnp.arange(before.shape[0]) < jax.lax.axis_index("context")
        before = jnp.sum(before * earlier[:, None, None], axis=0)
        place += jnp.take_along_axis(before, jnp.minimum(flat, experts - 1), axis=1)
    return place.reshape(assigned.shape)


def _places_and_counts(assigned: Int[Array, " A"], experts: int) -> tuple[Int[Array, " A"], Int[Array, " e"]]:
    """The place of each assignment among those of its expert, in order, and how many each expert has."""
    order = jnp.argsort(assigned, stable=True)
    counts = jnp.sum(assigned[:, None] == jnp.arange(experts), axis=0)
    starts = jnp.concatenate([jnp.zeros(1, counts.dtype), jnp.cumsum(counts)])
    place = jnp.arange(assigned.size) - starts[assigned[order]]
    return jnp.zeros_like(assigned).at[order].set(place), counts
