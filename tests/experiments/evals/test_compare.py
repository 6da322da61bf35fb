"""Two measurements compare only where they may, task by task, and chance is told from difference exactly."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from codelm import cli
from codelm.errors import UserError
from experiments.evals import compare, harness, rows
from experiments.evals.compare import Change, Difference
from experiments.evals.rows import Row
from experiments.evals.statistics import Parts

HEADER = {
    "codelm_eval": rows.VERSION,
    "harness": harness.HARNESS,
    "model": {"name": "small", "checkpoint": "step 10", "mode": "psm", "heal": "prefix"},
    "suite": {"name": "sums", "version": 1, "sha256": "ab" * 32, "metrics": {"pass": "passes", "time": "mean"}},
    "postprocessing": {"name": "as-is", "version": 1},
    "decoding": {"samples": 1, "temperature": 0.2, "top_p": 0.95, "seed": 0, "max_new_tokens": 64, "stop": ["\n"]},
    "contamination": {"status": "not checked"},
}


def header(**changed: Mapping[str, Any] | int) -> dict[str, Any]:
    return {
        name: value | changed[name] if isinstance(value, dict) and name in changed else changed.get(name, value)
        for name, value in HEADER.items()
    }


def write(folder: Path, scores: Mapping[str, list[float]], of: Mapping[str, Any] = HEADER, **reasons: str) -> Path:
    """A whole measurement; of each task the samples' scores in pass, and twice that as its time."""
    writer = rows.Writer(folder, of)
    for task, samples in scores.items():
        for sample, score in enumerate(samples):
            given = {"pass": score, "time": 2 * score}
            writer.add(Row(task, sample, 0, ("",), "", given, reasons.get(task, "")), {})
    figures = {f"pass@{k}": {} for k in range(1, of["decoding"]["samples"] + 1)}
    writer.finish(list(writer.done), {"figures": figures | {"time": {}}})
    return folder


def compared(before: Path, after: Path) -> dict[str, Difference]:
    return compare.compare(rows.load(before), rows.load(after))


def parts(top: list[float], bottom: list[float] | None = None) -> Parts:
    names = tuple(f"t{n:03}" for n in range(len(top)))
    ones = np.ones(len(top))
    return Parts(names, np.array(top), ones if bottom is None else np.array(bottom), ones.astype(np.int64))


# ---- the test ----


@pytest.mark.parametrize(("better", "worse", "same"), [(5, 1, 3), (0, 7, 0), (1, 0, 0), (3, 3, 30), (9, 5, 0)])
def test_of_single_outcomes_it_is_mcnemars_exact_test(better: int, worse: int, same: int) -> None:
    before = parts([0.0] * better + [1.0] * worse + [1.0] * same)
    after = parts([1.0] * better + [0.0] * worse + [1.0] * same)
    exact = stats.binomtest(better, better + worse).pvalue
    assert compare.p_value(before, after) == pytest.approx(exact, abs=1e-12)
    assert compare.p_value(after, before) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(("better", "worse"), [(25, 10), (12, 8), (60, 60)])
def test_many_tasks_are_flipped_at_random_to_nearly_the_same(better: int, worse: int) -> None:
    before, after = parts([0.0] * better + [1.0] * worse), parts([1.0] * better + [0.0] * worse)
    exact = stats.binomtest(better, better + worse).pvalue
    assert compare.p_value(before, after) == pytest.approx(exact, abs=4 * (exact / 20_000) ** 0.5)
    assert compare.p_value(before, after) == compare.p_value(before, after)


def test_a_p_value_of_random_flips_is_never_zero() -> None:
    assert compare.p_value(parts([0.0] * 200), parts([1.0] * 200)) == 1 / 20_001


def test_of_other_scores_every_way_to_swap_is_counted() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.integers(0, 5, (2, 8)) / 10  # many sums are equal, but for rounding
    differences = [
        sum(b - a if kept else a - b for a, b, kept in zip(before, after, keeps, strict=True))
        for keeps in itertools.product([True, False], repeat=8)
    ]
    expected = np.mean([abs(one) >= abs(sum(after - before)) - 1e-9 for one in differences])
    assert compare.p_value(parts(list(before)), parts(list(after))) == expected
    scipys = stats.permutation_test(
        (after, before), lambda one, other: np.mean(one - other), permutation_type="samples", n_resamples=np.inf
    )
    assert expected == pytest.approx(scipys.pvalue)


