"""Loss by how far into its document a token stands: buckets of positions that double, up to the length of a row.

What longer rows teach shows here: after mid-training far positions should be no worse than near ones.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

FIRST = 512  # positions in the first bucket, or a sixteenth of a short row
METRIC = "held_out/position/"  # and the first position of a bucket


def starts(seq_len: int) -> Int[np.ndarray, " P"]:
    """The first position of each bucket: 0, 512, 1024, 2048, 4096 for rows of 8192."""
    first = min(FIRST, 2 ** max(seq_len.bit_length() - 5, 0))
    doubled = [first << n for n in range(seq_len.bit_length()) if first << n < seq_len]
    return np.array([0, *doubled], np.int32)


def sums(
    losses: Float[Array, "B S"], counted: Bool[Array, "B S"], positions: Int[Array, "B S"], first: Int[Array, " P"]
) -> Float[Array, "B P 2"]:
    """Nats and tokens of each row's buckets, of the tokens that count."""
    bucket = jnp.sum(positions[..., None] >= first, axis=-1) - 1
    inside = (bucket[..., None] == jnp.arange(len(first))) & counted[..., None]
    values = (losses, jnp.ones_like(losses))
    return jnp.stack([jnp.where(inside, value[..., None], 0.0).sum(axis=1) for value in values], axis=-1)


def metrics(seq_len: int, found: Float[np.ndarray, "P 2"]) -> dict[str, float]:
    """Mean loss of each bucket that has tokens."""
    return {
        f"{METRIC}{start}": float(nats / tokens)
        for start, (nats, tokens) in zip(starts(seq_len), found, strict=True)
        if tokens
    }


def of_line(line: Mapping[str, Any]) -> dict[int, float]:
    """The first position of each bucket and its loss, of figures that have them."""
    return {int(name.removeprefix(METRIC)): value for name, value in line.items() if name.startswith(METRIC)}
