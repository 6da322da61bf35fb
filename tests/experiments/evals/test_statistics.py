"""Figures are what a plain reading of the rows gives, and their intervals hold the truth as often as they say."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from experiments.evals import statistics
from experiments.evals.rows import Row
from experiments.evals.statistics import Figure

PASSES, MEAN, BITS = {"pass": "passes"}, {"exact": "mean"}, {"bits": "bits"}


def row(task: str, sample: int = 0, slices: dict[str, str] | None = None, **scores: float) -> Row:
    return Row(task, sample, 0, ("",), "", scores, "", slices or {})


def outcomes(*tasks: Sequence[float], name: str = "pass") -> list[Row]:
    """A task for each sequence of scores."""
    return [
        row(f"t{n:04}", sample, **{name: score}) for n, task in enumerate(tasks) for sample, score in enumerate(task)
    ]


def figure(rows: list[Row], metrics: dict[str, str], k: int = 1) -> Figure:
    [found] = statistics.figures(rows, metrics, [k]).values()
    return found


# ---- values ----


def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_right_sample() -> None:
    for n in range(1, 9):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            drawn = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert statistics.pass_at_k(n, c, k) == pytest.approx(sum(map(any, drawn)) / len(drawn), abs=1e-12)


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    exact = 1 - math.comb(9_990, 5_000) / math.comb(10_000, 5_000)
    assert statistics.pass_at_k(10_000, 10, 5_000) == pytest.approx(exact, rel=1e-12)


def test_each_kind_of_metric_is_what_it_says() -> None:
    rows = [
        row("a", 0, **{"pass": 1.0, "exact": 0.5, "bits": 2.0, "bytes": 10.0}),
        row("a", 1, **{"pass": 0.0, "exact": 1.0, "bits": 4.0, "bytes": 30.0}),
        row("b", 0, **{"pass": 0.0, "exact": 0.0, "bits": 1.0, "bytes": 60.0}),
        row("b", 1, **{"pass": 0.0}),
    ]
    found = statistics.figures(rows, PASSES | MEAN | BITS, [1, 2])
    assert {name: (one.value, one.tasks, one.samples) for name, one in found.items()} == {
        "pass@1": (0.25, 2, 4),
        "pass@2": (0.5, 2, 4),
        "exact": (0.375, 2, 3),
        "bits": (2.0, 2, 3),
    }


def test_what_was_not_scored_does_not_count() -> None:
    """Neither samples without the score, nor tasks of fewer than k samples, nor a metric that no row has."""
    rows = [*outcomes([1, 0, 0], [1]), row("unscored"), row("unanswered", bits=0.0)]
    found = statistics.figures(rows, PASSES | MEAN | BITS, [1, 3, 4])
    assert {name: (one.value, one.tasks, one.samples) for name, one in found.items()} == {
        "pass@1": (pytest.approx(2 / 3), 2, 4),
        "pass@3": (1.0, 1, 3),
    }


def test_slices_have_the_figures_of_their_rows() -> None:
    languages = ["Python", "Go", "Python", "Rust"]
    rows = [row(f"t{n}", slices={"language": name, "all": "1"}, exact=n / 4) for n, name in enumerate(languages)]
    found = statistics.sliced([*rows, row("of no slice", exact=1.0)], MEAN, [1])
    assert {name: list(values) for name, values in found.items()} == {
        "all": ["1"],
        "language": ["Go", "Python", "Rust"],
    }
    assert found["language"]["Python"] == statistics.figures([rows[0], rows[2]], MEAN, [1])
    assert found["all"]["1"] == statistics.figures(rows, MEAN, [1])


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    rows = [
        row(f"t{n}", sample, {"half": str(n % 2)}, exact=rng.random(), bits=rng.random(), bytes=float(n + sample + 1))
        for n in range(20)
        for sample in range(3)
    ]
    mixed = [rows[n] for n in rng.permutation(len(rows))]
    for of in (statistics.figures, statistics.sliced):
        assert of(mixed, MEAN | BITS, [1]) == of(rows, MEAN | BITS, [1])


# ---- intervals ----


@pytest.mark.parametrize(("right", "tasks"), [(0, 1), (1, 1), (0, 164), (164, 164), (1, 164), (50, 164), (2, 5)])
def test_of_single_outcomes_it_is_the_exact_interval(right: int, tasks: int) -> None:
    found = figure(outcomes(*([1.0] if n < right else [0.0] for n in range(tasks))), PASSES)
    exact = stats.binomtest(right, tasks).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.005)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_it_never_collapses(score: float) -> None:
    """All tasks agree, which does not say that all tasks there are would."""
    for tasks in (1, 3, 100):
        found = figure(outcomes(*[[score]] * tasks, name="exact"), MEAN)
        assert found.low <= score <= found.high
        assert found.high - found.low >= 1 - 0.025 ** (1 / tasks) - 0.02


def test_a_single_text_says_nothing_of_others() -> None:
    found = figure([row("one", bits=1.5, bytes=100.0)], BITS)
    assert found.value == 1.5
    assert found.high - found.low > 20


# The chance of a sample to be right, and how many in a hundred tasks have it.
KINDS = {"mixed": ((0.0, 40), (0.2, 30), (0.7, 30)), "seldom right": ((0.0, 97), (0.5, 2), (1.0, 1))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tasks", "n", "k"), [(164, 1, 1), (40, 4, 1), (60, 4, 4), (12, 2, 2)])
def test_an_interval_of_pass_at_k_holds_the_truth_95_times_in_100(kind: str, tasks: int, n: int, k: int) -> None:
    """Of tasks and samples drawn anew every time; more often where there is little to go by, never seldomer."""
    chances, weights = np.array(KINDS[kind]).T
    truth = float(weights @ (1 - (1 - chances) ** k)) / 100
    rng, held = np.random.default_rng(2), 0
    for _ in range(300):
        drawn = rng.choice(chances, tasks, p=weights / 100)
        scores = rng.random((tasks, n)) < drawn[:, None]
        found = figure(outcomes(*scores.astype(float)), PASSES, k)
        held += found.low <= truth <= found.high
    assert held / 300 >= 0.92
    assert held / 300 <= 0.99 or kind == "seldom right" or tasks < 20


@pytest.mark.parametrize("tasks", [2, 5, 50])
def test_an_interval_of_bits_holds_the_truth_95_times_in_100(tasks: int) -> None:
    """Long texts are easier here, and weigh more."""
    mean, square = 100.0, 100.0**2 + 100.0**2 / 12  # of a size evenly between 50 and 150
    truth = 1.2 - square / mean / 250
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        sizes = rng.uniform(50, 150, tasks)
        bits = 1.2 - sizes / 250 + rng.normal(0, 0.1, tasks)
        found = figure([row(f"t{n}", bits=bits[n], bytes=sizes[n]) for n in range(tasks)], BITS)
        held += found.low <= truth <= found.high
    assert 0.9 <= held / 300 <= 0.99


def test_it_is_the_same_every_time() -> None:
    rows = outcomes(*np.random.default_rng(4).random((30, 2)), name="exact")
    assert figure(rows, MEAN) == figure(rows, MEAN)
