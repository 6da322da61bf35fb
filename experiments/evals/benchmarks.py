"""Benchmark files: in a folder that is given, in the cache, or from where they are published; checked when read."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from codelm.caches import CACHE
from codelm.errors import UserError
from codelm.publish import write_atomically
from data import benchmarks

VARIABLE = "CODELM_BENCHMARKS"
_TIMEOUT = 20.0  # seconds without an answer
_LARGEST = 1 << 30  # bytes of a file that is fetched


@dataclass(frozen=True)
class File:
    """A published file of tasks."""

    name: str
    """Within a folder of benchmarks: humaneval/HumanEval.jsonl.gz; a file of that name anywhere below is found too."""
    url: str
    """Empty: it is published in no form that can be fetched; then `how` says what to do."""
    fields: Sequence[str]
    """That every row has."""
    how: str = ""


@dataclass(frozen=True)
class Rows:
    rows: list[dict[str, Any]]
    sha256: str
    """Of the file's bytes."""


def read(file: File, folder: Path | None, cache: Path = CACHE) -> Rows:
    """Every row; an error names the file, the line and what to do."""
    return read_path(_located(file, folder, cache), file.fields)


def read_path(path: Path, fields: Sequence[str]) -> Rows:
    """Of a file that is there."""
    if not path.is_file():
        raise UserError(f"no file of tasks at {path}")
    found = []
    for number, row in benchmarks.rows(epath.Path(path)):
        if missing := [field for field in fields if field not in row]:
            raise UserError(f"{path}, line {number}: no {missing[0]!r} in the row: not the file that this suite reads")
        found.append(row)
    if not found:
        raise UserError(f"no tasks in {path}: the file is empty")
    return Rows(found, hashlib.sha256(path.read_bytes()).hexdigest())


def _located(file: File, folder: Path | None, cache: Path) -> Path:
    """The folder that is given has to have it; without one it is fetched once."""
    given = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given is not None:
        if not given.is_dir():
            raise UserError(f"no folder of benchmarks at {given}")
        exact = given / file.name
        found = [exact] if exact.is_file() else sorted(given.rglob(Path(file.name).name))
        if not found:
            raise UserError(f"no {Path(file.name).name} in {given} or below; {_how(file)}")
        return found[0]
    kept = cache.expanduser() / "benchmarks" / file.name
    if not kept.is_file():
        _fetch(file, kept)
    return kept


def _fetch(file: File, to: Path) -> None:
    if not file.url:
        raise UserError(f"{Path(file.name).name} cannot be fetched: {_how(file)}")
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT) as answer:
            content = answer.read(_LARGEST)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot fetch {file.url} ({reason}): {_how(file)}") from error
    write_atomically(to, content)


def _how(file: File) -> str:
    where = file.how or f"get {file.url}"
    return f"{where}, put it in a folder, and give that as --benchmarks or {VARIABLE}"
