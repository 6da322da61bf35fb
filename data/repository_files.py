"""The files of one repository, by path and by what their paths end with, and the nearest of several."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """Of every file its path (from the root, with slashes), its language, and what data/imports.py found in it."""

    paths: Sequence[str]
    languages: Sequence[str]
    imports: Sequence[Sequence[str]]

    @cached_property
    def number(self) -> dict[str, int]:
        return {path: number for number, path in enumerate(self.paths)}

    @cached_property
    def parts(self) -> list[Parts]:
        return [tuple(path.split("/")) for path in self.paths]

    @cached_property
    def in_order(self) -> list[int]:
        """All files by path, folder for folder."""
        return sorted(range(len(self.paths)), key=self.parts.__getitem__)

    @cached_property
    def folders(self) -> set[str]:
        """Of files; the root is the empty one."""
        return {folder_of(path) for path in self.paths}

    @cached_property
    def suffixes(self) -> dict[str, list[int]]:
        """The files, in path order, whose paths end with some path: with d depth, d entries a file."""
        found: dict[str, list[int]] = {}
        for number in self.in_order:
            for suffix in suffixes(self.paths[number]):
                found.setdefault(suffix, []).append(number)
        return found

    def nearest(self, candidates: Sequence[int], folder: str) -> int:
        """Of files in path order, the first of those that share most folders with a folder."""
        return candidates[nearest(candidates, self.parts, parts_of(folder))[0]]


def nearest(candidates: Sequence[int], parts: Sequence[Parts], to: Parts) -> tuple[int, int]:
    """The place of the first candidate of those whose parts begin most like `to`, and how many parts those are.

    The candidates are in the order of their parts: then the ones most alike stand together, where `to` would.
    """
    key = parts.__getitem__
    at = bisect_left(candidates, to, key=key)
    shared = max(_shared(parts[beside], to) for beside in candidates[max(at - 1, 0) : at + 1])
    return bisect_left(candidates, to[:shared], key=key), shared


def _shared(one: Parts, other: Parts) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def stem_of(path: str) -> str:
    """The name without the last extension."""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def parts_of(folder: str) -> Parts:
    return tuple(folder.split("/")) if folder else ()


def join(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def resolved(folder: str, path: str) -> str | None:
    """A relative path from a folder, its dots followed; None where they lead out of the repository."""
    parts = list(parts_of(folder))
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def ancestors(folder: str) -> Iterator[str]:
    """The folder, the one it is in, and so on to the root."""
    while folder:
        yield folder
        folder = folder_of(folder)
    yield ""


def suffixes(path: str) -> Iterator[str]:
    """`a/b/c`, `b/c`, `c`."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path
