"""Every row of a benchmark is read, whatever its layout, or said not to be."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from codelm.errors import UserError
from data import benchmarks
from data.benchmarks import Problem
from tests.conftest import ROOT

SHARED = Path(os.environ.get("CODELM_BENCHMARKS") or ROOT.parent / "shared" / "benchmarks")


def write(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {
                "task_id": "T/1",
                "prompt": "def f(x):\n",
                "canonical_solution": "    return x\n",
                "entry_point": "f",
                "test": "check(f)",
            },
            Problem("made", "T/1", "def f(x):\n    return x\n", "def f(x):\n", "    return x\n", "check(f)"),
        ),
        (
            {
                "task_id": "T/2",
                "prompt": "def f(x):\n    re",
                "canonical_solution": "turn",
                "suffix": " x\n",
                "test": "t",
            },
            Problem("made", "T/2", "def f(x):\n    return x\n", "def f(x):\n    re", tests="t"),
        ),
        (
            {
                "text": "Write f.",
                "code": "def f(): pass",
                "task_id": 7,
                "test_setup_code": "import x",
                "test_list": ["assert f()", "assert not f()"],
                "challenge_test_list": ["assert 1"],
            },
            Problem(
                "made",
                "7",
                "def f(): pass",
                "Write f.",
                "def f(): pass",
                "import x\nassert f()\nassert not f()\nassert 1",
            ),
        ),
        (
            {"prompt": "Write f.", "code": "def f(): pass", "task_id": 8, "test_list": [], "source_file": "a.ipynb"},
            Problem("made", "8", "def f(): pass", "Write f.", "def f(): pass", "", ("a.ipynb",)),
        ),
        (
            {"code": "def f(a): return a", "input": "[1]", "output": "[2]", "id": "sample_3"},
            Problem("made", "sample_3", "def f(a): return a", "", "def f(a): return a", "f([1]) == [2]"),
        ),
        (
            {"question": "Why?", "answers": [{"code": "int x;", "n": 3}, ["y", " "]], "hard": True},
            Problem("made", "rows.jsonl:1", other=("Why?", "int x;", "y")),
        ),
        (
            {"task_id": "T/3", "prompt": "p", "canonical_solution": "s", "declaration": "int f();"},
            Problem("made", "T/3", "ps", "p", "s", "", ("int f();",)),
        ),
    ],
    ids=["humaneval", "infilling", "mbpp", "mbpp sanitised", "cruxeval", "unknown", "more than the layout has"],
)
def test_a_row_by_its_layout(tmp_path: Path, row: dict, problem: Problem) -> None:
    write(tmp_path / "made" / "rows.jsonl", row)
    assert benchmarks.load(tmp_path) == [problem]


def test_every_file_below_the_folder_is_read_packed_or_not(tmp_path: Path) -> None:
    import pyarrow

    row = b'{"question": "?"}\n'
    (tmp_path / "plain.jsonl").write_bytes(row + b"\n" + row)  # the empty line is no row
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "packed.jsonl.gz").write_bytes(gzip.compress(row))
    (tmp_path / "a" / "b" / "deep.jsonl.zst").write_bytes(pyarrow.compress(row, "zstd", asbytes=True))
    (tmp_path / "a" / "LICENSE").write_text("not a benchmark")
    found = [(problem.benchmark, problem.name) for problem in benchmarks.load(str(tmp_path))]
    assert found == [
        ("a/b", "deep.jsonl.zst:1"),
        ("a", "packed.jsonl.gz:1"),
        ("plain", "plain.jsonl:1"),
        ("plain", "plain.jsonl:3"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"a": "b"}\n{"a": \n', "x.jsonl, line 2: not JSON"),
        ("x.jsonl", b'{"a": "b"}\n\n[1]\n', "x.jsonl, line 3: a list, not an object"),
        ("x.jsonl", b'{"a": 3, "b": [" "]}\n', "x.jsonl, line 1: no text in the row"),
        ("x.jsonl", b'{"task_id": "only a name"}\n', "x.jsonl, line 1: no text in the row"),
        ("x.jsonl", b'{"prompt": 3, "canonical_solution": "s"}\n', "x.jsonl, line 1: not what its layout should hold"),
        ("x.jsonl", b'{"code": "c", "test_list": ["t"]}\n', "x.jsonl, line 1: not what its layout should hold"),
        ("x.jsonl", b"\n", "no problems in"),
        ("x.jsonl", b'{"a": "b"}\n{"a": "\xff"}\n', "x.jsonl, after line"),
        ("x.jsonl.gz", b"not gzip", "x.jsonl.gz, after line 0: cannot be read"),
        ("x.jsonl.gz", gzip.compress(b'{"a": "b"}\n' * 9999)[:-9], "x.jsonl.gz, after line"),
        ("x.jsonl.zst", b"not zstd", "x.jsonl.zst, after line 0: cannot be read"),
        ("x.json", b"{}", "no benchmarks in"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        benchmarks.load(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_zstd_file_cut_short_is_an_error(tmp_path: Path) -> None:
    import pyarrow

    whole = pyarrow.compress(b'{"a": "b"}\n' * 9_999, "zstd", asbytes=True)
    (tmp_path / "x.jsonl.zst").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"x\.jsonl\.zst, after line"):
        benchmarks.load(tmp_path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of benchmarks at"):
        benchmarks.load(tmp_path / "nowhere")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no benchmarks at {SHARED}")
def test_the_real_ones_are_read_whole() -> None:
    problems = benchmarks.load(SHARED)
    counts = Counter(problem.benchmark for problem in problems)
    # As their README says: infilling is 1033 single lines, 1640 random spans and 164 light ones.
    expected = {
        "humaneval": 164,
        "humaneval-infilling": 1033 + 1640 + 164,
        "evalplus": 164,
        "mbpp": 974,
        "cruxeval": 800,
    }
    assert counts == expected
    assert all(problem.program and (problem.tests or problem.prompt) for problem in problems)
    assert len({(problem.benchmark, problem.name) for problem in problems}) == len(problems)
