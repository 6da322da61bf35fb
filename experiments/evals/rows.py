"""What one suite made of one model, in a folder: how it was measured, a row for each sample, what it came to.

    header.json    model, prompt format, decoding, suite and post-processing with their versions, data's hash, sandbox
    rows.jsonl     a line for each sample: what was written, what was scored, the scores; in order once it is whole
    times.jsonl    how long each took; apart, so that the rows of a greedy run are the same to the byte every time
    result.json    the figures with their intervals; there only once every sample is

A row is appended when its sample is scored, so that an interrupted measurement goes on where it was. What was measured
otherwise is never added to: another header is refused, with what differs.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codelm.errors import UserError
from codelm.publish import check_writable, write_atomically

VERSION = 1
HEADER, ROWS, TIMES, RESULT = "header.json", "rows.jsonl", "times.jsonl", "result.json"
Key = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """One sample of one task."""

    task: str
    sample: int
    seed: int
    written: Sequence[str]
    """All that the model answered, in order: one text for most suites."""
    completion: str
    """After post-processing."""
    scores: Mapping[str, float]
    reason: str = ""
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.task, self.sample

    @property
    def counts(self) -> bool:
        """Whether it is right or wrong; not if nothing could tell."""
        return not self.reason.startswith("not run")


@dataclass(frozen=True)
class Measured:
    """A folder that holds a whole measurement."""

    folder: Path
    header: dict[str, Any]
    rows: list[Row]
    result: dict[str, Any]

    @property
    def suite(self) -> str:
        return self.header["suite"]["name"]


class Writer:
    """Appends rows; thread-safe."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.folder = folder
        check_writable(folder / ROWS)
        self.done = {row.key: row for row in _begun(folder, header)}
        """What an earlier, interrupted measurement left."""
        self._lock = threading.Lock()
        with told_of_disk(folder):
            self._rows, self._times = ((folder / name).open("a", encoding="utf-8") for name in (ROWS, TIMES))

    def add(self, row: Row, times: Mapping[str, Any]) -> None:
        with self._lock, told_of_disk(self.folder):
            for file, content in (
                (self._times, {"task": row.task, "sample": row.sample, **times}),
                (self._rows, asdict(row)),
            ):
                file.write(line(content))
                file.flush()
            self.done[row.key] = row

    def finish(self, order: Sequence[Key], result: Mapping[str, Any]) -> None:
        """The rows in order, then the result."""
        self.close()
        content = "".join(line(asdict(self.done[key])) for key in order)
        write_atomically(self.folder / ROWS, content.encode())
        write_atomically(self.folder / RESULT, pretty(result))

    def close(self) -> None:
        for file in (self._rows, self._times):
            with contextlib.suppress(OSError):  # the disk is full, which was told
                file.close()


def load(folder: Path) -> Measured:
    """A whole measurement; refused where it is damaged, unfinished or of another version."""
    header = read_header(folder)
    if not (folder / RESULT).is_file():
        raise UserError(f"{folder} is not finished: the command that began it goes on")
    return Measured(folder, header, list(_rows(folder)), _read(folder / RESULT))


def find(folder: Path) -> list[Path]:
    """Whole measurements in a folder or below, hidden ones aside: of a run they are in RUN/evals."""
    below = [folder] if (folder / HEADER).is_file() else sorted(path.parent for path in folder.glob(f"**/{HEADER}"))
    return [path for path in below if (path / RESULT).is_file() and not path.name.startswith(".")]


def read_header(folder: Path) -> dict[str, Any]:
    header = _read(folder / HEADER)
    if header.get("codelm_eval") != VERSION:
        raise UserError(f"{folder / HEADER} is of another version than the {VERSION} that this codelm reads")
    return header


def line(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, as a tokenizer may leave it
        text = json.dumps(content, sort_keys=True)
    return text + "\n"


def pretty(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def told_of_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write in {folder}: {error.strerror or error}; what was scored stays, and the same command goes on"
        ) from error


def _begun(folder: Path, header: Mapping[str, Any]) -> list[Row]:
    """The rows that are there, of the same header; the header is written where there is none."""
    if not (folder / HEADER).is_file():
        write_atomically(folder / HEADER, pretty(header))
        return []
    before = read_header(folder)
    if different := list(_differences(before, json.loads(json.dumps(header)))):
        raise UserError(
            f"{folder} was measured otherwise ({'; '.join(different[:3])}): give another --out, or take it away"
        )
    for name in (ROWS, TIMES):
        _without_torn_end(folder / name)
    return list(_rows(folder)) if (folder / ROWS).is_file() else []


def _without_torn_end(path: Path) -> None:
    """A line that was being written when the machine stopped."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with told_of_disk(path.parent):
            os.truncate(path, whole)


def _rows(folder: Path) -> Iterator[Row]:
    path = folder / ROWS
    for number, text in enumerate(path.read_bytes().decode().split("\n")[:-1], start=1):
        try:
            yield Row(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: no row of a measurement ({error}); take that line away") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"no evaluation in {path.parent}: no {path.name}; `codelm eval RUN --suite …` makes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: a {type(content).__name__}, not an object")
    return content


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif before != now:
        yield f"{name} was {before!r}, is {now!r}"
