"""Batches onto a mesh: each process makes the rows that its devices hold, and no others.

>>> with jax.set_mesh(mesh):
...     for batch in feed(loader, mesh, start=100, workers=4): ...   # global arrays, the same on any mesh
"""

import contextlib
from collections.abc import Generator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Shaped

from codelm.sharding import spec
from data.loader import FOREVER, Loader
from data.rows import Arrays


def feed(
    loader: Loader, mesh: Mesh, start: int = 0, stop: int = FOREVER, workers: int = 0, ahead: int = 2
) -> Generator[dict[str, jax.Array]]:
    """The batches from `start` on, split over the mesh as the model takes them."""
    sharding = batch_sharding(mesh)
    wanted = rows_here(sharding, loader.batch_size, loader.seq_len)
    batches = loader.batches(start, stop, wanted, workers, ahead)
    with contextlib.closing(batches):
        for local in batches:
            yield to_devices(local, wanted, loader.batch_size, sharding)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    with jax.set_mesh(mesh):
        return NamedSharding(mesh, spec("batch", "sequence"))


def rows_here(sharding: NamedSharding, batch_size: int, seq_len: int) -> list[int]:
    """The rows of a batch that devices of this process hold."""
    held = sharding.addressable_devices_indices_map((batch_size, seq_len)).values()
    return sorted({row for index in held if index is not None for row in range(batch_size)[index[0]]})


def to_devices(local: Arrays, wanted: list[int], batch_size: int, sharding: NamedSharding) -> dict[str, jax.Array]:
    """Global arrays of the rows that are here."""
    return {
        "tokens": globally(local["tokens"], wanted, batch_size, sharding),
        "targets": globally(local["targets"], wanted, batch_size, sharding),
        "loss_weights": globally(local["loss_weights"], wanted, batch_size, sharding),
        "positions": globally(local["positions"], wanted, batch_size, sharding),
        "segment_ids": globally(local["segment_ids"], wanted, batch_size, sharding),
    }


def globally(
    values: Shaped[np.ndarray, "H S"], wanted: list[int], batch_size: int, sharding: NamedSharding
) -> Shaped[Array, "B S"]:
    """A global array of which the rows that are wanted here are given."""
    place = np.full(batch_size, -1)
    place[wanted] = np.arange(len(wanted))

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return values[place[index[0]], index[1]]

    return jax.make_array_from_callback((batch_size, values.shape[1]), sharding, part)
