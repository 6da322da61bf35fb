"""The key/value cache of the simple decoder: one contiguous block a row, filled from the left.

Slots not yet written are in segment -1, which no token is in, so attention never sees them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from codelm.config import ModelConfig
from codelm.sharding import has_mesh, place

EMPTY = -1


class Slots(NamedTuple):
    """What stands in each slot, the same for all layers."""

    positions: Int[Array, "B T"]
    segments: Int[Array, "B T"]
    length: Int[Array, ""]
    """Slots written so far, the same in every row."""


class Cache(NamedTuple):
    key: Float[Array, "L B T K H"]
    value: Float[Array, "L B T K H"]
    slots: Slots


def empty(config: ModelConfig, rows: int, slots: int) -> Cache:
    shape = (config.depth, rows, slots, config.kv_heads, config.head_dim)
    dimensions = ("layers", "batch", "slots", "kv_heads", "head_dim")
    key, value = (place(jnp.zeros(shape, config.compute_dtype), *dimensions) for _ in range(2))
    positions = place(jnp.zeros((rows, slots), jnp.int32), "batch", "slots")
    return Cache(key, value, Slots(positions, positions + EMPTY, jnp.int32(0)))


def write(block: Shaped[Array, "B T *rest"], new: Shaped[Array, "B S *rest"], start: Int[Array, ""]) -> Array:
    """The block with the new tokens in the slots from `start` on."""
    zero = jnp.zeros_like(start)
    if has_mesh():  # one head over a tensor axis of one is split or is not, by what it went through
        new = jax.reshard(new, jax.typeof(block).sharding.spec)
    return jax.lax.dynamic_update_slice(block, new.astype(block.dtype), (zero, start) + (zero,) * (block.ndim - 2))
