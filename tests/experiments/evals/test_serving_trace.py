"""Completions are asked for where somebody types, with what there was then; what would be kept; how long it took."""

import dataclasses
import itertools
import json
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from codelm.errors import UserError
from data import triggers
from experiments import report_latency
from experiments.bench import edit_history
from experiments.evals import harness, rows, serving_trace, tables
from experiments.evals.catalogue import Data, make
from experiments.evals.serving_trace import Typed, asked_at, of_history, scores
from experiments.evals.suite import Prompt, Suite
from experiments.evals.targets import Decoding
from tests.data.made_corpus import module
from tests.experiments.evals.fakes import Says

LINE = "total = first + second"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(4):
        (folder / f"module_{number}.py").write_text(module(number))
    (folder / "short.py").write_text("x = 1\n")
    return folder


def test_prefix_what_was_typed_and_suffix_are_the_file(source: Path) -> None:
    suite = make(f"typing:{source}", Data())
    assert len(suite.tasks) == 4 * serving_trace.EACH
    for task in suite.tasks:
        file = (source / task.prompt.path).read_text()
        line = file[len(task.prompt.prefix) :].split("\n")[0]
        assert file.startswith(task.prompt.prefix)
        assert task.reference == line.rstrip()
        assert file.endswith(task.prompt.suffix)
        assert len(task.prompt.prefix + line + task.prompt.suffix) <= len(file)
        cursor = len(task.prompt.prefix)
        assert cursor in {start for start, _ in triggers.candidates(file, "Python")}


def test_what_is_typed_later_is_not_there_yet(source: Path) -> None:
    """Of six lines that are typed, the later ones are in no prompt of an earlier one."""
    for task in make(f"typing:{source}", Data()).tasks:
        file = (source / task.prompt.path).read_text()
        missing = file[len(task.prompt.prefix) : len(file) - len(task.prompt.suffix)]
        assert missing.startswith(task.reference)
        assert missing.count("\n") <= serving_trace.LINES - 1


def test_triggers_of_a_file_come_in_the_order_of_typing(source: Path) -> None:
    tasks = make(f"typing:{source}", Data()).tasks
    for one, other in itertools.pairwise(tasks):
        if one.prompt.path == other.prompt.path:
            assert other.prompt.prefix.startswith(one.prompt.prefix)
            assert other.prompt.suffix == one.prompt.suffix


def test_a_history_is_typed_as_its_keys_say() -> None:
    old = "def add(a, b):\n    return a\n\n\nprint(add(1, 2))\n"
    new = "def add(a, b):\n    total = a + b\n    return total\n\n\nprint(add(1, 2), 'more')\n"
    typed = list(of_history("add.py", [old, new]))
    assert typed[-1].before + typed[-1].text + typed[-1].after == new
    letters = sum(key.kind == "type" for key in edit_history.keys(old, new))
    assert sum(len(stretch.text) for stretch in typed) == letters


def test_only_triggers_in_what_is_typed_are_asked_at() -> None:
    typed = Typed("a.py", "Python", "x = first(1)\ny =", " second(2) + third\nz = 3", "  # end\n")
    assert asked_at(typed) == [
        (typed.before, typed.after, " second(2) + third"),
        (f"{typed.before} second(", typed.after, "2) + third"),
        (f"{typed.before} second(2) +", typed.after, " third"),
    ]


@pytest.mark.parametrize(
    ("line", "kept", "right", "started", "saved"),
    [
        (LINE, 1, 1, 1, 1),
        ("total = first", 1, 13 / 22, 1, 13 / 22),
        ("total = first * second", 0, 14 / 22, 1, 0),
        ("tota", 1, 4 / 22, 0, 4 / 22),
        ("other", 0, 0, 0, 0),
        (LINE + "  # more", 0, 1, 1, 0),
        ("", 0, 0, 0, 0),
        ("  ", 0, 0, 0, 0),
    ],
)
def test_proxies_of_acceptance(line: str, kept: int, right: float, started: int, saved: float) -> None:
    found = scores(line, LINE)
    assert found == {
        "kept": kept,
        "line": pytest.approx(right),
        "started": started,
        "saved": pytest.approx(saved),
        "shown": bool(line.strip()),
    }


