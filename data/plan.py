"""What a build will do and what it has done so far: the tasks of cleaning, and the parts that they left."""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int64

from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from data import clean_unit, dataset, duplicates, parts, runners, sources
from data.runners import Runner


@dataclass(frozen=True)
class Settings:
    """Where and how a build runs; none of it changes what comes out, but for how it is cut into shards."""

    out: str
    runner: Runner = field(default_factory=lambda: runners.local(runners.cores()))
    find_pairs: duplicates.FindPairs | None = None
    """None = in this process, within `memory`."""
    work: str = ""
    """Folder for what lies on the way; empty = beside `out`."""
    benchmarks: str = ""
    memory: int = 256 << 20
    """Bytes that finding duplicates may take."""
    unit_bytes: int = 0
    """Input that one worker takes at a time: what an interruption loses. 0 = by the size of the sources."""
    shard_bytes: int = 256 << 20
    """Text in one shard of the dataset."""
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """The tasks of cleaning, in a file: there may be more than fit in memory."""

    path: Path
    units: int
    bytes: int
    digest: str
    """Over all keys: what the corpus is made of and how."""

    def tasks(self) -> Iterator[clean_unit.Task]:
        with self.path.open("rb") as file:
            for _ in range(self.units):
                yield pickle.load(file)


def make(corpus: CorpusConfig, settings: Settings, folder: epath.Path, scratch: Path) -> Plan:
    """Look for the documents, without reading them."""
    recipe = clean_unit.Recipe(corpus, settings.benchmarks)
    fingerprint = recipe.fingerprint()
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(_later(corpus), sort_keys=True).encode())
    path, units, size = scratch / "plan", 0, 0
    with path.open("wb") as file:
        for unit in sources.units(corpus.sources, settings.unit_bytes or unit_bytes(corpus.sources)):
            task = clean_unit.task(unit, recipe, fingerprint, str(folder))
            pickle.dump(task, file)
            digest.update(task.key.encode())
            units, size = units + 1, size + unit.size
    if not units:
        raise UserError(f"nothing to read in {', '.join(corpus.sources)}: no file there is of a known language")
    return Plan(path, units, size, digest.hexdigest()[:16])


def unit_bytes(specs: Sequence[str]) -> int:
    """32 MB; less, in powers of two, where that would make too few units to keep the cores of a machine busy.

    It depends on nothing but the sources, so that an interrupted build finds its parts again on another machine.
    """
    size = 0
    for unit in sources.units(specs, _LARGEST_UNIT):
        size += unit.size
        if size >= _ENOUGH_UNITS * _LARGEST_UNIT:
            return _LARGEST_UNIT
    return max(_SMALLEST_UNIT, 1 << (size // _ENOUGH_UNITS).bit_length())


_LARGEST_UNIT, _SMALLEST_UNIT = 32 << 20, 1 << 20
_ENOUGH_UNITS = 64


def _later(corpus: CorpusConfig) -> list[object]:
    """What of the config matters after cleaning."""
    return [dataset.VERSION, dataclasses.asdict(corpus.dedup), corpus.validation]


@dataclass(frozen=True)
class Found:
    """The finished parts, in corpus order."""

    folder: epath.Path
    keys: list[str]
    ends: Int64[np.ndarray, " K"]
    """Documents up to the end of each part."""

    @staticmethod
    def of(plan: Plan, folder: epath.Path) -> "Found":
        keys, counts = [], []
        for task in plan.tasks():
            part = parts.find(folder, task.key)
            assert part is not None
            keys.append(task.key)
            counts.append(part.documents)
        return Found(folder, keys, np.cumsum(counts, dtype=np.int64))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __iter__(self) -> Iterator[parts.Part]:
        for key in self.keys:
            part = parts.find(self.folder, key)
            assert part is not None
            yield part

    def between(self, first: int, last: int) -> Iterator[tuple[str, int, int]]:
        """Parts that hold documents first … last-1, and which of their own documents those are."""
        for n in range(int(np.searchsorted(self.ends, first, side="right")), len(self.keys)):
            start = int(self.ends[n - 1]) if n else 0
            if start >= last:
                return
            yield self.keys[n], max(first - start, 0), min(last, int(self.ends[n])) - start
