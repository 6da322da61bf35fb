"""Files below a folder, local or remote: which there are, cut into groups, and read back within a size limit."""

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codelm.errors import UserError
from codelm.languages import language_of
from data.document import TooLarge, Unreadable

_REMOTE_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that there is: its path from the root, with slashes."""

    path: str
    size: int
    time: int


def is_remote(path: str) -> bool:
    return "://" in path


def join(root: str, path: str) -> str:
    return f"{root.rstrip('/')}/{path}"


def open_binary(path: str) -> io.BufferedReader:
    if not is_remote(path):
        return open(path, "rb")
    from etils import epath

    remote: Any = epath.Path(path).open("rb")  # has no readline of a limited length
    return io.BufferedReader(remote, _REMOTE_BUFFER)


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a remote path (it lists sizes with names), looked at afresh, and the path in it."""
    import fsspec

    try:
        found, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}") from None
    found.invalidate_cache()
    return found, inside.rstrip("/")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def folders(root: str) -> list[str]:
    """Names of the folders right below, hidden ones left out, sorted."""
    try:
        if is_remote(root):
            files, base = filesystem(root)
            found = [info["name"].rstrip("/") for info in files.ls(base, detail=True) if info["type"] == "directory"]
            names = [name.rpartition("/")[2] for name in found if name != base]
        else:
            with os.scandir(root) as inside:
                names = [entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        raise UserError(f"no folder at {root}") from None
    except NotADirectoryError:
        raise UserError(f"{root} is a file; give the folder it is in") from None
    except Exception as error:  # a remote store's library raises its own kinds
        raise UserError(f"cannot read {root}: {first_line(error)}") from None
    return sorted(name for name in names if not name.startswith("."))


def files(root: str, recursive: bool = True) -> tuple[list[Entry], list[str]]:
    """Files below the root, sorted, and `path: why` of folders that could not be read.

    Left out: what is hidden, links (they could lead out of the root, and what they lead to inside is there anyway),
    and folders that are git repositories of their own.
    """
    found, unreadable = (_remote_files if is_remote(root) else _local_files)(root, recursive)
    return sorted(found, key=lambda entry: entry.path), sorted(unreadable)


def _local_files(root: str, recursive: bool) -> tuple[list[Entry], list[str]]:
    found: list[Entry] = []
    unreadable: list[str] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as inside:
                entries = list(inside)
        except OSError as error:
            unreadable.append(f"{folder or root}: {first_line(error)}")
            continue
        if folder and any(entry.name == ".git" for entry in entries):
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    todo += [path] if recursive else []
                elif entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    found.append(Entry(path, about.st_size, about.st_mtime_ns))
            except OSError as error:
                unreadable.append(f"{path}: {first_line(error)}")
    return found, unreadable


def _remote_files(root: str, recursive: bool) -> tuple[list[Entry], list[str]]:
    store, base = filesystem(root)
    try:
        found = store.find(base, maxdepth=None if recursive else 1, detail=True)
    except Exception as error:  # a remote store's library raises its own kinds
        return [], [f"{root}: {first_line(error)}"]
    inside = {name[len(base) + 1 :]: about for name, about in found.items() if about["type"] == "file"}
    own = {path.partition("/.git/")[0] + "/" for path in inside if "/.git/" in path}
    return [
        remote_entry(path, about)
        for path, about in inside.items()
        if path
        and not any(part.startswith(".") for part in path.split("/"))
        and not any(path.startswith(folder) for folder in own)
    ], []


def remote_entry(path: str, about: dict[str, Any]) -> Entry:
    return Entry(path, about.get("size") or 0, _time(about))


def _time(about: dict[str, Any]) -> int:
    time = about.get("mtime") or about.get("updated") or about.get("LastModified") or 0
    if isinstance(time, (int, float)):
        return int(time)
    return int(time.timestamp() * 1e9) if hasattr(time, "timestamp") else int.from_bytes(str(time).encode()[-8:])


def regular(root: str, paths: Iterable[str]) -> list[Entry]:
    """Those of the paths that are files under a local root, neither links nor reached through one."""
    true_root = os.path.realpath(root)
    inside: dict[str, bool] = {}
    entries: list[Entry] = []
    for path in paths:
        full = os.path.join(true_root, path)
        folder = os.path.dirname(full)
        if folder not in inside:
            inside[folder] = os.path.realpath(folder) == folder
        try:
            about = os.lstat(full)
        except (OSError, ValueError):
            continue  # deleted, and git still lists it
        if inside[folder] and stat.S_ISREG(about.st_mode):
            entries.append(Entry(path, about.st_size, about.st_mtime_ns))
    return sorted(entries, key=lambda entry: entry.path)


def worth_reading(path: str) -> bool:
    """Whether a file's name says a language, or says nothing, so that its first line may (data does neither)."""
    name = path.rpartition("/")[2]
    return language_of(name) is not None or "." not in name


def groups(entries: Sequence[Entry], unit_bytes: int) -> Iterator[list[Entry]]:
    """Runs of entries of at most `unit_bytes` together, or of one that is larger."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and size + entry.size > unit_bytes:
            yield group
            group, size = [], 0
        group.append(entry)
        size += entry.size
    if group:
        yield group


def version(entries: Iterable[Entry], *more: str) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.size}\0{entry.time}\0".encode(errors="surrogateescape"))
    digest.update("\0".join(more).encode(errors="surrogateescape"))
    return digest.hexdigest()


def contents(
    root: str, paths: Iterable[str], repository: str, max_bytes: int
) -> Iterator[tuple[str, bytes] | Unreadable | TooLarge]:
    """Path and content of each file; one without a language by name is left out if its first line names none."""
    for path in paths:
        try:
            found = _content(join(root, path), max_bytes, language_of(path) is None)
        except Exception as error:  # a remote store's library raises its own kinds
            yield Unreadable(path, first_line(error))
            continue
        if isinstance(found, int):
            yield TooLarge(path, repository, found)
        elif found is not None:
            yield path, found


def _content(path: str, max_bytes: int, script: bool) -> bytes | int | None:
    """The content, the size if that is too large, or None for what had to be a script and is not."""
    with open_binary(path) as file:
        if script:
            if file.read(2) != b"#!":
                return None
            file.seek(0)
        content = file.read(max_bytes + 1)
        return content if len(content) <= max_bytes else file.seek(0, os.SEEK_END)