def test_a_short_reference_is_started_when_it_is_all_there() -> None:
    assert scores("abc", "abc")["started"] == 1
    assert scores("ab", "abc")["started"] == 0


def knowing(suite: Suite) -> Says:
    known = {(task.prompt.prefix, task.prompt.suffix): task.reference for task in suite.tasks}
    return Says(lambda prompt, decoding: known[prompt.prefix, prompt.suffix] + "\nand more")


def test_who_knows_what_comes_next_is_always_kept_and_who_says_nothing_never_shown(
    source: Path, tmp_path: Path
) -> None:
    suite = make(f"typing:{source}", Data())
    for target, value in ((knowing(suite), 1.0), (Says(lambda prompt, decoding: "\n"), 0.0)):
        figures = harness.measure(suite, target, harness.Settings(), tmp_path / str(value), None).result["figures"]
        assert {name: figure["value"] for name, figure in figures.items()} == dict.fromkeys(suite.metrics, value)


def test_one_request_is_in_flight_at_a_time(source: Path, tmp_path: Path) -> None:
    busy, most = [0], [0]
    lock = threading.Lock()

    def slow(prompt: Prompt, decoding: Decoding) -> str:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.002)
        with lock:
            busy[0] -= 1
        return ""

    harness.measure(make(f"typing:{source}", Data()), Says(slow), harness.Settings(at_once=8), tmp_path / "out", None)
    assert most == [1]


def test_latencies_are_percentiles_of_the_requests_and_rows_hold_none(source: Path, tmp_path: Path) -> None:
    suite = make(f"typing:{source}", Data())
    target = knowing(suite)
    harness.measure(suite, target, harness.Settings(), tmp_path / "out", None)
    seconds = np.arange(1, len(suite.tasks) + 1) / 100
    lines = [
        {"task": task.id, "sample": 0, "seconds": 9.0, "asked": [{"seconds": 2 * each, "first": each, "tokens": 3}]}
        for task, each in zip(suite.tasks, seconds.tolist(), strict=True)
    ]
    (tmp_path / "out" / rows.TIMES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    latency = report_latency.read(tmp_path / "out")
    assert latency
    assert report_latency.percentiles(latency.first) == [pytest.approx(0.165), pytest.approx(0.3045)]
    assert report_latency.percentiles(latency.whole) == [pytest.approx(0.330), pytest.approx(0.609)]
    told = "latency of 32 requests: first token P50 165 ms, P95 304 ms; whole P50 330 ms, P95 609 ms\n"
    assert told in tables.table(rows.load(tmp_path / "out"))
    assert "seconds" not in (tmp_path / "out" / rows.ROWS).read_text()


def test_a_file_of_a_checkout_is_typed_as_its_commits_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()

    def git(*command: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *command], cwd=checkout, check=True, capture_output=True)

    git("init")
    for content in ("value = 1\n", "value = 1\nother = value + 1\n"):
        (checkout / "a.py").write_text(content)
        git("add", "a.py")
        git("commit", "-m", "a")
    monkeypatch.setattr(edit_history, "ROOT", checkout)
    tasks = make(f"typing:{checkout / 'a.py'}", Data()).tasks
    assert [(task.prompt.prefix, task.reference, task.prompt.suffix) for task in tasks] == [
        ("value = 1\nother =", " value + 1", ""),
    ]


def test_a_suite_is_the_same_every_time(source: Path) -> None:
    one, two = (make(f"typing:{source}", Data()) for _ in range(2))
    assert one.source == two.source
    assert dataclasses.replace(one, attempt=two.attempt) == two


def test_without_a_run_source_files_are_asked_for() -> None:
    with pytest.raises(UserError, match="typing:FOLDER"):
        make("typing", Data())
