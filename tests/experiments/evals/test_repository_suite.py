"""Suites of holes made out of small repositories: what is hidden, what is shown beside it, how answers are scored."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from codelm.cursor import window
from codelm.errors import UserError
from codelm.sandbox import Pool
from data import build as corpora
from experiments.evals import build_suite, harness, repository_documents, repository_rows
from experiments.evals.build_suite import Settings
from experiments.evals.build_suite_command import build_suite as command
from experiments.evals.catalogue import Data, make
from experiments.evals.repository_rows import Row
from experiments.evals.suite import Suite
from tests.data import building, made_corpus
from tests.data.test_sources_repositories import repository, write
from tests.experiments.evals.fakes import Says

STORE = '''"""Shelves of things."""

LIMIT = 12


class Shelf:
    def __init__(self, names):
        self.names = list(names)
        self.count = len(self.names)

    def put(self, name):
        if self.count < LIMIT:
            self.names.append(name)
            self.count += 1
        return self
'''
MAIN = '''"""Puts things on a shelf."""

import sys

from .store import LIMIT, Shelf


def fill(names):
    shelf = Shelf(names)
    for name in sys.argv[1:]:
        if name not in names:
            shelf.put(name).put(name.upper())
    return shelf


def room(shelf):
    left = LIMIT - shelf.count
    while left < 0:
        left = left + LIMIT
    return left
'''
SUMS = '''"""Sums."""

import math


def half(number):
    """Half of it, rounded down.

    >>> half(9)
    4
    >>> [half(n) for n in (2, 5)]
    [1, 2]
    """
    whole = math.floor(number / 2)
    return whole
'''
ROUNDING = '''"""Rounding."""


def nearest(value, step):
    """The multiple of a step that is nearest to a value."""
    count = round(value / step)
    return count * step
'''
TEST_ROUNDING = """from tool.rounding import nearest


def test_multiples():
    assert nearest(7, 5) == 5
    assert [nearest(value, 4) for value in (1, 3, 11)] == [0, 4, 12]
"""
SHELL = "total() {\n  count=0\n  for name in $names; do\n    count=$((count + 1))\n  done\n  echo $count\n}\n"
SCRIPT = "import {load} from './util.js';\n\nexport function main(path) {\n  return load(path, 12);\n}\n"
UTIL = "export function load(path, size) {\n  const text = read(path);\n  return text.slice(size);\n}\n"
FILES = {"LICENSE": made_corpus.MIT, "tool/__init__.py": "", "tool/main.py": MAIN, "tool/store.py": STORE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two repositories: one that git knows, and a folder."""
    repository(tmp_path / "all" / "tool", {**FILES, "tool/sums.py": SUMS}, "https://github.com/ann/tool")
    write(tmp_path / "all" / "web", {"main.js": SCRIPT, "util.js": UTIL, "run.sh": SHELL, "package.json": "{}"})
    return tmp_path / "all"


def rows_of(folder: Path, pool: Pool | None = None, **changes: object) -> list[Row]:
    return build_suite.build(repository_documents.read(folder), replace(Settings(), **changes), pool)  # type: ignore


def built(folder: Path, out: Path, *options: str) -> list[Row]:
    command([str(folder), str(out), *options], "codelm eval build-suite")
    return repository_rows.read(out).rows


def refused(*argv: str | Path) -> str:
    with pytest.raises(UserError) as error:
        command([str(one) for one in argv], "codelm eval build-suite")
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- what is hidden ----


def test_every_row_is_a_file_with_a_hole_of_its_kind(folder: Path) -> None:
    rows = rows_of(folder)
    texts = {"ann/tool": {**FILES, "tool/sums.py": SUMS}, "web": {"main.js": SCRIPT, "util.js": UTIL, "run.sh": SHELL}}
    for row in rows:
        assert row.prefix + row.middle + row.suffix == texts[row.repository][row.path]
    assert len({row.id for row in rows}) == len(rows)
    assert {(row.language, row.kind) for row in rows} >= {
        *(("Python", kind) for kind in ("line", "block", "function", "api")),
        *(("JavaScript", kind) for kind in ("line", "function", "api")),
        ("Shell", "line"),
    }


def test_the_same_files_and_seed_make_the_same_rows(folder: Path) -> None:
    assert rows_of(folder) == rows_of(folder)
    assert rows_of(folder) != rows_of(folder, seed=1)


def test_what_is_drawn_of_a_repository_does_not_depend_on_others(folder: Path, tmp_path: Path) -> None:
    alone = [row for row in rows_of(folder) if row.repository == "web"]
    write(folder / "more", {f"{n}.py": made_corpus.module(n) for n in range(3)})
    assert [row for row in rows_of(folder) if row.repository == "web"] == alone


