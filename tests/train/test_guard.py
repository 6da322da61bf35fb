"""Which updates are left out, against the same rule written plainly in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codelm.train_config import GuardConfig
from train.guard import chosen, judge, new_guard

WINDOW = GuardConfig(window=8, deviations=5.0)
_judge = jax.jit(judge, static_argnums=1)


def verdicts(config: GuardConfig, steps: list[tuple[float, float]]) -> list[bool]:
    guard, found = new_guard(config.window), []
    for loss, norm in steps:
        fine, guard = _judge(guard, config, jnp.float32(loss), jnp.float32(norm))
        found.append(bool(fine))
    return found


def by_hand(config: GuardConfig, steps: list[tuple[float, float]]) -> list[bool]:
    taken: list[tuple[float, float]] = []
    found = []
    for step in steps:
        fine = bool(np.isfinite(step).all())
        if fine and len(taken) >= config.window // 2:
            for value, history in zip(step, np.array(taken[-config.window :]).T, strict=True):
                median = np.median(history)
                spread = max(1.4826 * np.median(np.abs(history - median)), 0.02 * median)
                fine &= bool(value <= median + config.deviations * spread)
        if fine:
            taken.append(step)
        found.append(fine)
    return found


def test_the_rule_by_hand() -> None:
    rng = np.random.default_rng(0)
    steps = [(5 - n / 20 + rng.normal(0, 0.1), float(np.exp(rng.normal(0, 0.3)))) for n in range(60)]
    steps[1] = (90.0, 1.0)  # before there is a history nothing is judged by size
    steps[20], steps[33], steps[34] = (9.0, 1.0), (4.0, 400.0), (float("nan"), 1.0)
    steps[50], steps[51] = (4.0, float("inf")), (0.1, 0.01)  # a small loss is no fault
    expected = by_hand(WINDOW, steps)
    assert {20, 33, 34, 50} <= {n for n, fine in enumerate(expected) if not fine}
    assert (expected[1], expected[51]) == (True, True)
    assert verdicts(WINDOW, steps) == expected


def test_only_what_is_not_finite_where_told() -> None:
    steps = [(1.0, 1.0)] * 10 + [(1000.0, 1000.0), (float("nan"), 1.0)]
    assert verdicts(GuardConfig(window=8, deviations=0.0), steps) == [True] * 11 + [False]


def test_counts_of_what_is_left_out() -> None:
    guard = new_guard(8)
    for loss in (1.0, float("nan"), float("nan"), 1.0, float("nan")):
        _, guard = _judge(guard, WINDOW, jnp.float32(loss), jnp.float32(1.0))
    assert (int(guard.taken), int(guard.skipped), int(guard.in_a_row)) == (2, 3, 1)


@pytest.mark.parametrize("fine", [True, False])
def test_what_is_left_out_changes_nothing(fine: bool) -> None:
    new, old = {"a": jnp.full(3, jnp.nan), "b": jnp.ones(())}, {"a": jnp.zeros(3), "b": jnp.zeros(())}
    kept = chosen(jnp.asarray(fine), new, old)
    np.testing.assert_array_equal(kept["a"], new["a"] if fine else old["a"])
    assert float(kept["b"]) == float(fine)
