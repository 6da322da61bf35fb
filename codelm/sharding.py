"""One table from what a dimension means to the mesh axes that split it, and the few ways it is used.

Without a mesh (`jax.set_mesh`) everything here is the identity, so the same code runs on one device.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

# What a dimension means → the mesh axes over which it is split.
MESH_AXES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "sequence": ("context",),
    "stream": (),  # the width of activations
    "width": ("fsdp",),  # the same dimension of a stored parameter
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "group": (),  # query heads that share a key head
    "mlp": ("tensor",),
    "experts": ("expert",),
    "head_dim": (),
    "layers": (),
    "slots": (),  # of the key/value cache
    "pages": (),
    "pair": (),  # key and value
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


def everywhere(x: Array) -> Array:
    """The array, whole on every device: for little ones that the host reads, or that all devices work on alike."""
    return jax.reshard(x, PartitionSpec()) if has_mesh() else x


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


def without(split: PartitionSpec, axis: str) -> PartitionSpec:
    """The same with every dimension whole along a mesh axis."""

    def rest(entry: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        kept = tuple(name for name in ((entry,) if isinstance(entry, str) else entry or ()) if name != axis)
        return kept if len(kept) > 1 else kept[0] if kept else None

    return PartitionSpec(*(rest(entry) for entry in split))


def platform() -> str:
    """Of the mesh's devices when there is a mesh (they may be only described: TPU programs compile without a TPU)."""
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return getattr(device, "platform", None) or jax.default_backend()


def sum_scattered(x: Array, axis: str, dimension: int) -> Array:
    """In a shard_map: the sum over the devices of a mesh axis, each device keeping its share of a dimension.

    For TPUs before the seventh XLA makes an all-reduce of a psum_scatter, which is twice the bytes and a second copy of
    x. There the shares go round in a ring, half of each in either direction, and every device adds its own to what
    passes by.
    """
    devices = jax.lax.axis_size(axis)
    size = x.shape[dimension] // devices
    if platform() != "tpu" or devices == 1 or size % 2:
        return jax.lax.psum_scatter(x, axis, scatter_dimension=dimension, tiled=True)
    me = jax.lax.axis_index(axis)

    def part(device: Array, half: int) -> Array:
        start = (device % devices) * size + half * (size // 2)
        return jax.lax.dynamic_slice_in_dim(x, start, size // 2, dimension)

    def pass_on(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        ahead, back = sums
        ahead = jax.lax.ppermute(ahead, axis, [(i, (i + 1) % devices) for i in range(devices)])
        back = jax.lax.ppermute(back, axis, [(i, (i - 1) % devices) for i in range(devices)])
        return ahead + part(me - 1 - step, 0), back + part(me + 1 + step, 1)

    halves = jax.lax.fori_loop(1, devices, pass_on, (part(me - 1, 0), part(me + 1, 1)))
    return jnp.concatenate(halves, axis=dimension)


def dealt(x: Shaped[Array, "B S ..."], axis: str, devices: int) -> tuple[Shaped[Array, "B s ..."], ...]:
    """In a shard_map, of rows cut into two shares a device, 0 1, 2 3, …: on each device share i and share 2n - 1 - i.

    For an even number of devices.
    """
    first, second = (
        jax.lax.ppermute(half, axis, [(i, _dealt_to(2 * i + which, devices)) for i in range(devices)])
        for which, half in enumerate(jnp.split(x, 2, axis=1))
    )
    return _by_place(first, second, axis)


def dealt_back(
    early: Shaped[Array, "B s ..."], late: Shaped[Array, "B s ..."], axis: str, devices: int
) -> Shaped[Array, "B S ..."]:
    """The reverse of `dealt`."""
    halves = [
        jax.lax.ppermute(half, axis, [(_dealt_to(2 * i + which, devices), i) for i in range(devices)])
        for which, half in enumerate(_by_place(early, late, axis))
    ]
    return jnp.concatenate(halves, axis=1)


def _dealt_to(share: int, devices: int) -> int:
    return share if share < devices else 2 * devices - 1 - share


def _by_place(a: Array, b: Array, axis: str) -> tuple[Array, Array]:
    """Swapped on every other device: those with an odd number are dealt their early share second."""
    even = jax.lax.axis_index(axis) % 2 == 0
    return jnp.where(even, a, b), jnp.where(even, b, a)
