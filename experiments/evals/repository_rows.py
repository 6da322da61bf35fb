"""A suite of holes in repositories, as a folder: what `codelm eval build-suite` writes and the suite reads.

suite.jsonl      a row for each task: what is before and after the hole, what stood in it, files beside it, what runs it
manifest.json    what it was made of and how, counts, and the SHA-256 of suite.jsonl
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from codelm.errors import UserError
from codelm.publish import checksum
from experiments.evals.benchmarks import read_path
from experiments.evals.doctests import Example
from experiments.evals.repository_holes import KINDS, Kind
from experiments.evals.rows import line, pretty
from experiments.evals.unit_tests import UnitTest

VERSION = 1
ROWS, MANIFEST = "suite.jsonl", "manifest.json"


@dataclass(frozen=True)
class Row:
    """One hole; prefix, middle and suffix are a file."""

    id: str
    repository: str
    path: str
    language: str
    kind: Kind
    prefix: str
    middle: str
    suffix: str
    files: Sequence[tuple[str, str]]
    """Paths and texts of other files of the repository, the most useful ones last."""
    examples: Sequence[Example] = ()
    """That the file passes, and does not without the middle."""
    tests: Sequence[UnitTest] = ()
    """… of other files; a row has one or the other."""


@dataclass(frozen=True)
class Rows:
    rows: list[Row]
    manifest: dict[str, Any]


def check_free(folder: Path) -> None:
    if folder.exists():
        raise UserError(f"{folder} exists: give another folder for the suite, or take it away")


def write(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """The folder appears whole or not at all; its manifest is returned."""
    check_free(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        new.mkdir(parents=True)
        (new / ROWS).write_text("".join(line(asdict(row)) for row in rows), encoding="utf-8")
        counts = {
            "tasks": len(rows),
            "executed": sum(bool(row.examples or row.tests) for row in rows),
            "counts": _counts(rows),
        }
        manifest = {"codelm_repository_suite": VERSION, **counts, "sha256": checksum(new / ROWS), **about}
        (new / MANIFEST).write_bytes(pretty(manifest))
        new.rename(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(new)
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return manifest


def read(folder: Path) -> Rows:
    """Refused where a file is missing, damaged or of another version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"no suite at {folder}: it has no {MANIFEST}; `codelm eval build-suite REPO_DIR OUT` makes one")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, sha256 = manifest["codelm_repository_suite"], manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no manifest of a suite ({error!r}): build the suite again") from error
    if version != VERSION:
        raise UserError(f"{path} is of version {version}; this codelm reads {VERSION}: build the suite again")
    found = read_path(folder / ROWS, [field.name for field in fields(Row)])
    if found.sha256 != sha256:
        raise UserError(f"{folder / ROWS} is not what its manifest says (cut short or changed): build the suite again")
    return Rows([_row(row) for row in found.rows], manifest)


def _row(row: Mapping[str, Any]) -> Row:
    files = [(path, text) for path, text in row["files"]]
    examples = [Example(**example) for example in row["examples"]]
    tests = [UnitTest(**test) for test in row["tests"]]
    return replace(Row(**row), files=files, examples=examples, tests=tests)


def _counts(rows: Sequence[Row]) -> dict[str, dict[Kind, int]]:
    """Of each language, how many of each kind."""
    languages = sorted({row.language for row in rows})
    counted = Counter((row.language, row.kind) for row in rows)
    return {language: {kind: counted[language, kind] for kind in KINDS} for language in languages}
