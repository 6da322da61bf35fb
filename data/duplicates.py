"""Which documents say what another one says, and which of them stays: over all parts at once, in bounded memory.

What grows with the corpus lies in files (np.memmap): a record, a sketch and a few numbers a document. A table's items
are documents, or repositories where whole repositories are compared.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from codelm.corpus_config import DedupConfig
from data import minhash, parts
from data.partition import partition

KEPT, EXACT, NEAR = 0, 1, 2  # what is said of an item
_CHUNK = 1 << 16  # items looked at at once


@dataclass(frozen=True)
class Table:
    """The items, in corpus order."""

    index: np.ndarray
    """Records of `parts.INDEX`."""
    sketches: UInt8[np.ndarray, "N P"]
    folder: Path
    """For what has to be written down on the way."""

    def __len__(self) -> int:
        return len(self.index)

    def array(self, name: str, dtype: type, first: Callable[[Int64[np.ndarray, " C"]], np.ndarray]) -> np.memmap:
        """A number an item, in a file, with its first values."""
        values = np.memmap(self.folder / name, dtype, "w+", shape=(max(len(self), 1),))
        for items in self.chunks():
            values[items] = first(items)
        return values

    def apart(self, name: str) -> "Table":
        """The same items with a folder of their own: whoever decides twice must not write over the first verdicts."""
        folder = self.folder / name
        folder.mkdir()
        return replace(self, folder=folder)

    def chunks(self) -> Iterator[Int64[np.ndarray, " C"]]:
        for start in range(0, len(self), _CHUNK):
            yield np.arange(start, min(start + _CHUNK, len(self)))


@dataclass(frozen=True)
class Verdicts:
    """For every item: which one stands for it (itself, if it stays), and why."""

    kept: Int64[np.ndarray, " N"]
    why: UInt8[np.ndarray, " N"]


# Finds the similar pairs (smaller, larger) among the items that are left: here, or on Beam.
FindPairs = Callable[[Table, Verdicts, DedupConfig], Iterable[Int64[np.ndarray, "_ 2"]]]


def decide(table: Table, config: DedupConfig, skip: Sequence[str], memory: int, find_pairs: FindPairs) -> Verdicts:
    verdicts = Verdicts(
        table.array("kept", np.int64, lambda items: items),
        table.array("why", np.uint8, lambda items: np.zeros(len(items), np.uint8)),
    )
    if "exact_duplicates" not in skip:
        _exact(table, verdicts, config, memory)
    if "near_duplicates" not in skip and table.sketches.shape[1]:
        _near(table, verdicts, config, lambda: find_pairs(table, verdicts, config))
    return verdicts


def best_first(index: np.ndarray, items: Int64[np.ndarray, " M"], config: DedupConfig) -> list[np.ndarray]:
    """Columns for np.lexsort that put the copy to keep first; the first item where nothing else decides."""
    columns = {"stars": "stars", "newest": "date", "path": "plainness"}
    records = index[items]
    return [items, *(-records[columns[rule]] for rule in reversed(config.keep))]


def _exact(table: Table, verdicts: Verdicts, config: DedupConfig, memory: int) -> None:
    record = np.dtype([("key", "<u8"), ("rest", "<u8"), ("item", "<i8")])

    def records() -> Iterator[np.ndarray]:
        for items in table.chunks():
            found = np.empty(len(items), record)
            found["key"], found["rest"] = table.index["exact"][items].T
            found["item"] = items
            yield found

    for group in partition(records(), record, len(table), memory // 8, table.folder / "exact"):
        if not len(group):
            continue
        order = np.lexsort([*best_first(table.index, group["item"], config), group["rest"], group["key"]])
        group = group[order]
        new = np.r_[True, (group["key"][1:] != group["key"][:-1]) | (group["rest"][1:] != group["rest"][:-1])]
        winner = group["item"][np.maximum.accumulate(np.where(new, np.arange(len(group)), 0))]
        losers = group["item"][~new]
        verdicts.kept[losers] = winner[~new]
        verdicts.why[losers] = EXACT


def pairs_here(memory: int) -> FindPairs:
    """Similar pairs found by this process."""

    def find(table: Table, verdicts: Verdicts, config: DedupConfig) -> Iterator[Int64[np.ndarray, "E 2"]]:
        rows = minhash.rows_per_band(config.threshold, config.permutations)
        record = np.dtype([("key", "<u8"), ("item", "<i8")])

        def records() -> Iterator[np.ndarray]:
            for chunk in table.chunks():
                for items in np.array_split(chunk[verdicts.why[chunk] == KEPT], 16):
                    keys = minhash.band_keys(table.sketches[items], rows)
                    found = np.empty(keys.shape, record)
                    found["key"], found["item"] = keys, items[:, None]
                    yield found.ravel()

        total = len(table) * (config.permutations // rows)
        for group in partition(records(), record, total, memory // 8, table.folder / "bands"):
            yield minhash.similar_pairs(group["key"], group["item"], table.sketches, config.threshold)

    return find


def _near(
    table: Table, verdicts: Verdicts, config: DedupConfig, find_pairs: Callable[[], Iterable[Int64[np.ndarray, "_ 2"]]]
) -> None:
    labels = components(table, find_pairs())
    best = table.array("best", np.int64, lambda items: items)
    for items in table.chunks():
        # The label is the first item of its cluster, so that it already stands as the best one so far.
        members = items[labels[items] != items]
        own = labels[members]
        seen = np.unique(own)
        candidates, cluster = np.r_[best[seen], members], np.r_[seen, own]
        order = np.lexsort([*best_first(table.index, candidates, config), cluster])
        cluster, candidates = cluster[order], candidates[order]
        first = np.r_[True, cluster[1:] != cluster[:-1]][: len(cluster)]
        best[cluster[first]] = candidates[first]
    for items in table.chunks():
        stands = best[labels[items]]
        lost = (stands != items) & (verdicts.why[items] == KEPT)
        verdicts.kept[items[lost]] = stands[lost]
        verdicts.why[items[lost]] = NEAR
    for items in table.chunks():  # what stood for exact copies may have lost to another one
        verdicts.kept[items] = verdicts.kept[verdicts.kept[items]]


def components(table: Table, pairs: Iterable[Int64[np.ndarray, "_ 2"]]) -> Int64[np.ndarray, " N"]:
    """For every item, the first item that a chain of pairs leads to."""
    labels = table.array("labels", np.int64, lambda items: items)
    path = table.folder / "pairs"
    with path.open("wb") as file:
        for some in pairs:
            some.tofile(file)

    def stored() -> Iterator[Int64[np.ndarray, "E 2"]]:
        with path.open("rb") as file:
            while len(some := np.fromfile(file, np.int64, 2 * _CHUNK)):
                yield some.reshape(-1, 2)

    changed = True
    while changed:
        changed = False
        for a, b in (some.T for some in stored()):
            low = np.minimum(labels[a], labels[b])
            changed |= bool((labels[a] != labels[b]).any())
            for side in (labels[a], labels[b], a, b):
                np.minimum.at(labels, side, low)
        for items in itertools.chain(table.chunks(), table.chunks()):
            labels[items] = labels[labels[items]]
    path.unlink()
    return labels


def of_documents(found: Iterable[parts.Part], count: int, config: DedupConfig, near: bool, folder: Path) -> Table:
    """All documents' records and sketches, one after another, in files of the folder."""
    table = _empty(count, config.permutations if near else 0, folder)
    at = 0
    for part in found:
        table.index[at : at + part.documents] = part.index()
        if near:
            table.sketches[at : at + part.documents] = minhash.sketch(part.signatures(config))
        at += part.documents
    return table


