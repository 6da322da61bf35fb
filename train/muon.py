"""Muon: momentum whose singular values are all made about one, for stacks of matrices, on one device or a mesh.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the size of the update is that of Liu et al. 2025
(arXiv:2502.16982), with which AdamW's learning rates and weight decay carry over.

What is one matrix: each projection of each layer, and of each expert. Queries, keys and values are stored apart, and
each is orthogonalised as width x (heads * head_dim), all heads together, as the published recipes do: heads then share
what the update has to give, and no head of little gradient is moved as far as one of much.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from codelm.parameters import Parameter
from codelm.sharding import has_mesh

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5: steepest at 0, and 5 steps end between 0.7 and 1.2
STEPS = 5
RMS = 0.2  # of an update's entries, about that of AdamW's


class MuonState(NamedTuple):
    momentum: dict[str, Array]


def init(params: dict[str, Array]) -> MuonState:
    return MuonState(jax.tree.map(jnp.zeros_like, params))


def update(
    gradients: dict[str, Array], state: MuonState, table: Mapping[str, Parameter], momentum: float, dtype: str
) -> tuple[dict[str, Array], MuonState]:
    """Directions (uphill, as optax's) for arrays by name, each a stack of matrices as the table says.

    The products that orthogonalise are in dtype; bfloat16 is what others use, and enough.
    """
    kept = jax.tree.map(lambda old, new: momentum * old + new, state.momentum, gradients)
    ahead = jax.tree.map(lambda old, new: momentum * old + new, kept, gradients)  # Nesterov
    return {name: orthogonal(x, table[name], dtype) for name, x in ahead.items()}, MuonState(kept)


def orthogonal(x: Float[Array, "L ..."], parameter: Parameter, dtype: str) -> Float[Array, "L ..."]:
    """Each matrix of a stored stack with singular values of about 0.2 sqrt(its larger side), stored as x is.

    On a mesh layers are split over devices instead of matrices, as Kimi, Megatron and torchtitan do: each works on
    matrices of its own, and there is one exchange there and one back, where products of split matrices need one each.
    """
    rows, columns = parameter.matrix
    layers, route = _route(x, parameter.stacked)
    moved = jnp.pad(x.astype(dtype), [(0, layers - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
    for spec in route[1:]:
        moved = jax.reshard(moved, spec)
    moved = newton_schulz(moved.reshape(*moved.shape[: parameter.stacked], rows, columns)).reshape(moved.shape)
    for spec in reversed(route[:-1]):
        moved = jax.reshard(moved, spec)
    return RMS * math.sqrt(max(rows, columns)) * moved[: x.shape[0]].astype(x.dtype)


def newton_schulz(x: Float[Array, "*L R C"]) -> Float[Array, "*L R C"]:
    """U S' V^T for each U S V^T, S' between 0.7 and 1.2 wherever S is not tiny."""
    if x.shape[-2] > x.shape[-1]:  # the products are of the smaller side
        return newton_schulz(x.mT).mT
    a, b, c = COEFFICIENTS
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(-2, -1), keepdims=True))
    x = (x / (norm + 1e-12)).astype(x.dtype)

    def step(_: Array | int, x: Array) -> Array:
        gram = x @ x.mT
        return a * x + (b * gram + c * gram @ gram) @ x

    return jax.lax.fori_loop(0, STEPS, step, x)


def _route(x: Float[Array, "L ..."], stacked: int) -> tuple[int, list[PartitionSpec]]:
    """How many layers there must be, and the layouts from the stored one to that in which no matrix is split.

    Layers go over the mesh axes that split the matrices, filled up with layers of zeros where they do not divide. They
    go over the other axes, where devices would do the same work, as far as they divide. Each layout moves one axis: XLA
    does that with an all-to-all of what is stored, and more at once by gathering everything everywhere.
    """
    if not has_mesh():
        return x.shape[0], []
    sharding = jax.typeof(x).sharding
    sizes, split = sharding.mesh.shape, [list(_axes(entry)) for entry in sharding.spec]
    places = [(place, axis) for place in range(stacked, x.ndim) for axis in split[place]]
    parts = math.prod(sizes[axis] for axis in [*split[0], *(axis for _, axis in places)])
    layers = -(-x.shape[0] // parts) * parts
    route = [_spec(split)]
    for axis in [axis for axis in sizes if not any(axis in axes for axes in split)]:
        if layers % (parts * sizes[axis]) == 0:
            split[0].append(axis)
            parts *= sizes[axis]
    route.append(_spec(split))
    for place, axis in reversed(places):  # the innermost of a dimension first
        split[place].remove(axis)
        split[0].append(axis)
        route.append(_spec(split))
    return layers, route


def _spec(split: list[list[str]]) -> PartitionSpec:
    return PartitionSpec(*(tuple(axes) if axes else None for axes in split))


def _axes(entry: tuple[str, ...] | str | None) -> tuple[str, ...]:
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)
