"""Learning rates and sizes of batches, against their definitions by hand."""

import math
import time
from fractions import Fraction

import jax
import pytest

from codelm.config import TrainConfig
from train.schedules import learning_rate, parts, parts_before

WSD = TrainConfig(steps=100, learning_rate=2.0, warmup_steps=10, decay_fraction=0.2)
CASES = {
    "wsd": (WSD, {0: 0.2, 4: 1.0, 9: 2.0, 50: 2.0, 80: 2.0, 90: 1.0, 99: 0.1, 100: 0.0}),
    "wsd to a tenth": (
        TrainConfig(steps=100, learning_rate=2.0, warmup_steps=10, decay_fraction=0.2, final_fraction=0.1),
        {0: 0.2, 9: 2.0, 80: 2.0, 90: 1.1, 100: 0.2, 120: 0.2},
    ),
    "wsd without warm-up, all decay": (
        TrainConfig(steps=100, learning_rate=2.0, warmup_steps=0, decay_fraction=1.0),
        {0: 2.0, 50: 1.0, 75: 0.5, 99: 0.02},
    ),
    "wsd without decay": (
        TrainConfig(steps=100, learning_rate=2.0, warmup_steps=0, decay_fraction=0.0),
        {0: 2.0, 50: 2.0, 99: 2.0},
    ),
    "cosine": (
        TrainConfig(steps=110, learning_rate=2.0, warmup_steps=10, schedule="cosine"),
        {0: 0.2, 9: 2.0, 10: 2.0, 35: 1 + math.sqrt(0.5), 60: 1.0, 85: 1 - math.sqrt(0.5), 110: 0.0, 150: 0.0},
    ),
    "cosine, a long warm-up, to a tenth": (
        TrainConfig(steps=110, learning_rate=2.0, warmup_steps=90, schedule="cosine", final_fraction=0.1),
        {0: 2 / 90, 44: 1.0, 89: 2.0, 90: 2.0, 100: 1.1, 110: 0.2},
    ),
    "constant": (
        TrainConfig(steps=100, learning_rate=2.0, warmup_steps=10, schedule="constant"),
        {0: 0.2, 9: 2.0, 99: 2.0, 10**9: 2.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rate_by_hand(name: str) -> None:
    train, expected = CASES[name]
    rate = jax.jit(learning_rate(train))
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-6), step


def test_rate_outside_jit() -> None:
    assert float(learning_rate(WSD)(90)) == pytest.approx(1.0)


@pytest.mark.parametrize(("accumulate", "warmup"), [(1, 0), (4, 0), (4, 9), (4, 10), (8, 3), (3, 100), (16, 1)])
def test_batch_grows_linearly(accumulate: int, warmup: int) -> None:
    """The whole part of a line from (0, 1) to (warmup, accumulate), and its sums."""
    train, total = TrainConfig(accumulate=accumulate, batch_warmup_steps=warmup), 0
    for step in range(warmup + 20):
        line = 1 + Fraction(step * (accumulate - 1), max(warmup, 1))
        expected = math.floor(line) if step < warmup else accumulate
        assert parts(train, step) == expected
        assert parts_before(train, step) == total
        total += expected


def test_far_steps_cost_the_same() -> None:
    train, started = TrainConfig(accumulate=4, batch_warmup_steps=9), time.perf_counter()
    assert parts_before(train, 10**9) == 4 * (10**9 - 9) + (1 + 1 + 1 + 2 + 2 + 2 + 3 + 3 + 3)
    assert time.perf_counter() - started < 0.1
