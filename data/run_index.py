"""Runs of words or tokens, by their hashes, and the texts they come from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from data import shingles
from data.benchmark_texts import Text

_TEMPLATE = 3  # problems of one benchmark that share a run make it a template
_FILTER_BITS = 21


@dataclass(frozen=True, slots=True)
class Runs:
    """Which texts hold which runs of one length."""

    hashes: UInt64[np.ndarray, " R"]
    """Sorted; a run stands here once for each text that holds it."""
    texts: Int64[np.ndarray, " R"]
    totals: Int64[np.ndarray, " T"]
    """How many runs each text has here."""


@dataclass(frozen=True, slots=True)
class Wholes:
    """Short texts, each known by all of itself."""

    beginnings: UInt64[np.ndarray, " B"]
    """Hashes, sorted, of as much as the shortest has."""
    texts: dict[int, int]
    """The text by the hash of all of it."""


def collect(found: list[tuple[int, UInt64[np.ndarray, " _"]]], texts: list[Text]) -> Runs:
    """From runs by text. Templates are left out: what many problems of a benchmark share tells of none of them."""
    hashes = joined([some for _, some in found])
    holders = np.repeat(np.array([text for text, _ in found], np.int64), [len(some) for _, some in found])
    problems = np.array([text.problem for text in texts], np.int64)[holders]
    benchmarks = np.array([text.benchmark for text in texts], np.int64)[holders]
    in_benchmark = _paired(hashes, benchmarks)
    once_a_problem = np.unique(_paired(hashes, problems), return_index=True)[1]
    values, problems_with = np.unique(in_benchmark[once_a_problem], return_counts=True)
    kept = np.flatnonzero(~np.isin(in_benchmark, values[problems_with >= _TEMPLATE]))
    kept = kept[np.unique(_paired(hashes[kept], holders[kept]), return_index=True)[1]]
    kept = kept[np.lexsort((holders[kept], hashes[kept]))]
    return Runs(hashes[kept], holders[kept], np.bincount(holders[kept], minlength=len(texts)))


def _paired(hashes: UInt64[np.ndarray, " R"], numbers: Int64[np.ndarray, " R"]) -> UInt64[np.ndarray, " R"]:
    return shingles.mixed(hashes ^ shingles.mixed(numbers.astype(np.uint64) + np.uint64(1)))


def most(index: Runs, runs: UInt64[np.ndarray, " N"], share: float) -> int | None:
    """The text that has most of these runs, of those that have at least a share of theirs among them."""
    runs = np.unique(runs)
    ends = np.searchsorted(index.hashes, runs, "right")
    starts = np.searchsorted(index.hashes, runs)
    held = [index.texts[start:end] for start, end in zip(starts, ends, strict=True) if start < end]
    if not held:
        return None
    texts, counts = np.unique(np.concatenate(held), return_counts=True)
    counts[counts < share * index.totals[texts]] = 0
    return int(texts[counts.argmax()]) if counts.any() else None


def quick_filter(known: list[UInt64[np.ndarray, " _"]]) -> Bool[np.ndarray, " F"]:
    """Whether any known hash begins with these bits: one look at it settles nearly all of ordinary code."""
    maybe = np.zeros(2**_FILTER_BITS, np.bool_)
    maybe[_slots(joined(known))] = True
    return maybe


def places(
    maybe: Bool[np.ndarray, " F"], known: UInt64[np.ndarray, " K"], hashes: UInt64[np.ndarray, " N"]
) -> Int64[np.ndarray, " P"]:
    """Where the hashes are known (sorted, and in the filter)."""
    found = np.flatnonzero(maybe[_slots(hashes)])
    if not len(known) or not len(found):
        return found[:0]
    nearest = np.minimum(np.searchsorted(known, hashes[found]), len(known) - 1)
    return found[known[nearest] == hashes[found]]


def _slots(hashes: UInt64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).view(np.int64)


def joined(hashes: list[UInt64[np.ndarray, " _"]]) -> UInt64[np.ndarray, " N"]:
    return np.concatenate([np.empty(0, np.uint64), *hashes])
