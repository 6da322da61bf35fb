"""What stands in which row of a source: made once for a store of tokens and the fields it depends on, then mapped.

Rows are arranged once and keep their content; every epoch shuffles them anew. So the number of rows of an epoch is
known, and any step is as near as the first. A source whose languages are evened out, or whose long documents are drawn
oftener, falls into strata that are arranged, shuffled and counted apart.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt32

from codelm.data_config import DataConfig, SourceConfig
from codelm.errors import UserError, nearest
from data import file_order, import_graph, packing, segments, token_store, writing
from data.segments import SEGMENT, Costs
from data.token_store import MANIFEST, TokenStore, read_manifest, write_manifest
from data.tokenizing import only_one

VERSION = 3
SAID_SHARE = 8  # a path, or a name, that takes more than this part of a row is left out when the row is written


@dataclass(frozen=True)
class Stratum:
    """Rows that are shuffled and counted together."""

    name: str
    first: int
    rows: int
    share: float
    """Of the source's tokens."""
    documents: int
    segments: int
    tokens: int
    unfilled: int
    """Positions of its rows that are set aside for nothing."""
    cut: int
    """Documents longer than a row."""
    dropped: int
    """Tokens that are in no row: what does not fit of a conversation longer than one."""


@dataclass(frozen=True)
class Arrangement:
    folder: Path
    manifest: Mapping[str, Any]

    def __reduce__(self):
        return _reopen, (self.folder,)  # a worker maps the files itself, which were checked here

    @cached_property
    def strata(self) -> list[Stratum]:
        return [Stratum(**content) for content in self.manifest["strata"]]

    def row(self, number: int) -> list[tuple[list[tuple[int, int, int]], int, bool]]:
        """Of each segment in a row: its parts (document, from, to), its positions, and whether its document ends."""
        first, last = (int(at) for at in self._rows[number : number + 2])
        found = []
        for at in self._order[first:last].tolist():
            start, stop = (int(self._segments[n]["first"]) for n in (at, at + 1))
            segment = self._segments[at]
            found.append((self._parts[start:stop].tolist(), int(segment["length"]), bool(segment["complete"])))
        return found

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self.folder / "rows.npy", mmap_mode="r")

    @cached_property
    def _order(self) -> np.ndarray:
        return np.load(self.folder / "order.npy", mmap_mode="r")

    @cached_property
    def _segments(self) -> np.ndarray:
        return np.load(self.folder / "segments.npy", mmap_mode="r")

    @cached_property
    def _parts(self) -> np.ndarray:
        return np.load(self.folder / "parts.npy", mmap_mode="r")


def of_source(
    store: TokenStore, source: SourceConfig, data: DataConfig, overhead: writing.Overhead, seed: int, cache: Path
) -> Arrangement:
    """The arrangement of a source: the one in the cache, or made now."""
    wanted = ("seq_len", "temperature", "long_tokens", "long_weight", "packing")
    content = [VERSION, store.folder.name, source.level, source.languages, [getattr(data, name) for name in wanted]]
    content += [asdict(data.repository) if source.level == "repository" else None, _may_be_named(data)]
    content += [asdict(overhead), data.fim.repository, seed]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = cache.expanduser() / "rows" / key
    if not (folder / MANIFEST).exists():
        with only_one(folder):
            if not (folder / MANIFEST).exists():  # nor did another process make it in the meantime
                staged = folder.with_name(f"{key}.making")
                shutil.rmtree(staged, ignore_errors=True)
                maker = _Maker(store, source, data, _costs(store, source, data, overhead), seed)
                maker.write(staged)
                shutil.rmtree(folder, ignore_errors=True)
                staged.rename(folder)
    return _load(folder)


def _load(folder: Path) -> Arrangement:
    return Arrangement(folder, read_manifest(folder, VERSION))


def _reopen(folder: Path) -> Arrangement:
    return Arrangement(folder, json.loads((folder / MANIFEST).read_text()))


def _may_be_named(data: DataConfig) -> bool:
    """Documents may begin with their path; those with a causal hole always do."""
    return data.metadata > 0 or (data.fim.rate > 0 and data.fim.spans.causal > 0)


