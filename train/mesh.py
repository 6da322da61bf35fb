"""A mesh of devices: neighbours where the axes talk much, slices of a pod where they talk little."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from codelm.errors import UserError


@contextlib.contextmanager
def mesh_on(shape: Mapping[str, int], devices: Sequence[jax.Device]) -> Iterator[Mesh]:
    """A mesh of these devices, set. Across slices goes the first axis alone that they divide: the network is slow."""
    sizes, names = tuple(shape.values()), tuple(shape)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        mesh = jax.make_mesh(sizes, names, devices=devices)
    else:
        mesh = Mesh(_over_slices(shape, slices, devices), names, axis_types=(AxisType.Explicit,) * len(names))
    with jax.set_mesh(mesh):
        yield mesh


def _over_slices(shape: Mapping[str, int], slices: int, devices: Sequence[jax.Device]) -> np.ndarray:
    outer = next((axis for axis in ("data", "fsdp") if shape[axis] % slices == 0), None)
    if outer is None:
        raise UserError(
            f"{slices} slices: mesh.data={shape['data']} or mesh.fsdp={shape['fsdp']} must be a multiple of them, for "
            f"the network between slices is too slow for the other axes; set mesh.data={slices}"
        )
    across = tuple(slices if axis == outer else 1 for axis in shape)
    inside = tuple(size // n for size, n in zip(shape.values(), across, strict=True))
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices)
