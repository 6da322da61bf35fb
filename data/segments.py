"""Documents cut into segments: the runs of tokens that stand in a row as one document.

A document is one file, or the files of a repository in order. It is cut only where a row is full, between two
characters, and what the row needs besides text (a path, the sentinels of a hole) is set aside before.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

LEAST = 16  # tokens of a file that are worth a path and a place

# A part of a file in a segment, and a segment: its parts are those from `first` on, up to the next segment's.
PART = np.dtype([("document", "<u4"), ("start", "<u4"), ("stop", "<u4")])
SEGMENT = np.dtype([("first", "<u8"), ("length", "<u4"), ("complete", "?")])


@dataclass(frozen=True)
class Costs:
    """Positions of a row that are not text."""

    segment: int
    """Of any segment: what begins it, and the sentinels of its hole."""
    file: int
    """Of any file in it: the sentinels of a hole where each file may have one."""
    names: Int[np.ndarray, " D"]
    """Of a segment with this document first: its repository's name."""
    headers: Int[np.ndarray, " D"]
    """Of each document in a segment: its path."""


class Segments:
    """Segments and their parts as they are found, in arrays that grow."""

    def __init__(self) -> None:
        self._parts, self._segments = array("L"), array("L")
        self.ends: list[int] = []
        """Numbers of segments with which a row begins, but for the first."""

    def add_part(self, document: int, start: int, stop: int) -> None:
        self._parts.extend((document, start, stop))

    def add_segment(self, first: int, length: int, complete: bool) -> None:
        self._segments.extend((first, length, complete))

    @property
    def part_count(self) -> int:
        return len(self._parts) // 3

    @property
    def count(self) -> int:
        return len(self._segments) // 3

    def parts(self) -> np.ndarray:
        return _records(self._parts, PART)

    def segments(self) -> np.ndarray:
        return _records(self._segments, SEGMENT)


def _records(values: "array[int]", kind: np.dtype) -> np.ndarray:
    names = kind.names or ()
    table = np.frombuffer(values, np.dtype("L")).reshape(-1, len(names))
    found = np.empty(len(table), kind)
    for column, name in enumerate(names):
        found[name] = table[:, column]
    return found


def cut(
    units: Iterable[Sequence[int]],
    tokens: Int[np.ndarray, " D"],
    costs: Costs,
    capacity: int,
    boundary: Callable[[int, int], int],
    running: bool,
) -> Segments:
    """Units (documents as numbers of files) into segments of at most `capacity` positions.

    `boundary` gives, for a document and a place in it, the last place up to there that is between two characters.
    `running`: a unit begins where the row that the last one ended in still has space, else in a row of its own.
    """
    found, space = Segments(), capacity
    for unit in units:
        space = _cut_unit(found, unit, tokens, costs, capacity, space if running else capacity, boundary)
    return found


def _cut_unit(
    found: Segments,
    unit: Sequence[int],
    tokens: Int[np.ndarray, " D"],
    costs: Costs,
    capacity: int,
    space: int,
    boundary: Callable[[int, int], int],
) -> int:
    """Returns the space that is left in the last row."""
    first, free = found.part_count, space - _base(unit[0], costs)
    whole = space == capacity

    def close(complete: bool) -> None:
        nonlocal first
        if found.part_count > first:
            found.add_segment(first, space - free, complete)
            first = found.part_count

    for document in unit:
        at, size = 0, int(tokens[document])
        while at < size:
            header = costs.file + int(costs.headers[document])
            room = free - header
            stop = size if size - at <= room else boundary(document, at + room) if room > 0 else at
            if stop - at < min(LEAST, size - at) and not (whole and found.part_count == first):
                close(False)
                found.ends.append(found.count)
                space, free, whole = capacity, capacity - _base(document, costs), True
                continue
            found.add_part(document, at, stop)
            free, at = free - header - (stop - at), stop
    close(True)
    return free


def _base(document: int, costs: Costs) -> int:
    return costs.segment + int(costs.names[document])
