"""Signatures whose agreement estimates the Jaccard similarity of texts, and the keys that bring similar ones together.

A signature is cut into bands of rows; two texts meet where they agree on a whole band. What meets is then compared over
the whole signature, so bands may be short, which finds more pairs than bands that have to be right by themselves.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt32, UInt64

from codelm.corpus_config import DedupConfig
from data import shingles

SEED = 42
_RECALL = 0.99  # chance that a pair of exactly the threshold's similarity meets in at least one band


def signature(words: UInt64[np.ndarray, " W"], config: DedupConfig) -> UInt32[np.ndarray, " P"]:
    """MinHash, through rensa, over the runs of words of one text."""
    from rensa import RMinHash  # pyrefly: ignore[missing-module-attribute]: a compiled module

    runs = shingles.ngrams(words, config.shingle)
    ends = np.array([0, len(runs)], np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(runs, ends, config.permutations, SEED).to_rows()
    return np.array(rows[0], np.uint32)


def rows_per_band(threshold: float, permutations: int) -> int:
    """The longest band with which pairs at the threshold still meet with a chance of at least 99 %."""
    fits = [
        rows for rows in range(1, permutations + 1) if 1 - (1 - threshold**rows) ** (permutations // rows) >= _RECALL
    ]
    return max(fits, default=1)


def band_keys(sketches: UInt8[np.ndarray, "N P"], rows: int) -> UInt64[np.ndarray, "N K"]:
    """One key a band. The band's number is part of it, so that only the same bands meet."""
    count, permutations = sketches.shape
    bands = permutations // rows
    cut = sketches[:, : bands * rows].reshape(count, bands, rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), (count, bands))
    for row in range(rows):
        keys = shingles.mixed(keys * np.uint64(0x9E3779B97F4A7C15) + cut[:, :, row])
    return keys


def sketch(signatures: np.ndarray) -> UInt8[np.ndarray, "*N P"]:
    """What is kept for comparing: the low byte of each value says nearly as much as all four."""
    return signatures.astype(np.uint8)


def similar(a: UInt8[np.ndarray, "N P"], b: UInt8[np.ndarray, "N P"], threshold: float) -> Bool[np.ndarray, " N"]:
    """Whether the estimated Jaccard similarity of each pair reaches the threshold."""
    agree = (a == b).mean(axis=1, dtype=np.float32)
    by_chance = 1 / 256  # two different values have the same low byte this often
    return (agree - by_chance) / (1 - by_chance) >= threshold


def similar_pairs(
    keys: UInt64[np.ndarray, " M"],
    items: Int64[np.ndarray, " M"],
    sketches: UInt8[np.ndarray, "N P"],
    threshold: float,
) -> Int64[np.ndarray, "E 2"]:
    """Pairs (smaller, larger) of items that share a key and are similar by their sketches (rows by item).

    In a bucket, every member is compared with the first `_COMPARED` by number; more only matters where that many
    dissimilar texts share a band.
    """
    order = np.lexsort((items, keys))
    keys, items = keys[order], items[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, np.int64)
    first = np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
    place = np.arange(len(keys)) - first
    found = [np.empty(0, np.int64)]
    for j in range(_COMPARED):
        later = np.flatnonzero(place > j)
        if not len(later):
            break
        met = np.unique(items[first[later] + j] << 32 | items[later])  # one number a pair sorts faster than two
        groups = np.array_split(met, len(met) // _AT_ONCE + 1)
        found += [g[similar(sketches[g >> 32], sketches[g & 0xFFFFFFFF], threshold)] for g in groups]
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1)


_COMPARED = 64
_AT_ONCE = 8192  # pairs gathered from disk at once
