"""What is kept around a cursor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codelm.cursor import window


@given(st.integers(0, 300), st.integers(0, 300), st.integers(-5, 700))
def test_a_window_is_full_and_seventy_percent_before(before: int, after: int, budget: int) -> None:
    kept_before, kept_after = window(before, after, budget)
    assert 0 <= kept_before <= before
    assert 0 <= kept_after <= after
    assert kept_before + kept_after == min(before + after, max(budget, 0))  # nothing is wasted
    if kept_before < before:
        assert kept_before >= int(0.7 * budget + 1e-9)
    if kept_after < after:
        assert kept_after >= int(0.3 * budget + 1e-9)


@pytest.mark.parametrize(
    ("before", "after", "budget", "kept"),
    [
        (1000, 1000, 100, (70, 30)),
        (1000, 10, 100, (90, 10)),
        (10, 1000, 100, (10, 90)),
        (3, 4, 100, (3, 4)),
        (9, 9, 0, (0, 0)),
        (9, 9, -3, (0, 0)),
    ],
)
def test_windows(before: int, after: int, budget: int, kept: tuple[int, int]) -> None:
    assert window(before, after, budget) == kept
