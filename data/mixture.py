"""Which source each row is from: by weights that may change at given rows, exact at every row, and random access.

>>> mixture = Mixture((Part(0, (3, 1)),))
>>> [mixture.locate(row) for row in range(4)]
[(0, 0), (0, 1), (0, 2), (1, 0)]
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """From the row `start` on, sources have these shares."""

    start: int
    shares: tuple[int, ...]


@dataclass(frozen=True)
class Mixture:
    parts: tuple[Part, ...]
    """By rising start; the first starts at 0."""

    def locate(self, row: int) -> tuple[int, int]:
        """The source of a row, and how many rows of it came before: shares hold over any run of rows but for a few."""
        part = max(n for n, part in enumerate(self.parts) if part.start <= row)
        source, before = _split(self.parts[part].shares, row - self.parts[part].start)
        return source, before + self._taken(part)[source]

    def taken(self, row: int) -> list[int]:
        """How many of the rows before `row` each source gave."""
        part = max(n for n, part in enumerate(self.parts) if part.start <= row)
        counts = _counts(self.parts[part].shares, row - self.parts[part].start)
        return [a + b for a, b in zip(counts, self._taken(part), strict=True)]

    def _taken(self, part: int) -> list[int]:
        """… before a part."""
        sums = [0] * len(self.parts[0].shares)
        for this, after in zip(self.parts[:part], self.parts[1:], strict=False):
            sums = [a + b for a, b in zip(sums, _counts(this.shares, after.start - this.start), strict=True)]
        return sums


def _split(shares: Sequence[int], row: int) -> tuple[int, int]:
    """The first source takes its share of the rows, evenly spread; the others share what it leaves in the same way."""
    rest = sum(shares)
    for source, share in enumerate(shares):
        before, after = row * share // rest, (row + 1) * share // rest
        if after > before:
            return source, int(before)
        row, rest = int(row - before), rest - share
    raise AssertionError("some share is positive")


def _counts(shares: Sequence[int], rows: int) -> list[int]:
    counts, rest = [], sum(shares)
    for share in shares:
        counts.append(int(rows * share // rest) if rest else 0)
        rows, rest = rows - counts[-1], rest - share
    return counts
