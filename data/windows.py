"""Batches of random windows from one long array of tokens: a pure function of (seed, step)."""

import numpy as np
from jaxtyping import Int32


def batch(
    tokens: Int32[np.ndarray, " N"], seq_len: int, batch_size: int, seed: int, step: int
) -> dict[str, Int32[np.ndarray, "B S"]]:
    """Rows of `tokens` and, one further, `targets`."""
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - seq_len, batch_size)
    rows = tokens[starts[:, None] + np.arange(seq_len + 1)]
    return {"tokens": rows[:, :-1], "targets": rows[:, 1:]}
