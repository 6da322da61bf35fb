"""The own suite of holes in repositories, with and without files beside, and a backtest on any folder.

`codelm eval build-suite` makes the first: lines, blocks, function bodies and uses of APIs. The backtest hides lines of
random files where the product would have been asked, as CodeCompose was tested before it shipped (arXiv 2305.12050).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from codelm.cursor import window
from codelm.errors import UserError
from codelm.formats import File
from data.document import Document
from experiments.evals import (
    doctests,
    repository_documents,
    repository_holes,
    repository_rows,
    source_files,
    text_scores,
    unit_tests,
)
from experiments.evals.catalogue import Data
from experiments.evals.repository_holes import CUTS
from experiments.evals.repository_rows import Row
from experiments.evals.suite import Metric, NotRun, Outcome, PostProcessing, Prompt, Suite, Task, Tools

_METRICS: dict[str, Metric] = dict.fromkeys(text_scores.NAMES, "mean")
_EXECUTED: dict[str, Metric] = {"pass": "passes"}
_BACKTEST_FILES = 200
_BACKTEST_ROOM = 6000  # characters around a hole


def _cut(task: Task, written: str) -> str:
    return repository_holes.cut(task.checks["kind"], task.prompt.prefix, written)


HOLE = PostProcessing("hole", 1, CUTS, _cut)


def repository(data: Data) -> Suite:
    return _of_folder("repository", data, True)


def repository_without_context(data: Data) -> Suite:
    return _of_folder("repository-nocontext", data, False)


def _of_folder(name: str, data: Data, with_files: bool) -> Suite:
    if not data.given:
        raise UserError(f"which suite? {name}:FOLDER, a folder that `codelm eval build-suite` made")
    found = repository_rows.read(Path(data.given))
    executes = any(row.examples or row.tests for row in found.rows)
    metrics = _METRICS | _EXECUTED if executes else _METRICS
    about = f"holes in {found.manifest['about']}, {'with' if with_files else 'without'} other files of it"
    tasks = [_task(row, with_files) for row in found.rows]
    sha256 = found.manifest["sha256"]
    return Suite(name, 1, about, tasks, _attempt, metrics, sha256, HOLE, 512, executes=executes)


def _task(row: Row, with_files: bool) -> Task:
    files = [File(path, text) for path, text in row.files] if with_files else []
    slices = {
        "language": row.language,
        "kind": row.kind,
        "length": _length(row.middle),
        "has_context": "yes" if row.files else "no",
    }
    prompt = Prompt(row.prefix, row.suffix, row.path, files, row.repository)
    return Task(row.id, prompt, row.middle, slices, {"kind": row.kind, "examples": row.examples, "tests": row.tests})


def _length(middle: str) -> str:
    lines = middle.count("\n") + 1
    return "1 line" if lines == 1 else "2 to 4 lines" if lines < 5 else "5 to 9 lines" if lines < 10 else "more lines"


def _attempt(task: Task, tools: Tools) -> Outcome:
    written = HOLE.apply(task, tools.ask(task.prompt))
    scores = text_scores.scores(written, task.reference, task.slices["language"])
    file = (task.prompt.prefix, written, task.prompt.suffix or "")
    if examples := task.checks.get("examples"):
        why = doctests.run(tools.pool, *file, examples)
    elif tests := task.checks.get("tests"):
        why = unit_tests.run(tools.pool, *file, tests)
    else:
        return Outcome(written, scores)
    if why == "sandbox":
        raise NotRun("the sandbox failed")
    return Outcome(written, scores | {"pass": float(not why)}, why)


# ---- backtest ----


def backtest(data: Data) -> Suite:
    """Of the folder or corpus that is given, or of what the run holds out."""
    files, where = _code(data)
    tasks = list(_lines(files))
    if not tasks:
        raise UserError(f"no line to hide in the files of {data.given or data.run}")
    content = json.dumps([asdict(task) for task in tasks], sort_keys=True)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    about = f"lines hidden after triggers in {len(tasks)} random files of {where}"
    return Suite("backtest", 1, about, tasks, _attempt, _METRICS, sha256, HOLE, 64)


def _code(data: Data) -> tuple[list[Document], str]:
    """Files, and where they are from."""
    if data.given:
        documents = repository_documents.read(Path(data.given))
        found, where = [file for files in documents.by_repository.values() for file in files], documents.about
    else:
        found, where = source_files.files(data, "backtest"), "repositories that the run's corpus holds out"
    return [file for file in found if repository_holes.is_code(file.language)], where


def _lines(files: Sequence[Document]) -> Iterator[Task]:
    """One of each file, with seventy parts of what is before it to thirty of what is after it."""
    rng = np.random.default_rng(0)
    for file in source_files.some(files, _BACKTEST_FILES):
        spans = repository_holes.find(file.text, file.language)["line"]
        if not spans:
            continue
        start, end = spans[int(rng.integers(len(spans)))]
        before, after = window(start, len(file.text) - end, _BACKTEST_ROOM)
        prompt = Prompt(file.text[start - before : start], file.text[end : end + after], file.path)
        name = f"{file.repository}/{file.path}:{start}"
        yield Task(name, prompt, file.text[start:end], {"language": file.language}, {"kind": "line"})
