"""Key/value caches: what attention remembers of the tokens before those at hand.

A cache holds a memory for each layer, and what all layers share: how its slots are laid out, so how new keys and values
go in and how queries read them. The model takes either of two (`Transformer.hidden`):

- `Cache`, of the simple decoder: one block a row, filled from the left, every row as far as the others. Slots not yet
  written are in segment -1, which no token is in, so attention never sees them.
- `Apart`, of the engine: rows of different lengths, in pages that requests share, or brought from those into views
  (`codelm.paged`, `codelm.views`).
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from codelm.attention import attend
from codelm.config import ModelConfig
from codelm.sharding import has_mesh, place

EMPTY = -1


class Rows(NamedTuple):
    """Where tokens stand. Packed documents have segments of their own and positions from 0."""

    positions: Int[Array, "B S"]
    segments: Int[Array, "B S"]


class Memory(NamedTuple):
    """The keys and values of one layer, or of several, stacked."""

    key: Float[Array, "*L B T K H"]
    value: Float[Array, "*L B T K H"]


class Heads(NamedTuple):
    """Of the tokens at hand, in one layer."""

    query: Float[Array, "B S N H"]
    key: Float[Array, "B S K H"]
    value: Float[Array, "B S K H"]


class Rule(NamedTuple):
    """How a layer attends (see `codelm.attention.attend`)."""

    scale: float
    window: int
    softcap: float
    backend: str
    """Taken by those that have a choice of kernels."""


@runtime_checkable
class Slots(Protocol):
    """What layers share of a cache into which the tokens at hand go."""

    def attend(self, memory: Any, heads: Heads, rows: Rows, rule: Rule) -> tuple[Float[Array, "B S N H"], Any]:
        """What queries read of the memory and of the new keys and values, and the memory with those."""
        ...


class Block(NamedTuple):
    """What stands in each slot, the same for all layers."""

    positions: Int[Array, "B T"]
    segments: Int[Array, "B T"]
    length: Int[Array, ""]
    """Slots written so far, the same in every row."""

    def noting(self, rows: Rows) -> "Block":
        """With new tokens written down; padding leaves slots empty."""
        return self._replace(
            positions=write(self.positions, rows.positions, self.length),
            segments=write(self.segments, rows.segments, self.length),
        )

    def attend(self, memory: Memory, heads: Heads, rows: Rows, rule: Rule) -> tuple[Float[Array, "B S N H"], Memory]:
        memory = Memory(write(memory.key, heads.key, self.length), write(memory.value, heads.value, self.length))
        mixed = attend(
            heads.query,
            *(whole.astype(heads.query.dtype) for whole in memory),
            query_positions=rows.positions,
            key_positions=self.positions,
            query_segments=rows.segments,
            key_segments=self.segments,
            **rule._asdict(),
        )
        return mixed, memory


class Cache(NamedTuple):
    key: Float[Array, "L B T K H"]
    value: Float[Array, "L B T K H"]
    slots: Block

    @property
    def memory(self) -> Memory:
        return Memory(self.key, self.value)

    def noting(self, rows: Rows) -> "Cache":
        return self._replace(slots=self.slots.noting(rows))

    def after(self, memory: Memory, tokens: int) -> "Cache":
        return Cache(*memory, self.slots._replace(length=self.slots.length + tokens))


class Apart(NamedTuple):
    """A memory for each layer, with slots that hold what they need to know of their tokens from the beginning."""

    memory: tuple[Any, ...]
    slots: Slots

    def noting(self, rows: Rows) -> "Apart":
        return self

    def after(self, memory: tuple[Any, ...], tokens: int) -> "Apart":
        return self._replace(memory=memory)


def empty(config: ModelConfig, rows: int, slots: int) -> Cache:
    shape = (config.depth, rows, slots, config.kv_heads, config.head_dim)
    dimensions = ("layers", "batch", "slots", "kv_heads", "head_dim")
    key, value = (place(jnp.zeros(shape, config.compute_dtype), *dimensions) for _ in range(2))
    positions = place(jnp.zeros((rows, slots), jnp.int32), "batch", "slots")
    return Cache(key, value, Block(positions, positions + EMPTY, jnp.int32(0)))


def write(block: Shaped[Array, "B T *rest"], new: Shaped[Array, "B S *rest"], start: Int[Array, ""]) -> Array:
    """The block with the new tokens in the slots from `start` on."""
    zero = jnp.zeros_like(start)
    if has_mesh():  # one head over a tensor axis of one is split or is not, by what it went through
        new = jax.reshard(new, jax.typeof(block).sharding.spec)
    return jax.lax.dynamic_update_slice(block, new.astype(block.dtype), (zero, start) + (zero,) * (block.ndim - 2))
