"""HumanEval-Infilling: what stood in a hole passes, nothing does as seldom as was measured, and scores are as said."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from codelm.sandbox import Pool
from experiments.evals.catalogue import Data, make
from experiments.evals.suite import Suite, Task
from tests.experiments.evals import published

NAMES = ("infill-single", "infill-random", "infill-light")
PREFIX = "def double(n):\n    return 2 * n\n\n\ndef half(n):\n    "
ROW = {
    "task_id": "RandomSpanInfilling/HumanEval/0/1",
    "entry_point": "half",
    "prompt": PREFIX,
    "suffix": " // 2\n",
    "canonical_solution": "return n",
    "test": "def check(candidate):\n    assert candidate(double(3)) == 3\n    assert candidate(2) == 1\n",
}
LINE = ROW | {
    "prompt": "def half(n):\n    whole = n // 2\n",
    "canonical_solution": "    rest = n % 2\n",
    "suffix": "    return whole + rest / 2\n",
    "test": "def check(candidate):\n    assert candidate(3) == 1.5\n",
}


def _suite(name: str, published_as: str, row: dict[str, str], folder: Path) -> Suite:
    file = folder / "benchmarks" / f"HumanEval-{published_as}.jsonl.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(json.dumps(row).encode()))
    return make(name, Data(benchmarks=file.parent))


@pytest.fixture
def span(tmp_path: Path) -> Suite:
    return _suite("infill-random", "RandomSpanInfilling", ROW, tmp_path)


@pytest.fixture
def line(tmp_path: Path) -> Suite:
    return _suite("infill-single", "SingleLineInfilling", LINE, tmp_path)


# ---- the published files ----


@pytest.mark.parametrize("name", NAMES)
def test_what_stood_there_passes(name: str, pool: Pool, tmp_path: Path) -> None:
    rows = published.solved(published.suite(name, tasks=8), pool, tmp_path)
    assert not published.wrong(rows)
    assert all((row.scores["exact"], row.scores["similarity"]) == (1, 1) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_passes_where_nothing_was_needed(name: str, pool: Pool, tmp_path: Path) -> None:
    """As plain Python finds, without a sandbox: what is published can be trusted."""
    suite = published.suite(name, tasks=8)
    rows = published.empty(suite, pool, tmp_path)
    assert [row.scores["pass"] == 1 for row in rows] == [_runs_without(task) for task in suite.tasks]


def _runs_without(task: Task) -> bool:
    program = f"{task.prompt.prefix}{task.prompt.suffix}\n{task.checks['test']}\ncheck({task.checks['entry_point']})"
    try:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("name", "floor"), [("infill-single", 27), ("infill-random", 30), ("infill-light", 0)])
def test_all_that_stood_there_passes_and_the_floor_is_as_measured(
    name: str, floor: int, pool: Pool, tmp_path: Path
) -> None:
    """2.61 % of 1033, 1.83 % of 1640, none of 164."""
    suite = published.suite(name)
    assert not published.wrong(published.solved(suite, pool, tmp_path))
    assert published.passing(published.empty(suite, pool, tmp_path)) == floor


# ---- a hole ----


def test_a_hole_is_asked_for_with_what_is_around_it(span: Suite) -> None:
    (task,) = span.tasks
    assert (task.prompt.prefix, task.prompt.suffix) == (PREFIX, " // 2\n")
    assert task.slices == {"language": "Python", "span": "random span", "lines": "1"}


def test_what_works_passes_whether_or_not_it_is_what_stood_there(span: Suite, pool: Pool, tmp_path: Path) -> None:
    other = published.answered(span, "return int(n)", pool, tmp_path / "other").scores
    assert other == {"pass": 1, "exact": 0, "similarity": pytest.approx(1 - 5 / 13)}  # int( and )
    wrong = published.answered(span, "return 2 * n", pool, tmp_path / "wrong")
    assert (wrong.scores["pass"], wrong.reason) == (0, "assertion")


def test_a_span_is_scored_as_it_is(span: Suite, pool: Pool, tmp_path: Path) -> None:
    row = published.answered(span, "return n\n", pool, tmp_path / "rows")
    assert (row.completion, row.scores["pass"]) == ("return n\n", 0)


def test_tests_use_the_programs_other_functions_as_published(span: Suite, pool: Pool, tmp_path: Path) -> None:
    """A candidate that makes double(3) be 3 would pass if the tests called its own."""
    written = "return (n if n > 2 else 1)\n\n\ndef double(n):\n    return n\n\n\nhalves = 1"
    row = published.answered(span, written, pool, tmp_path / "rows")
    assert (row.scores["pass"], row.reason) == (0, "assertion")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("    rest = n % 2\n", "    rest = n % 2\n"),
        ("    rest = n % 2", "    rest = n % 2\n"),
        ("    rest = n % 2\n    rest = 7\n", "    rest = n % 2\n"),
        ("\n    rest = n % 2\n", ""),
        ("", ""),
    ],
)
def test_a_missing_line_is_filled_by_one_line(written: str, kept: str, line: Suite, pool: Pool, tmp_path: Path) -> None:
    row = published.answered(line, written, pool, tmp_path / "rows")
    assert row.completion == kept
    assert row.scores["pass"] == float("rest" in kept)


def test_missing_lines_are_ended_and_left_as_they_are_otherwise(pool: Pool, tmp_path: Path) -> None:
    suite = _suite("infill-multi", "MultiLineInfilling", LINE, tmp_path)
    written = "    rest = 0\n    rest += n % 2"
    row = published.answered(suite, written, pool, tmp_path / "rows")
    assert (row.completion, row.scores["pass"]) == (f"{written}\n", 1)


@pytest.mark.parametrize(("lines", "told"), [(1, "1"), (2, "2 to 4"), (4, "2 to 4"), (5, "5 to 9"), (10, "10 or more")])
def test_tables_are_cut_by_how_many_lines_are_missing(lines: int, told: str, tmp_path: Path) -> None:
    row = LINE | {"canonical_solution": "    rest = n % 2\n" * lines}
    assert _suite("infill-multi", "MultiLineInfilling", row, tmp_path).tasks[0].slices["lines"] == told
