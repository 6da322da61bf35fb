"""Unit tests of a repository in the sandbox, against what pytest says of the same files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codelm.sandbox import Pool
from data.document import Document
from experiments.evals import file_checks, unit_tests
from experiments.evals.unit_tests import Repository, UnitTest

BODY = "return first + second"
SUMS = f'''"""Sums."""
LIMIT = 100


class Counter:
    def __init__(self, start=0):
        self.total = start

    def add(self, number):
        self.total = add(self.total, number)
        return self.total


def add(first, second):
    if first is None:
        raise ValueError("nothing")
    {BODY}


def unused(x):
    return x
'''
BY_PYTEST = """
import math
import pytest
from calc.sums import Counter, add as plus, LIMIT
from calc import sums

CASES = [(1, 2, 3), (0, 0, 0), ("a", "b", "ab")]


def doubled(x):
    return plus(x, x)


def test_plain():
    assert plus(1, 2) == 3


@pytest.mark.parametrize(("first", "second", "whole"), CASES)
def test_cases(first, second, whole):
    assert sums.add(first, second) == whole


@pytest.mark.parametrize("x", [1, 2])
@pytest.mark.parametrize("y", [10, 20])
def test_all(x, y):
    assert plus(x, y) == x + y < LIMIT


def test_helper():
    assert doubled(math.floor(2.5)) == 4


def test_raises():
    with pytest.raises(ValueError):
        plus(None, 1)


class TestCounter:
    def test_counts(self):
        counter = Counter(5)
        counter.add(2)
        assert counter.add(3) == counter.total == 10


def test_fixture(tmp_path):
    assert plus(1, 1) == 2


def test_hidden():
    sums = 3
    assert plus(1, sums) == 4


def test_other():
    assert math.floor(1.5) == 1
"""
BY_UNITTEST = """
import unittest
from .sums import add


class Sums(unittest.TestCase):
    def test_methods(self):
        self.assertEqual(add(1, 2), 3, "why")
        self.assertTrue(add(1, 2) == 3)
        self.assertFalse(add(1, 2) == 4)
        self.assertIn(add(1, 2), [3])
        self.assertIsNotNone(add(0, 0))
        self.assertLess(add(1, 1), 3)

    def test_raises(self):
        with self.assertRaises(ValueError):
            add(None, 1)

    def test_own_state(self):
        self.kept = add(1, 2)
        self.assertEqual(self.kept, 3)

    def test_unknown(self):
        self.assertCountEqual([add(1, 2)], [3])
"""
FILES = {
    "calc/__init__.py": "",
    "calc/sums.py": SUMS,
    "tests/test_sums.py": BY_PYTEST,
    "calc/sums_test.py": BY_UNITTEST,
}
NAMES = {
    *("test_plain", "test_cases", "test_all", "test_helper", "test_raises", "test_counts"),
    "test_methods",
}


def repository(files: dict[str, str]) -> Repository:
    return Repository([Document(text, path, "r", "Python", "MIT", "") for path, text in files.items()])


def in_use(files: dict[str, str]) -> dict[str, list[UnitTest]]:
    """By what the function or class begins with."""
    found = repository(files).tested(list(files).index("calc/sums.py"))
    return {SUMS[span[0] : span[1]].split("(")[0].split(":")[0]: tests for span, tests in found}


@pytest.fixture(scope="module")
def tests(pool: Pool) -> list[UnitTest]:
    """All that hold in the file as it is."""
    found = {(test.path, test.name): test for some in in_use(FILES).values() for test in some}
    return [test for test in found.values() if not unit_tests.run(pool, SUMS, "", "", [test])]


def test_tests_are_found_by_what_they_use_and_those_that_cannot_be_run_fall_out(tests: list[UnitTest]) -> None:
    assert in_use(FILES).keys() == {"class Counter", "def add"}
    assert {test.name for test in in_use(FILES)["class Counter"]} == {"test_counts"}
    assert {test.name for test in tests} == NAMES
    assert [test.path for test in tests if test.name == "test_raises"] == ["tests/test_sums.py", "calc/sums_test.py"]


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        "return second + first",
        "return first - second",
        "return 3",
        "return first + second if first else second",
        'raise ValueError("no")',
        "return float(first) + second if isinstance(first, int) else first + second",
        "return None",
        "return type('Equal', (), {'__eq__': lambda a, b: True})()",
    ],
)
def test_a_test_holds_where_pytest_says_so(body: str, tests: list[UnitTest], pool: Pool, tmp_path: Path) -> None:
    for path, text in {**FILES, "calc/sums.py": SUMS.replace(BODY, body)}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    command = [sys.executable, "-m", "pytest", "-rA", "--rootdir=.", "-p", "no:cacheprovider"]
    said = subprocess.run(
        [*command, "tests/test_sums.py", "calc/sums_test.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    failed = {line.split(" ")[1].split("[")[0] for line in said.stdout.splitlines() if line.startswith("FAILED ")}
    assert "passed" in said.stdout
    for test in tests:
        by_pytest = any(name.startswith(test.path) and name.endswith(f"::{test.name}") for name in failed)
        before, after = SUMS.split(BODY)
        ours = unit_tests.run(pool, before, body, after, [test])
        if "__eq__" in body:  # which fools pytest
            assert ours or "raises" in test.name
        else:
            assert bool(ours) == by_pytest, (test, ours)


def test_a_file_with_imports_of_its_own_or_none_that_uses_it_is_not_tested() -> None:
    assert in_use({**FILES, "calc/sums.py": "import numpy\n" + SUMS}) == {}
    assert in_use({"calc/sums.py": SUMS, "tests/test_other.py": "def test():\n    assert add(1, 1) == 2\n"}) == {}
    assert in_use({**FILES, "calc/sums.py": "def ("}) == {}
    assert in_use({"calc/sums.py": SUMS, "calc/sums_test.py": "def ("}) == {}


@pytest.mark.parametrize(
    "test",
    [
        "def test():\n    assert add(0, 0) == " + "0 + " * 3000 + "0",
        "@pytest.mark.parametrize(1, [2])\ndef test():\n    assert add(1, 1) == 2",
        "@pytest.mark.parametrize([1], [2])\ndef test():\n    assert add(1, 1) == 2",
        "@pytest.mark.parametrize({[]: 1}, [2])\ndef test():\n    assert add(1, 1) == 2",
        "@pytest.mark.parametrize(names(), [2])\ndef test(x):\n    assert add(1, x) == 3",
        "@fixture\ndef test():\n    assert add(1, 1) == 2",
        "def test(*, x=1):\n    assert add(1, x) == 2",
    ],
)
def test_what_cannot_be_made_a_test_is_none(test: str) -> None:
    assert in_use({"calc/sums.py": SUMS, "calc/sums_test.py": f"from .sums import add\n\n\n{test}\n"}) == {}


def test_holes_that_tests_exercise_are_covered_and_others_not(tests: list[UnitTest], pool: Pool) -> None:
    def run(before: str, written: str, after: str) -> str:
        return unit_tests.run(pool, before, written, after, tests)

    def covers(part: str) -> bool:
        start = SUMS.index(part)
        return file_checks.covers(run, SUMS, (start, start + len(part)))

    assert file_checks.passes(run, SUMS)
    assert covers(BODY)
    assert covers("add(self.total, number)")
    assert not covers("return x\n")
    assert not covers('"""Sums."""')