def test_there_are_no_more_of_a_kind_than_asked_for_and_repositories_take_turns(tmp_path: Path) -> None:
    made_corpus.repositories(tmp_path / "all", count=4, files=5)
    rows = rows_of(tmp_path / "all", per_kind=4)
    for kind in ("line", "block", "function"):
        assert sorted(row.repository for row in rows if row.kind == kind) == ["repo00", "repo01", "repo02", "repo03"]


def test_only_so_many_files_of_a_repository_and_the_languages_asked_for_get_holes(folder: Path) -> None:
    rows = rows_of(folder, files=1)
    assert {row.repository: row.path for row in rows}.keys() == {"ann/tool", "web"}
    assert len({(row.repository, row.path) for row in rows}) == 2
    assert {row.language for row in rows_of(folder, languages=("Shell",))} == {"Shell"}


def test_two_copies_of_a_repository_are_one_and_a_name_that_is_no_text_is_written(folder: Path, tmp_path: Path) -> None:
    repository(folder / "again", {**FILES, "tool/more.py": MAIN}, "https://github.com/ann/tool")
    (folder / "web" / os.fsdecode(b"caf\xe9.js")).write_text(SCRIPT)
    rows = built(folder, tmp_path / "suite", "--no-execution")
    assert len({row.id for row in rows}) == len(rows)
    assert "caf?.js" in {row.path for row in rows}


# ---- what is beside it ----


def test_imported_files_come_last_and_near_ones_before_them(folder: Path) -> None:
    write(folder / "tool", {"far/away.py": "x = 1\n", "tool/near.py": "x = 1\n"})
    of_main = next(row for row in rows_of(folder) if row.path == "tool/main.py" and row.kind == "function")
    assert [path for path, _ in of_main.files] == ["far/away.py", "tool/sums.py", "tool/near.py", "tool/store.py"]
    assert dict(of_main.files)["tool/store.py"] == STORE
    of_script = next(row for row in rows_of(folder) if row.path == "main.js")
    assert [path for path, _ in of_script.files] == ["util.js"], "not the shell's, which it does not import"


def test_a_hidden_import_is_not_told_by_what_is_beside(tmp_path: Path) -> None:
    texts = {"z/store.py": STORE, "z/user.py": "from .store import LIMIT, Shelf\n"}
    write(tmp_path / "all" / "one", {**texts, **{f"z/a{n}.py": f"x{n} = 1\n" for n in range(9)}})
    documents = repository_documents.read(tmp_path / "all")
    rows = [row for seed in range(12) for row in build_suite.build(documents, Settings(seed=seed), None)]
    shown = {row.middle: "z/store.py" in dict(row.files) for row in rows if row.path == "z/user.py"}
    assert not shown[".store import LIMIT, Shelf"]
    assert not shown["store import LIMIT, Shelf"]
    assert shown[" Shelf"]


def test_a_copy_of_what_is_hidden_is_not_beside(folder: Path) -> None:
    write(folder / "tool", {"tool/copy.py": MAIN})
    for row in rows_of(folder):
        if row.kind in ("block", "function"):
            assert all(row.middle not in text for _, text in row.files)


def test_what_is_beside_is_bounded_and_in_whole_lines(tmp_path: Path) -> None:
    write(tmp_path / "all" / "one", {f"{n}.py": made_corpus.module(n, functions=40) for n in range(12)})
    for row in rows_of(tmp_path / "all"):
        assert len(row.files) == 6
        assert all(len(text) <= 4000 and text.endswith("\n") for _, text in row.files)


# ---- where it is from ----


def test_of_a_corpus_only_what_it_holds_out_is_taken(tmp_path: Path) -> None:
    made_corpus.repositories(tmp_path / "all", count=6, files=4)
    config = building.corpus_config(f"repositories:{tmp_path / 'all'}", validation=0.3)
    corpus = corpora.build(config, building.settings(tmp_path / "corpus"))
    held_out = {document.repository for document in corpus.documents("validation")}
    trained = {document.repository for document in corpus.documents("train")}
    assert held_out
    assert trained
    assert held_out.isdisjoint(trained)
    rows = built(tmp_path / "corpus", tmp_path / "suite", "--no-execution")
    assert {row.repository for row in rows} == held_out
    manifest = repository_rows.read(tmp_path / "suite").manifest
    assert manifest["origin"] == {"kind": "held out", "corpus": corpus.manifest["digest"]}
    assert "holds out" in make(f"repository:{tmp_path / 'suite'}", Data()).about

    unseen = tmp_path / "unseen"
    rows = built(tmp_path / "all", unseen, "--no-execution", "--unseen_by", str(tmp_path / "corpus"))
    assert {row.repository for row in rows} == held_out
    assert "does not train on" in make(f"repository:{unseen}", Data()).about
    assert "a model may have seen" in repository_documents.read(tmp_path / "all").about


