"""MultiPL-E and HumanEval-X: right programs pass, wrong ones do not, and what cannot be run counts neither way."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from codelm import sandbox_languages
from codelm.errors import UserError
from codelm.languages import known_language
from codelm.sandbox import Pool
from experiments.evals.catalogue import Data, make
from experiments.evals.other_languages import CLOSED
from experiments.evals.suite import Prompt, Suite, Task
from tests.experiments.evals import published
from tests.experiments.evals.fakes import Says

# By MultiPL-E's name of the language: prompt, tests, stop tokens; right, wrong, not to be compiled, leaving early.
JAVA = "import java.util.*;\nimport org.javatuples.*;\nclass Problem {\n    // Twice as much.\n"
MULTIPL_E: dict[str, tuple[str, str, list[str], str, str, str, str]] = {
    "cpp": (
        "#include<assert.h>\n// Twice as much.\nlong twice(long n) {\n",
        "}\nint main() {\n    auto candidate = twice;\n    assert(candidate((3)) == (6));\n}\n",
        ["\n}"],
        "    return 2 * n;\n}\nlong more() {",
        "    return n;",
        "    return",
        "    exit(0);",
    ),
    "java": (
        f"{JAVA}    public static long twice(long n) {{\n",
        "    }\n    public static void main(String[] args) {\n    assert(twice((3l)) == (6l));\n    }\n\n}\n",
        ["\n    }\n"],
        "        return 2 * n;\n    }\n    public static long more() {",
        "        return n;",
        "        return",
        "        System.exit(0); return 0;",
    ),
    "js": (
        "//Twice as much.\nfunction twice(n){\n",
        "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = twice;\n"
        "  assert.deepEqual(candidate(3),6);\n}\n\ntest();",
        ["\nfunction ", "\n/*", "\n//", "\nconsole.log"],
        "  return 2 * n;\n}\nfunction more() {",
        "  return n;\n}",
        "  return",
        "  process.exit(0);\n}",
    ),
    "sh": (
        "#!/bin/bash\n# Twice as much.\n#\n# $1 is an integer\ntwice() {\n",
        '}\n\ncandidate() {\n    twice "$@"\n}\n\nset -e\n'
        'run_test() {\n    [[ $(candidate "3") = "6" ]]\n}\n\nrun_test',
        ["\n}"],
        "    echo $((2 * $1))\n}\nmore() {",
        "    echo $1",
        "    if",
        "    :; }; exit 0\n{",
    ),
    "rs": (
        "/// Twice as much.\nfn twice(n: isize) -> isize {\n",
        "}\n\nfn main() {\n    let candidate = twice;\n    assert_eq!(candidate(3), 6);\n}\n",
        ["\n}"],
        "    2 * n\n}\nfn more() {",
        "    n",
        "    2 *",
        "    std::process::exit(0)",
    ),
}
COMPILED = ("cpp", "java", "rs")
HUMANEVAL_X: dict[str, tuple[str, str, str, str]] = {
    "CPP": (
        "/*\nTwice as much.\n*/\n#include<vector>\nusing namespace std;\nint twice(int n){\n",
        "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (twice(3) == 6);\n    \n}\n",
        "    return 2 * n;\n}",
        "    return n;\n}",
    ),
    "Java": (
        "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n    /**\n    Twice as much. }\n     */\n"
        "    public int twice(int n) {\n",
        "public class Main {\n    public static void main(String[] args) {\n        Solution s = new Solution();\n"
        "        List<Boolean> correct = Arrays.asList(s.twice(3) == 6);\n        if (correct.contains(false)) {\n"
        "            throw new AssertionError();\n        }\n    }\n}\n",
        "        return 2 * n;\n    }\n}",
        "        return n;\n    }\n}",
    ),
    "JavaScript": (
        "/* Twice as much. */\nconst twice = (n) => {\n",
        "const testTwice = () => {\n  console.assert(twice(3) === 6)\n}\n\ntestTwice()\n",
        "  return 2 * n;\n}",
        "  return n;\n}",
    ),
}


def _suite(name: str, row: dict[str, Any], folder: Path) -> Suite:
    file = folder / "tests-of-one.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return make(f"{name}:{file}", Data())


def _multipl_e(language: str, folder: Path, **changes: str) -> Suite:
    prompt, tests, stop = MULTIPL_E.get(language, MULTIPL_E["js"])[:3]
    row = {"name": "HumanEval_0_twice", "language": language, "prompt": prompt, "tests": tests, "stop_tokens": stop}
    return _suite("multipl-e", row | changes, folder)


def _humaneval_x(language: str, folder: Path) -> Suite:
    prompt, test, right, _ = HUMANEVAL_X[language]
    row = {"task_id": f"{language}/0", "prompt": prompt, "test": test, "canonical_solution": right}
    return _suite("humaneval-x", row, folder)


def _skip_without(language: str) -> None:
    if missing := sandbox_languages.missing(known_language(language) or {"sh": "Shell", "rs": "Rust"}[language]):
        pytest.skip(missing)


@pytest.mark.parametrize("language", MULTIPL_E)
def test_multipl_e_passes_what_is_right_only(language: str, pool: Pool, tmp_path: Path) -> None:
    _skip_without(language)
    suite = _multipl_e(language, tmp_path)
    right, wrong, broken, leaving = MULTIPL_E[language][3:]
    row = published.answered(suite, right, pool, tmp_path / "right")
    assert (row.scores["pass"], row.reason) == (1, "")
    assert "more" not in row.completion
    assert published.answered(suite, wrong, pool, tmp_path / "wrong").reason in ("error", "crash")
    syntax = "syntax" if language in COMPILED else "error"
    assert published.answered(suite, broken, pool, tmp_path / "broken").reason == syntax
    assert published.answered(suite, leaving, pool, tmp_path / "leaving").reason == "checks"


@pytest.mark.parametrize("language", HUMANEVAL_X)
def test_humaneval_x_passes_what_is_right_only(language: str, pool: Pool, tmp_path: Path) -> None:
    _skip_without(language)
    suite = _humaneval_x(language, tmp_path)
    *_, right, wrong = HUMANEVAL_X[language]
    assert not published.wrong(published.solved(suite, pool, tmp_path))
    row = published.answered(suite, f"{right}\n\nint main() {{ exit(0); }}", pool, tmp_path / "more")
    assert (row.completion, row.scores["pass"]) == (right, 1)
    assert published.answered(suite, wrong, pool, tmp_path / "wrong").scores["pass"] == 0


@pytest.mark.parametrize(("language", "named"), [("go_test.go", "go"), ("rkt", "Racket"), ("klingon", "klingon")])
def test_a_language_that_cannot_be_run_counts_neither_way_and_costs_no_answer(
    language: str, named: str, pool: Pool, tmp_path: Path
) -> None:
    suite, model = _multipl_e(language, tmp_path), Says(lambda prompt, _: "never")
    (row,) = published.measured(suite, model, pool, tmp_path / "rows")
    assert row.reason.startswith("not run: ")
    assert re.search(rf"\b{named}\b", row.reason, re.IGNORECASE)
    assert not row.counts
    assert not model.asked


def test_java_that_needs_tuples_is_not_run(pool: Pool, tmp_path: Path) -> None:
    prompt = f"{JAVA}    public static Pair<Long, Long> twice(long n) {{\n"
    suite = _multipl_e("java", tmp_path, prompt=prompt)
    row = published.answered(suite, "        return Pair.with(n, n);", pool, tmp_path / "rows")
    assert row.reason.startswith("not run: ")


@pytest.mark.parametrize("name", ["multipl-e", "humaneval-x"])
def test_a_file_has_to_be_given(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is a file for each language: give one as {name}:FILE"):
        make(name, Data())


def test_a_suite_is_named_by_its_file_and_says_what_its_tests_share(tmp_path: Path) -> None:
    suite = _multipl_e("sh", tmp_path)
    assert suite.name == "multipl-e-tests-of-one"
    assert suite.about == "MultiPL-E, Shell: tests share a process with what they test"
    assert suite.tasks[0].slices == {"language": "Shell"}
    assert suite.stop == ("\n}",)


@pytest.mark.parametrize(
    ("prompt", "written", "kept"),
    [
        ("int f() {\n", "  return 1;\n}\nint main() {}", "  return 1;\n}"),
        ("class A {\n  int f() {\n", "    if (b) { c(); }\n  }\n  int g() {}\n}", "    if (b) { c(); }\n  }\n}"),
        ("class A {\n  int f() {\n", "    c();\n  }", "    c();\n  }\n}"),
        ("f = () => {\n", "  return \"}\" + `}${1}` + '}';  // }\n}; more", "  return \"}\" + `}${1}` + '}';  // }\n}"),
        ("/* { */ int f() { // {\n", "  /* } */ return '\\'' + 1; }}", "  /* } */ return '\\'' + 1; }"),
        ("int f() {\n", "  return 1;\n", "  return 1;\n"),
        ("int f()\n", "{ return 1; }\nint g() {}", "{ return 1; }"),
        ("int f() {\n", "", ""),
    ],
)
def test_a_function_ends_with_its_brace(prompt: str, written: str, kept: str) -> None:
    assert CLOSED.apply(Task("", Prompt(prompt)), written) == kept
