"""What is counted while a corpus is built, and a fair choice of drops to look at: both add up over parts."""

import dataclasses
import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SAMPLES = 20  # drops of each reason that are kept to look at
_EXCERPT = 600  # characters of each


@dataclass(frozen=True, order=True)
class Sample:
    """A drop to look at. The order is random but always the same, so that the first twenty are a fair choice."""

    order: int
    repository: str
    path: str
    detail: str
    excerpt: str


@dataclass
class Tally:
    """Counts that add up over documents and parts."""

    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Documents by (reason or `kept`, language, licence)."""
    sizes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Their bytes."""
    counts: Counter[str] = field(default_factory=Counter)
    """What steps count besides: secrets replaced, by kind."""
    nanoseconds: Counter[str] = field(default_factory=Counter)
    """Time spent in each step."""
    read: Counter[str] = field(default_factory=Counter)
    """Bytes that each step saw."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, reason: str, language: str, licence: str, size: int) -> None:
        self.cells[reason, language, licence] += 1
        self.sizes[reason, language, licence] += size

    def sample(self, reason: str, repository: str, path: str, detail: str, excerpt: Callable[[], str]) -> None:
        name = f"{repository}\0{path}".encode(errors="replace")
        order = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest())
        so_far = self.samples.get(reason, [])
        if len(so_far) < SAMPLES or order < so_far[-1].order:
            self._keep_first(reason, [Sample(order, repository, path, detail, excerpt()[:_EXCERPT])])

    def _keep_first(self, reason: str, more: list[Sample]) -> None:
        self.samples[reason] = heapq.nsmallest(SAMPLES, [*self.samples.get(reason, []), *more])

    def merge(self, other: "Tally") -> None:
        for name in ("cells", "sizes", "counts", "nanoseconds", "read"):
            getattr(self, name).update(getattr(other, name))
        for reason, samples in other.samples.items():
            self._keep_first(reason, samples)

    def to_json(self) -> dict[str, Any]:
        cells = [[*key, count, self.sizes[key]] for key, count in sorted(self.cells.items())]
        samples = {reason: [dataclasses.astuple(s) for s in found] for reason, found in sorted(self.samples.items())}
        rest = {name: dict(getattr(self, name)) for name in ("counts", "nanoseconds", "read")}
        return {"cells": cells, "samples": samples, **rest}

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Tally":
        tally = Tally()
        for name in ("counts", "nanoseconds", "read"):
            getattr(tally, name).update(content[name])
        for reason, language, licence, count, size in content["cells"]:
            tally.cells[reason, language, licence] = count
            tally.sizes[reason, language, licence] = size
        tally.samples = {reason: [Sample(*s) for s in found] for reason, found in content["samples"].items()}
        return tally
