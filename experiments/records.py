"""What runs have left in their folders: config, result, metrics."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codelm import config_io
from codelm.config import Config
from codelm.errors import UserError
from data.inputs import CORPUS
from train.records import METRICS, read

CONFIG, RESULT, LOCK = "config.json", "result.json", "run.lock"


@dataclass(frozen=True)
class Record:
    """One run. Without a result it is not finished."""

    folder: Path
    config: Config
    result: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.name


def load(folder: Path) -> Record:
    return Record(folder, config_io.load(folder / CONFIG), result(folder), read(folder / METRICS))


def load_all(paths: list[Path]) -> list[Record]:
    """Of run folders, and of all runs in folders of runs."""
    found: dict[Path, Record] = {}
    if not paths:
        raise UserError("which runs? Give their folders, or a folder of runs: runs")
    for path in paths:
        folders = [path] if (path / CONFIG).is_file() else sorted(child.parent for child in path.glob(f"*/{CONFIG}"))
        if not folders and {child.name for child in path.glob("*")} & {LOCK, "log.txt"}:
            print(f"left out, it never began: {path}", file=sys.stderr)
            continue
        if not folders:
            raise UserError(f"no run at {path}: a run's folder holds {CONFIG}, as `codelm run` leaves it")
        found |= {folder: load(folder) for folder in folders if folder not in found}
    if not found:
        raise UserError("none of these runs has begun")
    return list(found.values())


def run_around(path: Path) -> Path | None:
    """The run that a folder is, or lies in."""
    folders = (path, *path.absolute().parents)
    return next((folder for folder in folders if (folder / CONFIG).is_file() and (folder / LOCK).is_file()), None)


def corpora(run: Path, config: Config) -> list[str]:
    """The folders of what it learns from, its own first; conversations aside."""
    sources = [source for source in config.data.sources if source.level != "chat"]
    own = [str(run / CORPUS)] if any(not source.corpus for source in sources) else []
    return list(dict.fromkeys([*own, *(source.corpus for source in sources if source.corpus)]))


def result(folder: Path) -> dict[str, Any]:
    """What a run came to; empty while it is not finished."""
    path = folder / RESULT
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; delete it and run again") from error
    if not isinstance(content, dict) or content.get("codelm_result") != 1:
        raise UserError(f"{path} is no result that this codelm reads: it lacks codelm_result 1")
    return content