def test_a_file_that_was_trained_on_is_left_out_under_any_name(tmp_path: Path) -> None:
    made_corpus.repositories(tmp_path / "all", count=2, files=2)
    config = building.corpus_config(f"repositories:{tmp_path / 'all'}", validation=0.0)
    corpora.build(config, building.settings(tmp_path / "corpus"))
    seen, new = (tmp_path / "all/repo00/module_0.py").read_text(), made_corpus.module(99)
    write(tmp_path / "others" / "copy", {"taken.py": seen, "new.py": new})
    found = repository_documents.read(tmp_path / "others", tmp_path / "corpus").by_repository["copy"]
    assert [document.path for document in found] == ["new.py"]


def test_a_manifest_says_what_a_suite_was_made_of(folder: Path, tmp_path: Path) -> None:
    rows = built(folder, tmp_path / "suite", "--no-execution", "--seed", "7")
    manifest = repository_rows.read(tmp_path / "suite").manifest
    assert (manifest["seed"], manifest["tasks"], manifest["executed"]) == (7, len(rows), 0)
    assert sum(sum(kinds.values()) for kinds in manifest["counts"].values()) == len(rows)
    assert manifest["counts"]["Python"]["function"] == sum(
        (row.language, row.kind) == ("Python", "function") for row in rows
    )
    by_name = {about["name"]: about for about in manifest["repositories"]}
    assert by_name["ann/tool"]["licence"] == "MIT"
    assert re.fullmatch(r"https://github.com/ann/tool@[0-9a-f]{40}", by_name["ann/tool"]["provenance"])
    assert by_name["ann/tool"]["tasks"] == sum(row.repository == "ann/tool" for row in rows)


# ---- scores ----


def measured(
    suite: Suite, answers: dict[str, str], folder: Path, pool: Pool | None = None
) -> dict[str, dict[str, float]]:
    """The scores of every task; a model that knows the answers by what is before a hole."""
    said = Says(lambda prompt, decoding: answers[prompt.prefix])
    made = harness.measure(suite, said, harness.Settings(), folder, pool)
    return {row.task: dict(row.scores) for row in made.rows}


def test_what_stood_there_has_the_best_scores_with_and_without_files(folder: Path, tmp_path: Path, pool: Pool) -> None:
    rows = built(folder, tmp_path / "suite")
    answers = {row.prefix: row.middle for row in rows}
    for name in ("repository", "repository-nocontext"):
        suite = make(f"{name}:{tmp_path / 'suite'}", Data())
        found = measured(suite, answers, tmp_path / name, pool)
        assert {score for scores in found.values() for score in scores.values()} == {1.0}
        with_files = [row.id for row in rows if row.files] if name == "repository" else []
        assert [task.id for task in suite.tasks if task.prompt.files] == with_files
        assert {task.slices["has_context"] for task in suite.tasks} <= {"yes", "no"}
        assert {row.id for row in rows if row.examples} == {name for name, scores in found.items() if "pass" in scores}


@pytest.fixture
def half(tmp_path: Path, pool: Pool) -> Suite:
    """The body of a function with examples."""
    write(tmp_path / "one" / "sums", {"sums.py": SUMS})
    rows = built(tmp_path / "one", tmp_path / "suite")
    assert {row.kind for row in rows if row.examples} == {"line", "function", "api"}
    suite = make(f"repository:{tmp_path / 'suite'}", Data())
    return replace(suite, tasks=[task for task in suite.tasks if task.slices["kind"] == "function"])


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        ("whole = math.floor(number / 2)\n    return whole", 1),
        ("return number // 2\n\ndef more():\n    pass", 1),
        ("", 0),
        ("return number / 2", 0),
        ("return int(half.__doc__.split()[6])", 0),
        ("return eval(half.__doc__.split('>>> half(9)')[1].split()[0])", 0),
    ],
)
def test_what_examples_cover_is_right_if_they_hold(
    body: str, passed: int, half: Suite, tmp_path: Path, pool: Pool
) -> None:
    (task,) = half.tasks
    (scores,) = measured(half, {task.prompt.prefix: body}, tmp_path / "measured", pool).values()
    assert scores["pass"] == passed
    assert scores["exact"] == float(body == task.reference)


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        ("count = round(value / step)\n    return count * step", 1),
        ("return step * round(value / step)", 1),
        ("return value", 0),
        ("raise ValueError", 0),
        ("", 0),
    ],
)
def test_what_unit_tests_cover_is_right_if_they_hold(body: str, passed: int, tmp_path: Path, pool: Pool) -> None:
    texts = {"tool/__init__.py": "", "tool/rounding.py": ROUNDING, "tool/other.py": "x = 1\n"}
    write(tmp_path / "one" / "tool", {**texts, "tests/test_rounding.py": TEST_ROUNDING})
    rows = built(tmp_path / "one", tmp_path / "suite")
    assert repository_rows.read(tmp_path / "suite").manifest["executed"] == sum(bool(row.tests) for row in rows) > 0
    suite = make(f"repository:{tmp_path / 'suite'}", Data())
    (task,) = (
        task for task in suite.tasks if task.prompt.path == "tool/rounding.py" and task.checks["kind"] == "function"
    )
    assert [file.path for file in task.prompt.files] == ["tool/other.py"], "not the test"
    (scores,) = measured(replace(suite, tasks=[task]), {task.prompt.prefix: body}, tmp_path / "measured", pool).values()
    assert scores["pass"] == passed


