"""The source `files:PATH-or-GLOB`: JSON lines, plain or compressed, and Parquet."""

import glob
import os
import re
from collections.abc import Iterator

from codelm.errors import UserError
from data import jsonl, parquet, source_tree
from data.source_tree import Entry
from data.sources import Item, Unit

_JSONL = (".jsonl", ".ndjson")
_COMPRESSED = tuple(f"{name}{end}" for name in (*_JSONL, ".json") for end in (".gz", ".zst"))
_UNDERSTOOD = (*_JSONL, *_COMPRESSED, ".parquet")


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    entries, root = _matching(place)
    # A whole data set in another layout is a mistake to be told at once; a broken file is not.
    lines = (e.path for e in entries if not e.path.endswith(".parquet"))
    if first := next(lines, None):
        jsonl.check(source_tree.join(root, first))
    for entry in entries:
        yield from _units_of(spec, root, entry, unit_bytes)


def _units_of(spec: str, root: str, entry: Entry, unit_bytes: int) -> Iterator[Unit]:
    path = source_tree.join(root, entry.path)
    context = (("root", root), ("file", entry.path))
    version = source_tree.version([entry])
    if entry.path.endswith(".parquet"):
        for i, (groups, size) in enumerate(parquet.row_groups(path, entry.size, unit_bytes)):
            yield Unit(spec, f"{entry.path}#{i}", tuple(map(str, groups)), size, version, context)
        return
    step = entry.size if entry.path.endswith(_COMPRESSED) else unit_bytes
    for i, start in enumerate(range(0, entry.size, max(step, 1))):
        end = min(start + step, entry.size)
        yield Unit(spec, f"{entry.path}#{i}", (str(start), str(end)), end - start, version, context)


def _matching(place: str) -> tuple[list[Entry], str]:
    """The files meant, their paths relative to a root, and the root: the folder, or what is before any wildcard."""
    place = place if source_tree.is_remote(place) else os.path.abspath(place)
    if not glob.has_magic(place):
        entries, unreadable = _below(place)
        if entries:
            found = [entry for entry in entries if entry.path.endswith(_UNDERSTOOD)]
            if not found:
                raise UserError(f"no file under {place} is one of {', '.join(_UNDERSTOOD)}")
            return found, place
        if unreadable and not _is_file(place):
            raise UserError(f"cannot read {unreadable[0]}")
    root = re.split(r"[*?\[]", place, maxsplit=1)[0].rpartition("/")[0]
    found = _expanded(place, root)
    if not found:
        raise UserError(f"no file matches {place}")
    if other := [entry.path for entry in found if not entry.path.endswith(_UNDERSTOOD)]:
        raise UserError(f"cannot read {other[0]}: understood are files that end in {', '.join(_UNDERSTOOD)}")
    return found, root


def _below(place: str) -> tuple[list[Entry], list[str]]:
    if _is_file(place):
        return [], []
    return source_tree.files(place)


def _is_file(place: str) -> bool:
    if source_tree.is_remote(place):
        files, inside = source_tree.filesystem(place)
        return files.isfile(inside)
    return not os.path.isdir(place)


def _expanded(pattern: str, root: str) -> list[Entry]:
    """Files that the pattern matches, sorted; a pattern without wildcards matches the file of its name."""
    if source_tree.is_remote(pattern):
        files, inside = source_tree.filesystem(pattern)
        try:
            found = files.glob(inside, detail=True)
        except Exception as error:  # a remote store's library raises its own kinds
            raise UserError(f"cannot read {pattern}: {source_tree.first_line(error)}") from None
        base = source_tree.filesystem(root)[1]
        infos = [(name, about) for name, about in found.items() if about["type"] == "file"]
        entries = [source_tree.remote_entry(name[len(base) + 1 :], about) for name, about in infos]
    else:
        names = [name for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)]
        entries = [Entry(n[len(root) + 1 :], (s := os.stat(n)).st_size, s.st_mtime_ns) for n in names]
    return sorted(entries, key=lambda entry: entry.path)


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    context = dict(unit.context)
    path = source_tree.join(context["root"], context["file"])
    if path.endswith(".parquet"):
        yield from parquet.read(path, context["file"], [int(i) for i in unit.items], max_bytes)
    else:
        start, end = map(int, unit.items)
        yield from jsonl.read(path, context["file"], start, end, max_bytes)
