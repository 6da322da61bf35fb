"""HumanEval, MBPP and CRUXEval: what solves them passes, nothing else does, and what is asked and scored is as said."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from codelm.errors import UserError
from codelm.sandbox import Limits, Pool
from experiments.evals import benchmarks
from experiments.evals.catalogue import Data, make
from experiments.evals.mbpp import MBPP, PROGRAM, suite_of, task_of
from experiments.evals.suite import Prompt, Suite, Task
from tests.experiments.evals import published

NAMES = ("humaneval", "humaneval-plus", "mbpp", "cruxeval-output", "cruxeval-input")
NOTHING = Task("", Prompt(""))
SUM = {
    "task_id": 11,
    "text": "Write a function to add two numbers.",
    "code": "import math\r\ndef add(a, b):\r\n    return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(0.5, 1) == math.sqrt(2.25)"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
TREE = SUM | {
    "code": "class Node:\n    def __init__(self, value):\n        self.value, self.left = value, None\n\n"
    "def deep(node):\n    return 1 + deep(node.left) if node else 0",
    "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)",
    "test_list": ["assert deep(root) == 2", "assert deep(root.left) == 1"],
}
CALLED = {"id": "sample_0", "code": "def f(text, n):\n    return text * n", "input": "'ab', 2", "output": "'abab'"}


def _written(folder: Path, name: str, *rows: dict[str, Any]) -> Data:
    file = folder / "benchmarks" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return Data(benchmarks=folder / "benchmarks")


def _mbpp(row: dict[str, Any], tmp_path: Path) -> Suite:
    return make("mbpp", _written(tmp_path, "mbpp.jsonl", row))


def _cruxeval(name: str, tmp_path: Path, **changes: str) -> Suite:
    return make(name, _written(tmp_path, "cruxeval.jsonl", CALLED | changes))


# ---- the published files ----


@pytest.mark.parametrize("name", NAMES)
def test_what_solves_a_task_passes_and_nothing_at_all_does_not(name: str, pool: Pool, tmp_path: Path) -> None:
    suite = published.suite(name, tasks=4 if name == "humaneval-plus" else 8)
    assert not published.wrong(published.solved(suite, pool, tmp_path))
    assert not published.passing(published.empty(suite, pool, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "floor"), [*zip(NAMES, (0, 0, 0, 0, 1), strict=True)])
def test_all_solutions_pass_and_the_floor_is_known(name: str, floor: int, pool: Pool, tmp_path: Path) -> None:
    """One function of CRUXEval takes nothing, so that nothing is its input."""
    suite = published.suite(name)
    assert not published.wrong(published.solved(suite, pool, tmp_path))
    assert published.passing(published.empty(suite, pool, tmp_path)) == floor


@pytest.mark.slow
def test_all_of_mbpp_can_be_solved_the_parts_that_are_not_measured_too(pool: Pool, tmp_path: Path) -> None:
    read = benchmarks.read(MBPP, published.folder())
    whole = suite_of("mbpp, all", "", [task_of(row) for row in read.rows], read.sha256, Limits(seconds=60))
    assert (len(whole.tasks), len(published.suite("mbpp").tasks)) == (974, 500)
    assert not published.wrong(published.solved(whole, pool, tmp_path))


# ---- MBPP ----


def test_mbpp_is_asked_for_with_its_first_test_only(tmp_path: Path) -> None:
    (task,) = _mbpp(SUM, tmp_path).tasks
    assert task.prompt.prefix == '"""\nWrite a function to add two numbers.\nassert add(1, 2) == 3\n"""\n'
    assert task.prompt.suffix is None


def test_mbpp_is_the_test_split(tmp_path: Path) -> None:
    data = _written(tmp_path, "mbpp.jsonl", *(SUM | {"task_id": number} for number in (10, 11, 510, 511)))
    assert [task.id for task in make("mbpp", data).tasks] == ["MBPP/11", "MBPP/510"]


def test_every_test_counts_and_may_use_what_the_solution_imports(pool: Pool, tmp_path: Path) -> None:
    suite = _mbpp(SUM, tmp_path)
    assert published.answered(suite, "def add(a, b):\n    return a + b", pool, tmp_path / "right").scores["pass"] == 1
    only_first = published.answered(suite, "def add(a, b):\n    return 3", pool, tmp_path / "wrong")
    assert (only_first.scores["pass"], only_first.reason) == (0, "assertion")


def test_tests_may_build_what_the_candidate_defines(pool: Pool, tmp_path: Path) -> None:
    suite = _mbpp(TREE, tmp_path)
    assert published.answered(suite, TREE["code"], pool, tmp_path / "right").scores["pass"] == 1
    assert published.answered(suite, TREE["code"].replace("1 +", "2 +"), pool, tmp_path / "wrong").scores["pass"] == 0
    without = published.answered(suite, "def deep(node):\n    return 2", pool, tmp_path / "without")
    assert without.scores["pass"] == 0


def test_the_solution_is_nowhere_for_a_candidate_to_be_mistaken_for(pool: Pool, tmp_path: Path) -> None:
    row = published.answered(_mbpp(SUM, tmp_path), "def other():\n    pass", pool, tmp_path / "rows")
    assert (row.scores["pass"], row.reason) == (0, "error")


def test_tests_that_call_nothing_of_the_solution_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="MBPP 11: its tests call nothing that its solution defines"):
        _mbpp(SUM | {"test_list": ["assert plus(1, 2) == 3"]}, tmp_path)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("def f():\n    return 1\n\nassert f() == 1\n", "def f():\n    return 1\n"),
        ("def f():\n    print(1)\n    assert True\nprint(f())", "def f():\n    print(1)\n    assert True"),
        ('import re\n\nclass A:\n    """One."""\n\n"""\nNext task\n"""', 'import re\n\nclass A:\n    """One."""\n'),
        ("def f(): ...\ndef g(): ...", "def f(): ...\ndef g(): ..."),
        ("printable = 1\nassertion = 2", "printable = 1\nassertion = 2"),
        ("", ""),
    ],
)
def test_a_program_ends_where_tests_or_another_task_begin(written: str, kept: str) -> None:
    assert PROGRAM.apply(NOTHING, written) == kept


def test_mbpp_plus_runs_the_tests_of_evalplus(pool: Pool, tmp_path: Path) -> None:
    row = {
        "task_id": 2,
        "prompt": "Write a function to add two numbers.",
        "code": SUM["code"],
        "test_imports": ["from math import inf"],
        "test_list": SUM["test_list"][:1],
        "test": "import numpy as np\n\ndef assertion(out, exp, atol):\n    assert np.allclose(out, exp, atol=atol)\n\n"
        "inputs = [[1, 2], [1, inf]]\nresults = [3, inf]\n"
        "for inp, exp in zip(inputs, results):\n    assertion(add(*inp), exp, 0)\n",
    }
    suite = make("mbpp-plus", _written(tmp_path, "MbppPlus-OriginFmt.jsonl.gz", row))
    assert published.answered(suite, "def add(a, b):\n    return a + b", pool, tmp_path / "right").scores["pass"] == 1
    assert published.answered(suite, "def add(a, b):\n    return 3", pool, tmp_path / "wrong").scores["pass"] == 0


# ---- CRUXEval ----


def test_an_assert_is_begun_and_what_is_missing_comes_last(tmp_path: Path) -> None:
    (output,), (of_input,) = (_cruxeval(f"cruxeval-{what}", tmp_path).tasks for what in ("output", "input"))
    assert output.prompt.prefix.endswith("\n\ndef f(text, n):\n    return text * n\nassert f('ab', 2) ==")
    assert of_input.prompt.prefix.endswith("\n\ndef f(text, n):\n    return text * n\nassert 'abab' == f(")


@pytest.mark.parametrize("task", ["output", "input"])
def test_the_examples_hold(task: str, tmp_path: Path) -> None:
    """Each is a function and an assert, so they can be run as they stand."""
    prompt = _cruxeval(f"cruxeval-{task}", tmp_path).tasks[0].prompt.prefix
    examples = prompt[: prompt.index("def f(text, n)")]
    assert examples.count("assert") == 2
    exec(examples, {})


@pytest.mark.parametrize(
    ("written", "right"),
    [
        (" 'abab'\n\ndef f(n):", True),
        (" 'ab' + 'ab'  # twice", True),
        (" 'aba'", False),
        (" f('ab', 2)", False),
        (" type('Equal', (str,), {'__eq__': lambda *_: True})()", False),
        (" lambda: 'abab'", False),
        (" 'abab') or (1", False),
        (" 'abab", False),
    ],
)
def test_an_output_is_right_if_it_is_equal(written: str, right: bool, pool: Pool, tmp_path: Path) -> None:
    row = published.answered(_cruxeval("cruxeval-output", tmp_path), written, pool, tmp_path / "rows")
    assert row.scores["pass"] == right


@pytest.mark.parametrize(
    ("written", "kept", "right"),
    [
        ("'ab', 2)", "'ab', 2", True),
        ("'a(b'.replace('(', ''), 2)  # (", "'a(b'.replace('(', ''), 2", True),
        ("*('ab', 2)) and more", "*('ab', 2)", True),
        ("n=4, **{'text': 'ab'[:0] + 'ab'}", "n=4, **{'text': 'ab'[:0] + 'ab'}", False),
        ("n=1, text='abab')", "n=1, text='abab'", True),
        ("'ab', 3)", "'ab', 3", False),
        ("'ab', 3) == 'ababab' or f('ab', 2)", "'ab', 3", False),
        ("type('Equal', (str,), {'__mul__': lambda *_: 'abab'})(), 2)", None, False),
        ("'ab', 2", "'ab', 2", True),
        ("'ab'", "'ab'", False),
        ("'ab', (2", "'ab', (2", False),
    ],
)
def test_an_input_is_right_if_it_gives_the_output(
    written: str, kept: str | None, right: bool, pool: Pool, tmp_path: Path
) -> None:
    row = published.answered(_cruxeval("cruxeval-input", tmp_path), written, pool, tmp_path / "rows")
    assert kept is None or row.completion == kept
    assert row.scores["pass"] == right


def test_an_input_may_be_a_function_or_of_the_programs_variables(pool: Pool, tmp_path: Path) -> None:
    code = "few = [1, 2, 3]\ndef f(numbers, verdict):\n    return [n for n in numbers if verdict(n)]"
    suite = _cruxeval("cruxeval-input", tmp_path, code=code, input="few[1:], lambda n: n < 3", output="[2]")
    assert published.answered(suite, "few[1:], lambda n: n < 3)", pool, tmp_path / "right").scores["pass"] == 1
    assert published.answered(suite, "few, lambda n: n < 3)", pool, tmp_path / "wrong").scores["pass"] == 0


def test_the_function_that_is_measured_is_out_of_reach_of_what_is_given_to_it(pool: Pool, tmp_path: Path) -> None:
    written = "exec('global f\\ndef f(*_): return \"abab\"') or 'a', 1)"
    assert (
        published.answered(_cruxeval("cruxeval-input", tmp_path), written, pool, tmp_path / "rows").scores["pass"] == 0
    )