def test_a_sandbox_that_fails_counts_neither_way(half: Suite, tmp_path: Path) -> None:
    class Broken:
        protections = ()

        def transcript(self, *given: object) -> tuple[list[str], str]:
            return [], "sandbox"

    said = Says(lambda prompt, decoding: "return 1")
    made = harness.measure(half, said, harness.Settings(), tmp_path / "measured", Broken())  # type: ignore[arg-type]
    assert made.rows[0].reason == "not run: the sandbox failed"


# ---- backtest ----


def test_a_backtest_hides_lines_with_seventy_parts_before_and_thirty_after(tmp_path: Path) -> None:
    texts = {f"{n}.py": made_corpus.module(n, functions=40) for n in range(12)}
    write(tmp_path / "all" / "one", texts)
    suite = make(f"backtest:{tmp_path / 'all'}", Data())
    assert len(suite.tasks) == 12
    for task in suite.tasks:
        text, start = texts[task.prompt.path], int(task.id.rpartition(":")[2])
        end = start + len(task.reference)
        assert text[start:end] == task.reference
        assert not text[end:].split("\n")[0].strip()
        before, after = window(start, len(text) - end, 6000)
        assert (task.prompt.prefix, task.prompt.suffix) == (text[start - before : start], text[end : end + after])
    assert any(len(task.prompt.prefix) == 4200 for task in suite.tasks)
    answers = {task.prompt.prefix: task.reference + "\nmore" for task in suite.tasks}
    found = measured(suite, answers, tmp_path / "measured")
    assert {score for scores in found.values() for score in scores.values()} == {1.0}
    assert [task.id for task in make(f"backtest:{tmp_path / 'all'}", Data()).tasks] == [task.id for task in suite.tasks]


# ---- bad input ----


def test_what_cannot_become_a_suite_is_told_before_any_work(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "suite"
    assert f"no folder at {tmp_path / 'nowhere'}" in refused(tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    assert "no file of a known language" in refused(tmp_path / "empty", out)
    write(tmp_path / "prose" / "one", {"README.md": "Words.\n"})
    assert "no place for a hole" in refused(tmp_path / "prose", out, "--no-execution")
    assert "no language 'Pithon'; nearest: Python" in refused(folder, out, "--languages", "Pithon")
    assert "--per_kind must be at least 1" in refused(folder, out, "--per_kind", "0")
    out.mkdir()
    assert f"{out} exists" in refused(folder, out)
    assert not list(out.iterdir())
    assert "no corpus at" in refused(folder, tmp_path / "new", "--unseen_by", tmp_path)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_build_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository_rows, "checksum", full)
    out = tmp_path / "made" / "suite"
    assert f"cannot write {out}: No space left on device" in refused(folder, out, "--no-execution")
    assert not list(out.parent.iterdir())


def test_a_damaged_suite_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "suite"
    built(folder, out, "--no-execution")
    rows, manifest = (out / "suite.jsonl").read_text(), (out / "manifest.json").read_text()

    def says(rows: str, manifest: str) -> str:
        (out / "suite.jsonl").write_text(rows)
        (out / "manifest.json").write_text(manifest)
        with pytest.raises(UserError) as error:
            make(f"repository:{out}", Data())
        assert "\n" not in str(error.value)
        return str(error.value)

    cut = rows.rstrip("\n").rpartition("\n")[0] + "\n"
    assert "is not what its manifest says" in says(cut, manifest)
    assert "is not what its manifest says" in says(rows.replace("shelf", "shell"), manifest)
    assert "not JSON" in says(rows[:-40], manifest)
    assert "no 'middle' in the row" in says(rows.replace('"middle"', '"muddle"'), manifest)
    assert "is no manifest of a suite" in says(rows, manifest[:50])
    assert "is no manifest of a suite" in says(rows, "[]")
    newer = json.dumps(json.loads(manifest) | {"codelm_repository_suite": 2})
    assert "is of version 2; this codelm reads 1" in says(rows, newer)
    with pytest.raises(UserError, match="no suite at"):
        make(f"repository:{tmp_path / 'nowhere'}", Data())
    with pytest.raises(UserError, match="repository-nocontext:FOLDER"):
        make("repository-nocontext", Data())