def test_of_bits_results_are_swapped_with_their_bytes() -> None:
    """Models with other tokenizers need not score the very same bytes."""
    rng = np.random.default_rng(2)
    (before, after), (sizes, others) = rng.random((2, 7)) * 100, 50 + rng.random((2, 7)) * 50

    def gap(keeps: tuple[bool, ...]) -> float:
        kept = np.array(keeps)
        ours, theirs = (
            np.where(kept, [after, others], [before, sizes]),
            np.where(kept, [before, sizes], [after, others]),
        )
        return abs(ours[0].sum() / ours[1].sum() - theirs[0].sum() / theirs[1].sum())

    gaps = [gap(keeps) for keeps in itertools.product([True, False], repeat=7)]
    expected = np.mean([one >= gap((True,) * 7) - 1e-9 for one in gaps])
    assert compare.p_value(parts(list(before), list(sizes)), parts(list(after), list(others))) == expected


def test_where_nothing_differs_nothing_is_found() -> None:
    found = compare.difference(parts([1.0, 0.0] * 82), parts([1.0, 0.0] * 82))
    assert (found.value, found.p, found.better, found.worse) == (0.0, 1.0, (), ())
    assert found.low == pytest.approx(-0.0222, abs=1e-3)  # 164 tasks do not say that no task ever will
    assert found.high == pytest.approx(0.0222, abs=1e-3)


@pytest.mark.parametrize("sizes", [None, (50.0, 150.0)])
def test_an_interval_of_a_difference_holds_the_truth_95_times_in_100(sizes: tuple[float, float] | None) -> None:
    """Tasks are hard or easy for both, and the second result is higher by a tenth: of shares, of bits by bytes."""
    rng, held, apart = np.random.default_rng(3), 0, 0
    for _ in range(100):
        hard = rng.random(60)
        before, after = hard * 0.8 + rng.uniform(0, 0.1, 60), hard * 0.8 + rng.uniform(0.1, 0.2, 60)
        weight = np.ones(60) if sizes is None else rng.uniform(*sizes, 60)
        found = compare.difference(
            parts(list(before * weight), list(weight)), parts(list(after * weight), list(weight))
        )
        held += found.low <= 0.1 <= found.high
        apart += found.low > 0
    assert held >= 90
    assert apart == 100  # though either figure alone is known to no better than a tenth


# ---- measurements ----


def test_only_tasks_that_both_have_scored_count(tmp_path: Path) -> None:
    before = write(tmp_path / "a", {"t1": [0.0], "t2": [1.0], "t3": [1.0], "t4": [1.0]})
    after = write(tmp_path / "b", {"t1": [1.0], "t2": [1.0], "t3": [0.0], "t5": [1.0]}, t3="not run: no compiler")
    found = compared(before, after)["pass@1"]
    assert (found.before.value, found.after.value, found.value, found.before.tasks) == (0.5, 1.0, 0.5, 2)
    assert found.left_out == 3
    assert found.better == (Change("t1", 0.0, 1.0),)
    assert found.worse == ()


def test_changed_tasks_are_in_order_of_the_change(tmp_path: Path) -> None:
    four = header(decoding={"samples": 4})
    before = write(tmp_path / "a", {"x": [0, 0, 0, 0], "y": [0, 0, 0, 1], "z": [1, 1, 1, 1], "w": [0, 0, 0, 0]}, four)
    after = write(tmp_path / "b", {"x": [0, 0, 0, 1], "y": [1, 1, 1, 1], "z": [1, 1, 1, 0], "w": [0, 1, 0, 0]}, four)
    found = compared(before, after)
    assert found["pass@1"].better == (Change("y", 0.25, 1.0), Change("w", 0.0, 0.25), Change("x", 0.0, 0.25))
    assert found["pass@1"].worse == (Change("z", 1.0, 0.75),)
    assert list(found) == ["pass@1", "pass@2", "pass@3", "pass@4", "time"]


def test_fewer_bits_are_better(tmp_path: Path) -> None:
    found = compare.difference(
        parts([10.0, 30.0], [10.0, 10.0]), parts([5.0, 40.0], [10.0, 10.0]), lower_is_better=True
    )
    assert found.better == (Change("t000", 1.0, 0.5),)
    assert found.worse == (Change("t001", 3.0, 4.0),)


def test_other_samples_of_the_same_compare(tmp_path: Path) -> None:
    more = header(decoding={"samples": 2, "seed": 7}, model={"name": "big"})
    before, after = write(tmp_path / "a", {"t": [0.0]}), write(tmp_path / "b", {"t": [1.0, 0.0]}, more)
    assert {name: one.value for name, one in compared(before, after).items()} == {"pass@1": 0.5, "time": 1.0}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"suite": {"name": "products"}}, "suite 'sums' and 'products'"),
        ({"suite": {"version": 2}}, "suite's version 1 and 2"),
        ({"suite": {"sha256": "cd" * 32}}, "tasks' SHA-256 'abababababab' and 'cdcdcdcdcdcd'"),
        ({"harness": 0}, f"harness {harness.HARNESS} and 0"),
        ({"postprocessing": {"version": 2}}, "post-processing 'as-is 1' and 'as-is 2'"),
        ({"decoding": {"temperature": 0.8}}, "temperature 0.2 and 0.8"),
        ({"decoding": {"stop": []}}, r"stop ['\n'] and []"),
    ],
)
def test_what_does_not_compare_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    before = write(tmp_path / "a", {"t": [0.0]})
    after = write(tmp_path / "b", {"t": [1.0]}, header(**changed))
    with pytest.raises(UserError) as refused:
        compared(before, after)
    assert f"({said})" in str(refused.value)


