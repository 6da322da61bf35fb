"""Which repositories are held out: by a hash of their name, so that a growing corpus moves none of them."""

import numpy as np
from jaxtyping import Bool, UInt64

from data import shingles


def held_out(
    repositories: UInt64[np.ndarray, " N"], smallest: int, largest: int, share: float
) -> Bool[np.ndarray, " N"]:
    """Whether each document's repository (by its hash) is for validation.

    `smallest` and `largest` are the ends of `lot` over the corpus: however few repositories there are, one is held out
    and one is not, if there are two.
    """
    lots = lot(repositories)
    if share <= 0 or smallest == largest:
        return np.zeros(len(lots), np.bool_)
    chosen = lots < np.uint64(min(share, 1) * (2**64 - 1))
    return (chosen | (lots == np.uint64(smallest))) & (lots != np.uint64(largest))


def lot(repositories: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
    return shingles.mixed(repositories + np.uint64(0x5EED))