def _costs(store: TokenStore, source: SourceConfig, data: DataConfig, given: writing.Overhead) -> Costs:
    index, several = store.documents, source.level == "repository"
    nothing = np.zeros(len(index), np.int64)
    if source.level == "chat":
        return Costs(0, 0, nothing, nothing)
    named = _may_be_named(data)
    longest = data.seq_len // SAID_SHARE
    names = np.minimum(index["name"], longest).astype(np.int64) if named else nothing
    headers = np.minimum(index["header"], longest).astype(np.int64) if named else nothing + several * given.separator
    each = several and data.fim.repository == "each"
    return Costs(given.segment + (0 if each else given.hole), given.hole if each else 0, names, headers)


@dataclass(frozen=True)
class Units:
    """Documents, each as numbers of files: those from one of `starts` to the next."""

    files: Int[np.ndarray, " N"]
    starts: Int[np.ndarray, " M"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for start, stop in pairwise(self.starts.tolist()):
            yield self.files[start:stop].tolist()

    def where(self, chosen: Bool[np.ndarray, " U"]) -> "Units":
        counts = np.diff(self.starts)
        return Units(self.files[np.repeat(chosen, counts)], np.concatenate([[0], np.cumsum(counts[chosen])]))

    def tokens(self, store: TokenStore) -> Int[np.ndarray, " U"]:
        return np.add.reduceat(store.documents["tokens"][self.files].astype(np.int64), self.starts[:-1])

    def languages(self, store: TokenStore) -> Int[np.ndarray, " U"]:
        """That of the longest file."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.starts))
        longest = np.lexsort((-store.documents["tokens"][self.files].astype(np.int64), owner))[self.starts[:-1]]
        return store.documents["language"][self.files[longest]].astype(np.int64)


@dataclass
class _Maker:
    store: TokenStore
    source: SourceConfig
    data: DataConfig
    costs: Costs
    seed: int

    def write(self, folder: Path) -> None:
        """Nothing is written where there is nothing to arrange."""
        parts, cuts, orders, counts, strata = [], [], [], [np.zeros(1, np.int64)], []
        for name, share, units in self._strata():
            found = self._cut(units)
            order, of_row = self._rows(found)
            before, base, first = sum(map(len, cuts)), sum(map(len, parts)), sum(map(len, counts)) - 1
            strata.append(self._stratum(name, share, units, found, first, len(of_row)))
            parts.append(found.parts())
            cuts.append(found.segments())
            cuts[-1]["first"] += base
            orders.append(order + np.uint32(before))
            counts.append(of_row)
        cuts.append(np.array([(sum(map(len, parts)), 0, True)], SEGMENT))  # closes the last segment
        folder.mkdir(parents=True)
        np.save(folder / "parts.npy", np.concatenate(parts))
        np.save(folder / "segments.npy", np.concatenate(cuts))
        np.save(folder / "order.npy", np.concatenate(orders))
        np.save(folder / "rows.npy", np.cumsum(np.concatenate(counts)))
        write_manifest(folder, {"version": VERSION, "strata": [asdict(stratum) for stratum in strata]})

    def _stratum(
        self, name: str, share: float, units: Units, found: segments.Segments, first: int, rows: int
    ) -> Stratum:
        parts, cuts = found.parts(), found.segments()
        taken = int((parts["stop"] - parts["start"]).sum(dtype=np.int64))
        there = int(self.store.documents["tokens"][units.files].sum(dtype=np.int64))
        documents = len(units)
        return Stratum(
            name=name,
            first=first,
            rows=rows,
            share=share,
            documents=documents,
            segments=len(cuts),
            tokens=taken,
            unfilled=rows * self.data.seq_len - int(cuts["length"].sum(dtype=np.int64)),
            cut=documents - int(self._uncut(cuts)),
            dropped=there - taken,
        )

    @staticmethod
    def _uncut(cuts: np.ndarray) -> int:
        """Documents that are one segment: it ends one, and the segment before ended another."""
        return int((cuts["complete"] & np.concatenate([[True], cuts["complete"][:-1]])).sum())

    def _cut(self, units: Units) -> segments.Segments:
        tokens = self.store.documents["tokens"].astype(np.int64)
        capacity, running = self.data.seq_len, self.data.packing == "concatenate"
        if self.source.level == "chat":  # a reply without what it replies to teaches nothing: the rest is dropped
            tokens = np.minimum(tokens, capacity)
        return segments.cut(units, tokens, self.costs, capacity, self._boundary, running)

    def _rows(self, found: segments.Segments) -> tuple[UInt32[np.ndarray, " N"], Int[np.ndarray, " R"]]:
        if self.data.packing == "concatenate":
            return np.arange(found.count, dtype=np.uint32), np.diff([0, *found.ends, found.count])
        return packing.best_fit(found.segments()["length"].astype(np.int64), self.data.seq_len)

    def _boundary(self, document: int, place: int) -> int:
        """Tokens of single bytes may cut a character in up to four."""
        first = max(place - 3, 0)
        starts = np.flatnonzero(self.store.character_starts[self.store.tokens(document, first, place + 1)])
        return first + int(starts[-1]) if len(starts) else place

    # ---- documents ----

    def _strata(self) -> Iterator[tuple[str, float, Units]]:
        """Name, share of the tokens and documents of each stratum."""
        units = self._units()
        if not len(units):
            raise UserError(f"{self.store.manifest['corpus']} has no document for this source: nothing to learn from")
        tokens, languages = units.tokens(self.store), units.languages(self.store)
        even, long = self.data.temperature != 1.0, self.data.long_weight != 1.0
        languages = languages if even else np.zeros_like(languages)
        is_long = (tokens >= self.data.long_tokens) & long
        drawn = tokens * np.where(is_long, self.data.long_weight, 1.0)
        per_language = np.bincount(languages, tokens) ** (1 / self.data.temperature)
        shares = drawn * (per_language / np.maximum(np.bincount(languages, drawn), 1))[languages]
        for code in np.unique(languages).tolist():
            for kind in np.unique(is_long[languages == code]).tolist():
                inside = (languages == code) & (is_long == kind)
                name = [self.store.languages[code]] * even + ["long" if kind else "short"] * long
                yield " ".join(name) or "all", float(shares[inside].sum() / shares.sum()), units.where(inside)

    def _units(self) -> Units:
        """What is one document: a file, or the files of a repository; in random order."""
        index = self.store.documents
        chosen = np.flatnonzero(index["tokens"] > 0)
        if self.source.languages:
            codes = [self._code(name) for name in self.source.languages]
            chosen = chosen[np.isin(index["language"][chosen], codes)]
        rng = np.random.default_rng((self.seed, 0))
        if self.source.level != "repository":
            return Units(rng.permutation(chosen), np.arange(len(chosen) + 1))
        return _repositories(self.store, chosen, self.data, rng)

    def _code(self, name: str) -> int:
        known = self.store.languages
        if name not in known:
            raise UserError(
                f"the corpus has no {name} (data.sources languages); nearest: {nearest(name, known)}. "
                f"It has {', '.join(known[:8])}"
            )
        return known.index(name)


def _repositories(
    store: TokenStore, chosen: Int[np.ndarray, " N"], data: DataConfig, rng: np.random.Generator
) -> Units:
    """The files of each repository in the order asked for; the repositories in random order."""
    owner = store.documents["repository"][chosen]
    grouped = chosen[np.argsort(owner, kind="stable")]
    _, starts = np.unique(np.sort(owner), return_index=True)
    units = np.split(grouped, starts[1:])
    order = rng.permutation(len(units)).tolist()
    files = [np.array(_ordered(store, units[n].tolist(), data, rng), np.int64) for n in order]
    return Units(np.concatenate([*files, np.empty(0, np.int64)]), np.cumsum([0, *map(len, files)]))


def _ordered(store: TokenStore, files: list[int], data: DataConfig, rng: np.random.Generator) -> list[int]:
    how = data.repository
    if how.order == "random" and not how.tests_beside:
        return rng.permutation(files).tolist()
    names = [store.names(file) for file in files]
    paths = [name.path for name in names]
    if how.order == "random":
        order = rng.permutation(len(files)).tolist()
    elif how.order == "path":
        order = sorted(range(len(files)), key=paths.__getitem__)
    else:
        order = file_order.by_imports(graph(names), paths)
    if how.tests_beside:
        order = file_order.beside_tests(order, paths)
    return [files[n] for n in order]


def graph(names: Sequence[token_store.Names]) -> list[list[int]]:
    """For each file of one repository, which others it imports."""
    return import_graph.dependencies(
        [name.path for name in names], [name.language for name in names], [name.imports for name in names]
    )
