"""One table from what a dimension means to the mesh axes that split it, and the few ways it is used.

Without a mesh (`jax.set_mesh`) everything here is the identity, so the same code runs on one device.
"""

import math

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

# What a dimension means → the mesh axes over which it is split.
MESH_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "sequence": ("context",),
    "stream": (),  # the width of activations
    "width": ("fsdp",),  # the same dimension of a stored parameter
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "experts": ("expert",),
    "head_dim": (),
    "layers": (),
    "slots": (),  # of the key/value cache
}


def has_mesh() -> bool:
    return not jax.sharding.get_abstract_mesh().empty


def spec(*dimensions: str, shape: tuple[int, ...] | None = None) -> PartitionSpec:
    """How an array with these dimensions is split over the mesh that is set.

    Given a shape, a dimension too small or odd to split (one prompt, one new token) stays whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    split: list[tuple[str, ...] | str | None] = []
    for i, dimension in enumerate(dimensions):
        axes = tuple(axis for axis in MESH_AXES[dimension] if axis in mesh.axis_names)
        parts = math.prod(mesh.shape[axis] for axis in axes)
        whole = not axes or (shape is not None and shape[i] % parts)
        split.append(None if whole else axes if len(axes) > 1 else axes[0])
    return PartitionSpec(*split)


def place(x: Array, *dimensions: str) -> Array:
    """The array, split as the table says."""
    return jax.reshard(x, spec(*dimensions, shape=x.shape)) if has_mesh() else x


def gathered(weight: Array, *dimensions: str) -> Array:
    """A stored parameter as a matrix product wants it: whole along the width, its gradient split as it is stored."""
    return place(weight, *("stream" if dimension == "width" else dimension for dimension in dimensions))


def follow(x: Array, stream: Array) -> Array:
    """x with its batch and sequence split as those of the stream, whatever a kernel made of them."""
    if not has_mesh():
        return x
    return jax.reshard(x, PartitionSpec(*jax.typeof(stream).sharding.spec[:2], *jax.typeof(x).sharding.spec[2:]))


def like_stream(x: Array) -> PartitionSpec | None:
    """How [batch, sequence, stream] is split when its batch and sequence are split as those of x."""
    return PartitionSpec(*jax.typeof(x).sharding.spec[:2], None) if has_mesh() else None
