"""Completions as a page shows them: what is around a hole, what the model wrote in it, and what stood there."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from codelm.caches import CACHE
from codelm.errors import UserError
from experiments.evals import catalogue
from experiments.evals.benchmarks import VARIABLE
from experiments.evals.rows import Measured, Row
from experiments.evals.suite import Task

STYLE = """
:root { --before: #1f5fb8; --after: #1c7a55; --middle: #ffe28a; --wrong: #b3401f }
@media (prefers-color-scheme: dark) { :root { --before: #8fb8f2; --after: #7fd0ac; --middle: #6b5510;
  --wrong: #f0906e } }
pre.code { white-space: pre-wrap; overflow: auto; overflow-wrap: anywhere; max-height: 24rem }
.before { color: var(--before) } .after { color: var(--after) }
mark { background: var(--middle); color: var(--ink); border-radius: 3px } mark.nothing { font-style: italic }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 34rem), 1fr)); gap: 1rem 2rem }
.samples p, .samples pre { margin: .2rem 0 } pre.stood { border-left: 3px solid var(--line) }
.right { color: var(--after) } .wrong { color: var(--wrong) }
"""
LEGEND = (
    "<p class=note><span class=before>Before the hole</span>, <mark>what the model wrote</mark>, "
    "<span class=after>after it</span>.</p>"
)
CHOSEN = (
    "<p class=note>Of each suite up to three with a full score and up to three without, drawn by hash of the task.</p>"
)
_EACH = 3  # of a suite with a full score, and as many without
_RIGHT = ("pass", "exact")  # metrics of which 1 is right; of others it may be a secret that was written
_FIRST = 8  # of a run's own that are not folded away
_LINES, _AROUND, _INSIDE = 10, 500, 900  # lines and characters around a hole, and characters in it


@dataclass(frozen=True)
class Sample:
    about: str
    """HTML: where it is from, and how good it is."""
    prefix: str
    written: str
    suffix: str = ""
    stood: str = ""
    right: bool | None = None
    """None where nothing says."""


def _coloured(sample: Sample) -> str:
    verdict = {True: "<b class=right>✓ right</b> ", False: "<b class=wrong>✗ wrong</b> ", None: ""}[sample.right]
    told = f"<p class=told>{verdict}{sample.about}</p>" if verdict or sample.about else ""
    written = f"<mark>{escape(_inside(sample.written))}</mark>"
    if not sample.written:
        written = "<mark class=nothing>nothing</mark>"
    before, after = escape(_tail(sample.prefix)), escape(_head(sample.suffix))
    code = f"<span class=before>{before}</span>{written}<span class=after>{after}</span>"
    stood = ""
    if sample.stood and not sample.right:
        what = "There stood" if sample.suffix else "The reference"
        stood = f"<p class=note>{what}:</p><pre class='code stood'>{escape(_inside(sample.stood))}</pre>"
    return f"<div>{told}<pre class=code>{code}</pre>{stood}</div>"


def grid(samples: Sequence[Sample]) -> str:
    return f"<div class=samples>{''.join(map(_coloured, samples))}</div>"


# ---- of a run ----


def of_run(path: Path) -> str:
    """What was written down when it was trained."""
    if not path.exists():
        return "<p class=note>Nothing yet.</p>"
    shown = [_of_training(sample) for sample in json.loads(path.read_text())]
    rest = f"<details><summary>{len(shown) - _FIRST} more</summary>{grid(shown[_FIRST:])}</details>"
    return LEGEND + grid(shown[:_FIRST]) + (rest if len(shown) > _FIRST else "")


def _of_training(sample: Mapping[str, Any]) -> Sample:
    if "prompt" in sample:
        return Sample("", sample["prompt"], sample["completion"])
    if "path" not in sample:
        return Sample("", sample["prefix"], sample["completion"], sample["suffix"])
    about = f"<code>{escape(sample['path'])}</code>, similarity {sample['similarity']:.2f}"
    right = sample["completion"] == sample["middle"]
    return Sample(about, sample["prefix"], sample["completion"], sample["suffix"], sample["middle"], right)


# ---- of an evaluation ----


def of_measured(measured: Measured, run: Path, benchmarks: Path | None) -> str:
    """Some completions; empty where a suite asks for no text."""
    rows = chosen(measured)
    if not rows:
        return ""
    tasks = _tasks(measured, run, benchmarks)
    unknown = "" if tasks else "<p class=note>The suite's tasks are not here: only what was written is shown.</p>"
    return unknown + grid([_of_row(row, tasks.get(row.task), _metric(measured)) for row in rows])


def chosen(measured: Measured) -> list[Row]:
    """By hash of the task, so that nobody picks the good ones; of a task at most one with a full score, one without."""
    found: dict[bool, dict[str, Row]] = {True: {}, False: {}}
    for row in sorted(measured.rows, key=lambda row: (zlib.crc32(row.task.encode()), row.sample)):
        if row.written and row.counts and (score := row.scores.get(_metric(measured))) is not None:
            found[score >= 1].setdefault(row.task, row)
    return [row for by_task in found.values() for row in list(by_task.values())[:_EACH]]


def _metric(measured: Measured) -> str:
    """The one that the suite is about."""
    return next(iter(measured.header["suite"]["metrics"]))


def _of_row(row: Row, task: Task | None, metric: str) -> Sample:
    score, why = row.scores[metric], f": {escape(row.reason)}" if row.reason else ""
    right = score >= 1 if metric in _RIGHT else None
    about = f"<code>{escape(row.task)}</code>{'' if metric in _RIGHT else f', {escape(metric)} {score:.3g}'}{why}"
    if task is None:
        return Sample(about, "", row.completion, right=right)
    return Sample(about, task.prompt.prefix, row.completion, task.prompt.suffix or "", task.reference, right)


def _tasks(measured: Measured, run: Path, benchmarks: Path | None) -> Mapping[str, Task]:
    """The suite's tasks, made again; none where that cannot be done, or gives others. Nothing is fetched for it."""
    told = measured.header["suite"]
    kept = None if os.environ.get(VARIABLE) else CACHE.expanduser() / "benchmarks"
    try:
        suite = catalogue.make(told["name"], catalogue.Data(benchmarks or kept, run=run))
    except UserError:
        return {}
    same = (suite.version, suite.source) == (told["version"], told["sha256"])
    return {task.id: task for task in suite.tasks} if same else {}


# ---- cut to what a person reads ----


def _tail(text: str) -> str:
    kept = "\n".join(text.split("\n")[-_LINES:])[-_AROUND:]
    return text if kept == text else f"…\n{kept}"


def _head(text: str) -> str:
    kept = "\n".join(text.split("\n")[:_LINES])[:_AROUND]
    return text if kept == text else f"{kept}…"


def _inside(text: str) -> str:
    return text if len(text) <= _INSIDE else f"{text[:_INSIDE]}…"