def of_repositories(
    found: Iterable[parts.Part], count: int, config: DedupConfig, near: bool, folder: Path
) -> tuple[Table, Int64[np.ndarray, " N"]]:
    """A table of repositories, and for every document the number of its repository.

    The least values of the files' signatures are the signature of their union. Holds about a kilobyte a repository.
    """
    numbers: dict[int, int] = {}
    records: list[np.void] = []
    signatures: list[np.ndarray] = []
    folder.mkdir(parents=True, exist_ok=True)
    number_of = np.memmap(folder / "repository", np.int64, "w+", shape=(max(count, 1),))[:count]
    at = 0
    for part in found:
        index = part.index()
        files = part.signatures(config) if near else np.empty((len(index), 0), np.uint32)
        for record, signature in zip(index, files, strict=True):
            number = number_of[at] = numbers.setdefault(int(record["repository"]), len(numbers))
            at += 1
            if number == len(records):
                records.append(record.copy())
                signatures.append(signature.copy())
            else:
                _combine(records[number], record)
                np.minimum(signatures[number], signature, out=signatures[number])
    table = _empty(len(records), config.permutations if near else 0, folder)
    for number, (record, signature) in enumerate(zip(records, signatures, strict=True)):
        table.index[number] = record
        table.sketches[number] = minhash.sketch(signature)
    return table, number_of


def _combine(repository: np.void, file: np.void) -> None:
    """Two repositories are exact copies when the sums of their files' hashes are the same."""
    repository["exact"] += file["exact"]
    repository["size"] += file["size"]
    for best in ("stars", "date", "plainness"):
        repository[best] = max(repository[best], file[best])


def of_their_documents(repositories: Verdicts, number: Int64[np.ndarray, " N"], files: Table) -> Verdicts:
    """What is said of a repository is said of each of its documents; the first document stands for a repository."""
    first = np.full(len(repositories.kept), len(files))
    for items in files.chunks():
        np.minimum.at(first, number[items], items)
    return Verdicts(
        files.array("kept", np.int64, lambda items: _first_or_self(repositories, number[items], first, items)),
        files.array("why", np.uint8, lambda items: repositories.why[number[items]]),
    )


def _first_or_self(
    repositories: Verdicts,
    number: Int64[np.ndarray, " C"],
    first: Int64[np.ndarray, " R"],
    items: Int64[np.ndarray, " C"],
) -> Int64[np.ndarray, " C"]:
    return np.where(repositories.why[number] == KEPT, items, first[repositories.kept[number]])


def _empty(count: int, width: int, folder: Path) -> Table:
    folder.mkdir(parents=True, exist_ok=True)
    index = np.memmap(folder / "index", parts.INDEX, "w+", shape=(max(count, 1),))[:count]
    sketches = np.memmap(folder / "sketches", np.uint8, "w+", shape=(max(count, 1), max(width, 1)))[:count, :width]
    return Table(index, sketches, folder)
