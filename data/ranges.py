"""The documents cut into runs of about a shard's worth of kept text: the tasks of writing.

What is known of every document stays in mapped files. A task holds a copy for its own run, and is made anew whenever
the ranges are gone through, so that no more of them are in memory than are being worked on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from etils import epath
from jaxtyping import Int64, UInt8

from data import dataset, write_range
from data.duplicates import Table
from data.plan import Found


@dataclass(frozen=True)
class Ranges:
    found: Found
    files: Table
    fates: UInt8[np.ndarray, " N"]
    """`write_range.TRAIN` …"""
    kept: Int64[np.ndarray, " N"]
    """For duplicates: the document that stands for them."""
    staged: epath.Path
    """Where shards go."""
    bounds: list[tuple[int, int]]
    shards: dict[str, dict[int, int]]
    """Split → range → which of the split's shards holds what it has of it."""

    @staticmethod
    def of(
        found: Found,
        files: Table,
        fates: UInt8[np.ndarray, " N"],
        kept: Int64[np.ndarray, " N"],
        shard_bytes: int,
        staged: epath.Path,
    ) -> "Ranges":
        bounds = _bounds(files, fates, shard_bytes)
        shards = {split: _holding(fates, code, bounds) for code, split in enumerate(dataset.SPLITS)}
        return Ranges(found, files, fates, kept, staged, bounds, shards)

    def __iter__(self) -> Iterator[write_range.Task]:
        for number, (first, last) in enumerate(self.bounds):
            yield write_range.Task(
                first=first,
                fates=np.array(self.fates[first:last]),
                kept=np.array(self.kept[first:last]),
                sources=tuple(self.found.between(first, last)),
                parts=str(self.found.folder),
                out=str(self.staged),
                names=self._names(number),
                number=number,
            )

    def _names(self, number: int) -> dict[str, str]:
        return {
            split: dataset.shard_name(split, shard_of[number], len(shard_of))
            for split, shard_of in self.shards.items()
            if number in shard_of
        }

    def clusters(self) -> dict[str, int]:
        """How many documents stand for others, and for how many at most, themselves counted."""
        lost = self.files.array("lost", np.int64, np.zeros_like)
        for items in self.files.chunks():
            np.add.at(lost, self.kept[items[self.fates[items] >= write_range.EXACT]], 1)
        count = largest = 0
        for items in self.files.chunks():
            count += int(np.count_nonzero(lost[items]))
            largest = max(largest, int(lost[items].max()))
        return {"clusters": count, "largest": largest + 1 if count else 0}


def _bounds(files: Table, fates: UInt8[np.ndarray, " N"], shard_bytes: int) -> list[tuple[int, int]]:
    """A range ends with the document that fills another shard."""
    ends, size = [], 0
    for items in files.chunks():
        staying = fates[items] <= write_range.VALIDATION
        running = size + np.cumsum(np.where(staying, files.index["size"][items], 0))
        full = np.arange(shard_bytes, int(running[-1]) + 1, shard_bytes)
        ends += (items[0] + 1 + np.searchsorted(running, full)).tolist()
        size = int(running[-1]) % shard_bytes
    ends = sorted({*ends, len(files)})
    return list(zip([0, *ends], ends, strict=False))


def _holding(fates: UInt8[np.ndarray, " N"], code: int, bounds: list[tuple[int, int]]) -> dict[int, int]:
    """The ranges that have a document of that fate, numbered among themselves."""
    holding = (number for number, (first, last) in enumerate(bounds) if (fates[first:last] == code).any())
    return {number: shard for shard, number in enumerate(holding)}
