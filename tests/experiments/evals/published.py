"""Suites of the benchmark files that are here, measured on models that answer what they are told to."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from codelm.sandbox import Pool
from experiments.evals import harness
from experiments.evals.catalogue import Data, make
from experiments.evals.rows import Row
from experiments.evals.suite import Suite
from tests.conftest import ROOT
from tests.experiments.evals.fakes import Says


def folder() -> Path:
    """Where the files are; without them the test is skipped."""
    found = Path(os.environ.get("CODELM_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
    if not found.is_dir():
        pytest.skip(f"no benchmark files in {found}")
    return found


def suite(name: str, tasks: int = 0) -> Suite:
    """So many tasks from all over it, or all."""
    whole = make(name, Data(benchmarks=folder()))
    step = max(len(whole.tasks) // tasks, 1) if tasks else 1
    return replace(whole, tasks=whole.tasks[::step][: tasks or None])


def solved(suite: Suite, pool: Pool, folder: Path) -> list[Row]:
    """What solves each task, as published."""
    answers = {(task.prompt.prefix, task.prompt.suffix): task.reference for task in suite.tasks}
    return measured(suite, Says(lambda prompt, _: answers[prompt.prefix, prompt.suffix]), pool, folder / "solved")


def empty(suite: Suite, pool: Pool, folder: Path) -> list[Row]:
    return measured(suite, Says(lambda prompt, _: ""), pool, folder / "empty")


def answered(suite: Suite, answer: str, pool: Pool, folder: Path) -> Row:
    """The one task of a suite, with this answer."""
    (row,) = measured(suite, Says(lambda prompt, _: answer), pool, folder)
    return row


def measured(suite: Suite, model: Says, pool: Pool, folder: Path) -> list[Row]:
    """With a line of a table: pytest shows it with -s."""
    began = time.monotonic()
    rows = harness.measure(suite, model, harness.Settings(), folder, pool).rows
    of, right, seconds = len(rows), passing(rows), time.monotonic() - began
    print(f"\n{suite.name:16} {folder.name:8} {right:5} of {of:5} {right / of:8.2%} {seconds:7.1f} s", end="")
    return rows


def wrong(rows: list[Row]) -> Mapping[str, str]:
    return {row.task: row.reason for row in rows if row.scores.get("pass") != 1.0}


def passing(rows: list[Row]) -> int:
    return len(rows) - len(wrong(rows))