# ---- the command ----


def test_the_command_shows_the_difference_and_the_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [f"t{n}" for n in range(9)]
    before = write(tmp_path / "a", {task: [float(n < 3)] for n, task in enumerate(tasks)})
    after = write(tmp_path / "b", {task: [float(n > 0)] for n, task in enumerate(tasks)}, header(model={"name": "big"}))
    assert cli.main(["eval", "compare", str(before), str(after), "--most", "2"]) == 0
    shown = capsys.readouterr().out
    assert "A  small step 10" in shown
    assert "B  big step 10" in shown
    line = next(line for line in shown.splitlines() if line.startswith("pass@1 "))
    assert line.split()[0:2] + line.split()[5:6] + line.split()[9:10] == ["pass@1", "0.3333", "0.8889", "+0.5556"]
    assert line.split()[-5:] == [f"{stats.binomtest(6, 7).pvalue:.2g}", "6", "1", "9", "0"]
    assert "pass@1 is better in 6 of 9 tasks, the first 2:\n  0.000 → 1.000  t3\n  0.000 → 1.000  t4\n\n" in shown
    assert shown.endswith("pass@1 is worse in 1 of 9 tasks:\n  1.000 → 0.000  t0\n")
    assert not any(line.endswith(" ") for line in shown.splitlines())


def test_json_has_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = (
        write(tmp_path / name, {f"t{n}": [score] for n in range(30)}) for name, score in (("a", 0), ("b", 1))
    )
    assert cli.main(["eval", "compare", str(before), str(after), "--json", "--metric", "pass@1"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert found["suite"] == "sums"
    assert found["after"]["contamination"] == {"status": "not checked"}
    assert list(found["metrics"]) == ["pass@1"]
    assert found["metrics"]["pass@1"]["value"] == 1.0
    assert len(found["metrics"]["pass@1"]["better"]) == 30


def test_of_two_runs_each_evaluation_meets_its_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {
        "sums": {},
        "sums-spm": {"model": {"mode": "spm"}},
        "products": {"suite": {"name": "products"}},
        "hot": {"decoding": {"temperature": 0.8}},
    }
    for run, names in (("a", ["sums", "sums-spm", "products"]), ("b", ["sums-spm", "hot", "products", "sums"])):
        for name in names:
            write(tmp_path / run / "evals" / name, {"t": [0.0]}, header(**kinds[name]))
    (tmp_path / "b" / "evals" / "sums" / "unfinished").mkdir()
    assert cli.main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    shown = capsys.readouterr()
    folders = [(Path(one["before"]["folder"]).name, Path(one["after"]["folder"]).name) for one in json.loads(shown.out)]
    assert folders == [(name, name) for name in ("products", "sums", "sums-spm")]
    assert shown.err == f"left out, the other side has none like it: {tmp_path / 'b' / 'evals' / 'hot'}\n"


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(before: Path, after: Path, *more: str) -> str:
        assert cli.main(["eval", "compare", str(before), str(after), *more]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line

    one, other = write(tmp_path / "a", {"t": [0.0]}), write(tmp_path / "b", {"u": [0.0]})
    (tmp_path / "nothing").mkdir()
    assert "no whole evaluation in" in said(one, tmp_path / "nothing")
    assert "no scored task in common" in said(one, other)
    assert "no metric 'pas@1' in both; nearest: 'pass@1'" in said(one, one, "--metric", "pas@1")
    hot = write(tmp_path / "hot", {"t": [0.0]}, header(decoding={"temperature": 0.8}))
    assert "(temperature 0.2 and 0.8)" in said(one, hot)
    write(tmp_path / "run" / "1", {"t": [0.0]})
    write(tmp_path / "run" / "2", {"t": [1.0]})
    assert "were measured in the same way: name the folder" in said(one, tmp_path / "run")
    write(tmp_path / "hotter" / "1", {"t": [0.0]}, header(decoding={"temperature": 0.9}))
    write(tmp_path / "hotter" / "2", {"t": [0.0]}, header(decoding={"temperature": 1.0}))
    assert "(temperature 0.2 and 0.9)" in said(one, tmp_path / "hotter")
    write(tmp_path / "others" / "1", {"t": [0.0]}, header(suite={"name": "products"}))
    write(tmp_path / "others" / "2", {"t": [0.0]}, header(suite={"name": "roots"}))
    assert "no suite is in both: A has sums, B has products, roots" in said(one, tmp_path / "others")
    (one / rows.RESULT).unlink()
    assert "is not finished" in said(one, other)
