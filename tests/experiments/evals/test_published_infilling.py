"""SAFIM, CrossCodeEval and RepoBench in their published layouts: what is asked, where an answer ends, what is right."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codelm import sandbox_languages
from codelm.errors import UserError
from codelm.sandbox import Pool
from experiments.evals import harness
from experiments.evals.catalogue import Data, make
from experiments.evals.rows import Row
from experiments.evals.suite import Suite
from tests.experiments.evals.fakes import Says

SUM = {
    "task_id": "block_completion_000001",
    "lang": "python",
    "prompt": "n = int(input())\nfor _ in range(n):\n    # TODO: Your code here\nprint('done')\n",
    "eval_prompt": "n = int(input())\nfor _ in range(n):\n    {{completion}}\nprint('done')\n",
    "ground_truth": "a, b = map(int, input().split())\n    print(a + b)",
    "unit_tests": json.dumps(
        [{"input": "1\n20 22\n", "output": ["42\ndone", "forty-two"]}, {"input": "0\n", "output": ["done"]}]
    ),
}
CONDITION = SUM | {
    "task_id": "control_completion_000002",
    "prompt": "x = float(input())\nif # TODO: Your code here\n    print('YES', x / 3)\n",
    "eval_prompt": "x = float(input())\nif {{completion}}\n    print('YES', x / 3)\n",
    "ground_truth": "x > 0:",
    "unit_tests": [{"input": "1", "output": ["yes 0.33333333333333333333"]}],
}
LOOP = {
    "task_id": "control_completion_000003",
    "lang": "cpp",
    "prompt": "#include <iostream>\nint main() { int n; std::cin >> n; int s = 0;\n"
    "  for (/* TODO: Your code here */) { s += i; }\n  std::cout << s; }\n",
    "eval_prompt": "#include <iostream>\nint main() { int n; std::cin >> n; int s = 0;\n"
    "  for ({{completion}}) { s += i; }\n  std::cout << s; }\n",
    "ground_truth": "int i = 1; i <= n; i++",
    "unit_tests": [{"input": "4", "output": ["10"]}],
}
CALL = {
    "task_id": "api_completion_000004",
    "lang": "java",
    "prompt": "Reader r = /* TODO: Your code here */;\nr.close();\n",
    "eval_prompt": "Reader r = {{completion}};\nr.close();\n",
    "ground_truth": 'new Reader(path, "r")',
    "unit_tests": "",
}
USES = {
    "prompt": "import store\n\n\ndef total(path):\n    shelf = store.",
    "groundtruth": "open_shelf(path)  # may fail",
    "right_context": "\n    return shelf.total()\n",
    "metadata": {"task_id": "project_cc_python/1", "repository": "ann-tool", "file": "tool/total.py"},
    "crossfile_context": {
        "text": "# what is most alike\n",
        "list": [
            {"retrieved_chunk": "def open_shelf(path): ...", "filename": "tool/store.py", "score": 0.9},
            {"retrieved_chunk": "def close_shelf(path): ...", "filename": "tool/old.py", "score": 0.2},
        ],
    },
}
NEXT = {
    "repo_name": "ann/tool",
    "file_path": "src/Total.java",
    "context": [{"identifier": "Shelf", "path": "src/Shelf.java", "snippet": "class Shelf { }"}],
    "import_statement": "import a.Shelf;",
    "cropped_code": "class Total {\n  int of(Shelf shelf) {",
    "all_code": "…",
    "next_line": "    return shelf.total();",
    "gold_snippet_index": 0,
    "level": "2k",
}


def suite(name: str, rows: Sequence[dict[str, Any]], folder: Path) -> Suite:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make(f"{name}:{path}", Data())


def answered(made: Suite, answer: str, folder: Path, pool: Pool | None = None) -> Row:
    """The one task of a suite with this answer."""
    said = Says(lambda prompt, decoding: answer)
    (row,) = harness.measure(made, said, harness.Settings(), folder / "measured", pool).rows
    return row


def refused(name: str, rows: Sequence[dict[str, Any]], folder: Path) -> str:
    with pytest.raises(UserError) as error:
        suite(name, rows, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- SAFIM ----


@pytest.mark.parametrize("row", [SUM, CONDITION, LOOP])
def test_what_was_there_passes_and_gives_the_outputs(row: dict[str, Any], pool: Pool, tmp_path: Path) -> None:
    made = suite("safim", [row], tmp_path)
    assert answered(made, row["ground_truth"], tmp_path, pool).scores == {"pass": 1, "exact": 1, "similarity": 1}
    other = replace(made, tasks=[replace(made.tasks[0], reference="")])  # so that it is run as any other answer is
    assert answered(other, row["ground_truth"], tmp_path / "run", pool).scores["pass"] == 1


@pytest.mark.parametrize(
    ("row", "answer", "reason"),
    [
        (SUM, "print(sum(map(int, input().split())) - 1)", "output"),
        (SUM, "pass", "output"),
        (SUM, "", "error"),
        (SUM, "print(unknown)", "error"),
        (CONDITION, "x < 0:", "output"),
        (LOOP, "int i = 1; i < n; i++", "output"),
        (LOOP, "int i = nothing; i < n; i++", "syntax"),
    ],
)
def test_a_wrong_answer_fails_with_its_reason(
    row: dict[str, Any], answer: str, reason: str, pool: Pool, tmp_path: Path
) -> None:
    found = answered(suite("safim", [row], tmp_path), answer, tmp_path, pool)
    assert (found.scores["pass"], found.reason) == (0, reason)


def test_another_right_answer_passes_and_is_not_exact(pool: Pool, tmp_path: Path) -> None:
    answer = "print(sum(map(int, input().split())))\nprint('too far')"
    found = answered(suite("safim", [SUM], tmp_path), answer, tmp_path, pool)
    assert (found.scores["pass"], found.scores["exact"]) == (1, 0)
    assert found.completion == "print(sum(map(int, input().split())))\n", "what leaves the loop was cut off"


def test_programs_are_given_inputs_and_never_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    class Told:
        protections = ()

        def run(self, program: Any) -> Any:
            given.extend([*program.files.values(), str(program.commands), program.stdin])
            raise AssertionError("enough")

    made = suite("safim", [SUM], tmp_path)
    with pytest.raises(AssertionError, match="enough"):
        answered(made, "pass", tmp_path, Told())  # type: ignore[arg-type]
    assert "20 22" in "".join(given)
    assert "42" not in "".join(given)
    assert "forty" not in "".join(given)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [('new Reader(path, "r"); other(1)', 1), ('new  Reader(path,\n  "r")', 1), ('new Reader(path, "w")', 0)],
)
def test_a_call_has_to_be_the_same_but_for_white_space(answer: str, kept: int, tmp_path: Path) -> None:
    assert answered(suite("safim", [CALL], tmp_path), answer, tmp_path).scores["pass"] == kept


@pytest.mark.parametrize(
    ("row", "answer", "kept"),
    [
        (CONDITION, "\nx > 1:\n    print(2)\n", "x > 1:"),
        (LOOP, "int i = f(1); i; i++) { s; }", "int i = f(1); i; i++"),
        (SUM, "x = 1\n    y = 2\n  z = (", "x = 1\n    y = 2\n"),
        (
            SUM,
            "if x:\n        y = 2\n    else:\n        z = 3\nprint(7)\n",
            "if x:\n        y = 2\n    else:\n        z = 3\n",
        ),
    ],
)
def test_an_answer_ends_where_its_hole_does(row: dict[str, Any], answer: str, kept: str, tmp_path: Path) -> None:
    made = suite("safim", [row], tmp_path)
    assert made.postprocessing.apply(made.tasks[0], answer) == kept


def test_a_block_of_a_language_with_brackets_ends_with_them(tmp_path: Path) -> None:
    code = "class Main {\n  static int f(int n) {\n    %s\n  }\n}\n"
    row = SUM | {"lang": "java", "prompt": code % "/* TODO: Your code here */", "eval_prompt": code % "{{completion}}"}
    made = suite("safim", [row], tmp_path)
    answer = "int m = n;\n    return m;\n  }\n\n  // and\n"
    assert made.postprocessing.apply(made.tasks[0], answer) == "int m = n;\n    return m;\n"


def test_a_language_that_nothing_runs_is_not_run(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_languages, "toolchain", lambda language: None)
    monkeypatch.setattr(sandbox_languages, "missing", lambda language: "no g++ on PATH")
    found = answered(suite("safim", [LOOP], tmp_path), "int i = 1;;", tmp_path, pool)
    assert (found.reason, found.counts) == ("not run: no g++ on PATH", False)


def test_rows_of_another_layout_are_refused(tmp_path: Path) -> None:
    assert "line 1: no 'lang' in the row" in refused("safim", [{"task_id": "x"}], tmp_path)
    assert "task 1: not as SAFIM's" in refused("safim", [SUM | {"lang": "cobol"}], tmp_path)
    assert "task 1: not as SAFIM's" in refused("safim", [SUM | {"prompt": "no hole"}], tmp_path)
    assert "task 2: not as SAFIM's" in refused("safim", [CALL, SUM | {"unit_tests": '[{"inp'}], tmp_path)
    assert "or has no tests" in refused("safim", [SUM | {"unit_tests": "[]"}], tmp_path)
    with pytest.raises(UserError, match="safim:FILE"):
        make("safim", Data())


# ---- CrossCodeEval ----


def test_what_was_retrieved_comes_nearest_last(tmp_path: Path) -> None:
    made = suite(
        "crosscodeeval",
        [USES, USES | {"metadata": USES["metadata"] | {"task_id": "2"}, "crossfile_context": None}],
        tmp_path,
    )
    prompt = made.tasks[0].prompt
    assert [file.path for file in prompt.files] == ["tool/old.py", "tool/store.py"]
    assert (prompt.suffix, prompt.path, prompt.repository) == (USES["right_context"], "tool/total.py", "ann-tool")
    assert [task.slices for task in made.tasks] == [
        {"language": "Python", "has_context": "yes"},
        {"language": "Python", "has_context": "no"},
    ]


@pytest.mark.parametrize(
    ("answer", "exact", "found", "completion"),
    [
        ("open_shelf(path)", 1, 1, "open_shelf(path)"),
        ("open_shelf(\n  path)\n    x = 2", 0, 1, "open_shelf(\n  path)"),
        ("open_shelf(path)  # sure\n\n    return 1", 1, 1, "open_shelf(path)  # sure"),
        ("close(path)\n", 0, 0, "close(path)"),
    ],
)
def test_a_statement_counts_without_its_comment(
    answer: str, exact: int, found: int, completion: str, tmp_path: Path
) -> None:
    row = answered(suite("crosscodeeval", [USES], tmp_path), answer, tmp_path)
    assert (row.scores["exact"], row.scores["identifiers"], row.completion) == (exact, found, completion)


def test_a_statement_of_other_languages_ends_with_its_mark(tmp_path: Path) -> None:
    about = USES["metadata"] | {"file": "src/total.ts"}
    made = suite("crosscodeeval", [USES | {"metadata": about, "groundtruth": "open(path);"}], tmp_path)
    assert answered(made, "open(path); close(path);", tmp_path).scores["exact"] == 1


# ---- RepoBench ----


def test_a_next_line_is_asked_for_without_what_follows(tmp_path: Path) -> None:
    made = suite("repobench", [NEXT], tmp_path)
    (task,) = made.tasks
    assert task.prompt.prefix == "import a.Shelf;\nclass Total {\n  int of(Shelf shelf) {\n"
    assert task.prompt.suffix is None
    assert [(file.path, file.text) for file in task.prompt.files] == [("src/Shelf.java", "class Shelf { }")]
    assert task.slices == {"language": "Java", "level": "2k"}


@pytest.mark.parametrize(
    ("answer", "exact"),
    [
        ("    return shelf.total();\n  }", 1),
        ("\n    // of all\n    /* that\n is there */\n  return  shelf.total();\n", 1),
        ("    return shelf.size();", 0),
    ],
)
def test_the_first_line_of_code_counts(answer: str, exact: int, tmp_path: Path) -> None:
    assert answered(suite("repobench", [NEXT], tmp_path), answer, tmp_path).scores["exact"] == exact


def test_parquet_is_read_as_lines_are(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([NEXT]), path)
    assert make(f"repobench:{path}", Data()).tasks == suite("repobench", [NEXT], tmp_path).tasks
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"rows\.parquet cannot be read"):
        make(f"repobench:{path}", Data())


@pytest.mark.parametrize(
    ("name", "row", "broken", "says"),
    [
        ("crosscodeeval", USES, {"metadata": {}}, "task 1: not as those of crosscodeeval are"),
        ("crosscodeeval", USES, {"metadata": None}, "task 1: not as those of crosscodeeval are"),
        ("repobench", NEXT, {"context": [{}]}, "task 1: not as those of repobench are"),
        ("repobench", NEXT, {"context": "text"}, "task 1: not as those of repobench are"),
    ],
)
def test_a_row_that_lacks_something_inside_is_refused(
    name: str, row: dict[str, Any], broken: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert says in refused(name, [row | broken], tmp_path)


@pytest.mark.parametrize("name", ["crosscodeeval", "repobench"])
def test_files_that_are_missing_cut_short_or_of_another_layout_are_refused(name: str, tmp_path: Path) -> None:
    assert "in the row: not the file that this suite reads" in refused(name, [{"task_id": 1}], tmp_path)
    with pytest.raises(UserError, match="no file of tasks"):
        make(f"{name}:{tmp_path / 'nowhere.jsonl'}", Data())
    (tmp_path / "cut.jsonl").write_text(json.dumps(USES)[:100])
    with pytest.raises(UserError, match="line 1: not JSON"):
        make(f"{name}:{tmp_path / 'cut.jsonl'}", Data())
