"""One harness: the same rows whatever happened on the way, and every score again from what was written."""

import json
import threading
from pathlib import Path

import pytest

from codelm.errors import UserError
from experiments.evals import rows
from experiments.evals.harness import Settings, measure, rescored
from experiments.evals.suite import AS_IS, NotRun, Outcome, Prompt, Suite, Task, Tools
from experiments.evals.targets import Decoding
from tests.experiments.evals.fakes import Says, nobody, right, sums

DRAWN = Settings(samples=4, ks=(1, 2), temperature=0.8)


def sometimes(prompt: Prompt, decoding: Decoding) -> str:
    return right(prompt, decoding) if decoding.seed % 3 else "?"


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    found = measure(sums(), Says(sometimes), DRAWN, tmp_path / "a", None)
    passed = {}
    for row in found.rows:
        passed.setdefault(row.task, []).append(row.scores["pass"])
    assert found.result["figures"]["pass@1"]["value"] == pytest.approx(
        sum(sum(each) / 4 for each in passed.values()) / len(passed)
    )
    assert set(found.result["slices"]["size"]) == {"odd", "even"}
    assert found.result["reasons"] == {"wrong": sum(row.scores["pass"] == 0 for row in found.rows)}


def test_rows_are_the_same_to_the_byte_however_many_are_asked_at_once(tmp_path: Path) -> None:
    for at_once in (1, 7):
        measure(sums(), Says(sometimes), Settings(4, (1,), 0.8, at_once=at_once), tmp_path / str(at_once), None)
    for name in (rows.HEADER, rows.ROWS, rows.RESULT):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "7" / name).read_bytes()


def test_an_interrupted_measurement_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    whole = measure(sums(), Says(sometimes), DRAWN, tmp_path / "whole", None)
    stopping = threading.Event()
    left = iter(range(9))

    def stops(prompt: Prompt, decoding: Decoding) -> str:
        if next(left, None) is None:
            stopping.set()
            raise KeyboardInterrupt
        return sometimes(prompt, decoding)

    first, second = Says(stops), Says(sometimes)
    with pytest.raises(KeyboardInterrupt):
        measure(sums(), first, Settings(4, (1, 2), 0.8, at_once=2), tmp_path / "cut", None)
    assert stopping.is_set()
    assert not (tmp_path / "cut" / rows.RESULT).exists()
    again = measure(sums(), second, DRAWN, tmp_path / "cut", None)
    assert len(second.asked) == 24 - 9
    assert again.rows == whole.rows
    assert again.result == whole.result


def test_samples_of_a_task_have_seeds_of_their_own_and_more_samples_keep_the_first(tmp_path: Path) -> None:
    few = measure(sums(), Says(sometimes), Settings(2, temperature=0.8), tmp_path / "few", None)
    many = measure(sums(), Says(sometimes), Settings(5, temperature=0.8), tmp_path / "many", None)
    seeds = [row.seed for row in many.rows]
    assert len(set(seeds)) == len(seeds)
    assert few.rows == [row for row in many.rows if row.sample < 2]


def test_no_answer_counts_as_wrong_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    def half(prompt: Prompt, decoding: Decoding) -> str:
        return (nobody if prompt.prefix.startswith("1") else right)(prompt, decoding)

    found = measure(sums(), Says(half), Settings(), tmp_path / "a", None)
    assert found.result["figures"]["pass@1"]["value"] == pytest.approx(5 / 6)
    assert found.result["reasons"] == {"unanswered: HTTP 500: it burns": 1}


def test_what_nothing_can_tell_counts_neither_way(tmp_path: Path) -> None:
    base = sums()

    def attempt(task: Task, tools: Tools) -> Outcome:
        if task.slices["size"] == "odd":
            raise NotRun("no go on PATH (install golang)")
        return base.attempt(task, tools)

    suite = Suite("sums", 1, "", base.tasks, attempt, base.metrics, base.source, AS_IS, 8)
    found = measure(suite, Says(right), Settings(), tmp_path / "a", None)
    figure = found.result["figures"]["pass@1"]
    assert (figure["value"], figure["tasks"], found.result["not_run"]) == (1.0, 3, 3)


def test_a_suite_of_several_turns_is_one_whose_attempts_ask_again(tmp_path: Path) -> None:
    def attempt(task: Task, tools: Tools) -> Outcome:
        so_far, said = task.prompt.prefix, ""
        while said != task.reference and so_far.count("no") < 3:
            said = tools.ask(Prompt(so_far))
            so_far += f"{said}, no: "
        return Outcome(said, {"pass": float(said == task.reference)})

    def learns(prompt: Prompt, decoding: Decoding) -> str:
        return "?" if prompt.prefix.count("no") < 2 else right(prompt, decoding)

    base = sums()
    suite = Suite("turns", 1, "", base.tasks, attempt, base.metrics, base.source, AS_IS, 8)
    found = measure(suite, Says(learns), Settings(), tmp_path / "a", None)
    assert found.result["figures"]["pass@1"]["value"] == 1.0
    assert [list(row.written) for row in found.rows[:2]] == [["?", "?", "0"], ["?", "?", "2"]]


def test_every_score_can_be_had_again_from_what_was_written(tmp_path: Path) -> None:
    """Also after a suite's scoring has changed."""
    found = measure(sums(), Says(sometimes), DRAWN, tmp_path / "a", None)
    assert list(rescored(sums(), found.rows, None)) == found.rows

    def stricter(task: Task, tools: Tools) -> Outcome:
        said = tools.ask(task.prompt)
        return Outcome(said, {"pass": float(said == task.reference and said != "4")})

    base = sums()
    suite = Suite("sums", 2, "", base.tasks, stricter, base.metrics, base.source, AS_IS, 8)
    anew = {row.key: row.scores["pass"] for row in rescored(suite, found.rows, None)}
    assert anew == {row.key: row.scores["pass"] * (row.completion != "4") for row in found.rows}


def test_times_are_kept_apart(tmp_path: Path) -> None:
    measure(sums(), Says(right), Settings(), tmp_path / "a", None)
    lines = [json.loads(line) for line in (tmp_path / "a" / rows.TIMES).read_text().splitlines()]
    assert lines[0]["asked"] == [{"first": 0.01, "seconds": 0.02, "tokens": 1}]
    assert "seconds" not in (tmp_path / "a" / rows.ROWS).read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(1, (10,)), "pass@10 needs at least 10 samples of each task: set --n 10 or more"),
        (Settings(5), "n samples at temperature 0 are the same text n times: set --temperature"),
        (Settings(0), "n must be at least 1, not 0"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings: Settings, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        measure(sums(), Says(right), settings, tmp_path / "a", None)
    assert not (tmp_path / "a").exists()
