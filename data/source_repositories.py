"""The source `repositories:FOLDER`: one repository, or a folder of them, as FOLDER/name or FOLDER/owner/name.

Where there is git, git says what belongs to a repository; a folder without it counts as one too, hidden files left out.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codelm.errors import UserError
from data import source_tree
from data.document import Raw
from data.git import Checkout, checkout
from data.source_tree import Entry
from data.sources import Item, Unit

_LICENCE_FILE = re.compile(r"(?:LICEN[CS]E|COPYING|UNLICEN[CS]E)(?:[-_.][\w.-]*)?", re.I)
_MAX_LICENCE = 200_000  # bytes


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is a repository, and what it is called if nothing better is known."""

    path: str
    name: str
    recursive: bool = True


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    root = place if source_tree.is_remote(place) else os.path.abspath(place)
    names: set[str] = set()
    some = False
    for folder in _repositories(root):
        for unit in _units_of(spec, folder, unit_bytes, names):
            some = True
            yield unit
    if not some:
        raise UserError(f"no file of a known language under {place}")


def _repositories(root: str) -> Iterator[Folder]:
    base = root.rstrip("/").rpartition("/")[2]
    names = source_tree.folders(root)
    if _has_git(root):
        yield Folder(root, base)
        return
    yield Folder(root, base, recursive=False)  # files beside the repositories
    for name in names:
        path = source_tree.join(root, name)
        try:
            inside = [] if _has_git(path) else source_tree.folders(path)
        except UserError:
            inside = []  # said when it is read
        if any(_has_git(source_tree.join(path, child)) for child in inside):
            yield from (Folder(source_tree.join(path, child), f"{name}/{child}") for child in inside)
        else:
            yield Folder(path, name)


def _has_git(path: str) -> bool:
    if source_tree.is_remote(path):
        files, inside = source_tree.filesystem(path)
        return files.exists(f"{inside}/.git/HEAD")
    return os.path.lexists(f"{path}/.git")


def _units_of(spec: str, folder: Folder, unit_bytes: int, names: set[str]) -> Iterator[Unit]:
    """The repository's units; `names` are those given so far, and takes up this one's."""
    found = checkout(folder.path) if folder.recursive and not source_tree.is_remote(folder.path) else None
    if found is None:
        entries, unreadable = source_tree.files(folder.path, folder.recursive)
        found = Checkout()
    else:
        entries, unreadable = source_tree.regular(folder.path, found.paths), []
    repository = found.name or folder.name
    shown = repository if repository not in names else f"{repository} in {folder.path}"
    names.add(shown)
    licence_files = [entry.path for entry in entries if _LICENCE_FILE.fullmatch(entry.path) and _is_prose(entry.path)]
    context = [
        ("root", folder.path),
        ("repository", repository),
        ("provenance", f"{found.url or repository}@{found.commit}" if found.commit else found.url or repository),
        ("date", str(found.date)),
        *(("licence_file", path) for path in licence_files),
    ]
    about = _version_of(entries, licence_files, found.commit)
    groups = list(source_tree.groups([e for e in entries if source_tree.worth_reading(e.path)], unit_bytes))
    for i, group in enumerate(groups or ([[]] if unreadable else [])):
        yield Unit(
            source=spec,
            name=f"{shown}#{i}",
            items=tuple(entry.path for entry in group),
            size=sum(entry.size for entry in group),
            version=source_tree.version(group, about),
            context=(*context, *(("unreadable", what) for what in unreadable if i == 0)),
        )


def _is_prose(path: str) -> bool:
    return os.path.splitext(path)[1].lower() not in (".py", ".js", ".ts", ".go", ".java", ".c", ".h", ".rb", ".json")


def _version_of(entries: list[Entry], licence_files: list[str], commit: str) -> str:
    """Of what every unit of a repository depends on."""
    return source_tree.version((entry for entry in entries if entry.path in licence_files), commit)


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    context = dict(unit.context)
    repository, root = context["repository"], context["root"]
    licences = _licences(root, [value for key, value in unit.context if key == "licence_file"])
    for found in source_tree.contents(root, unit.items, repository, max_bytes):
        if not isinstance(found, tuple):
            yield found
            continue
        path, content = found
        yield Raw(
            content,
            path,
            repository,
            licences=licences,
            provenance=context["provenance"],
            date=int(context["date"]),
        )


def _licences(root: str, paths: list[str]) -> tuple[str, ...]:
    """What the repository's licence files say, all of them together."""
    from data import licences

    found: list[str] = []
    for path in paths:
        try:
            with source_tree.open_binary(source_tree.join(root, path)) as file:
                text = file.read(_MAX_LICENCE).decode(errors="replace")
        except Exception:  # of any store's library: what cannot be read grants nothing
            continue
        found += licences.detect(text)
    return tuple(dict.fromkeys(found))
