"""Which source a row is from, against counting from the first row."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.mixture import Mixture, Part

SHARES = st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any)


@given(SHARES, SHARES, st.integers(0, 60))
def test_rows_of_a_source_are_counted_on(first: list[int], second: list[int], boundary: int) -> None:
    """Walking from row 0: every source's rows are 0, 1, 2, …, over the boundary too; `taken` knows how many."""
    second = (second * 6)[: len(first)]
    if not any(second):
        second = first
    parts = (Part(0, tuple(first)), Part(boundary, tuple(second))) if boundary else (Part(0, tuple(first)),)
    mixture, seen = Mixture(parts), Counter[int]()
    for row in range(120):
        assert mixture.taken(row) == [seen[source] for source in range(len(first))]
        source, number = mixture.locate(row)
        assert number == seen[source]
        assert (second if boundary and row >= boundary else first)[source] > 0
        seen[source] += 1


@given(SHARES, st.integers(0, 10**12), st.integers(1, 400))
def test_shares_hold_over_any_run_of_rows(shares: list[int], start: int, length: int) -> None:
    mixture = Mixture((Part(0, tuple(shares)),))
    before, after = mixture.taken(start), mixture.taken(start + length)
    for share, a, b in zip(shares, before, after, strict=True):
        assert abs((b - a) - length * share / sum(shares)) <= len(shares)


def test_shares_by_hand() -> None:
    mixture = Mixture((Part(0, (1, 1)), Part(4, (0, 1))))
    assert [mixture.locate(row) for row in range(7)] == [(1, 0), (0, 0), (1, 1), (0, 1), (1, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize("row", [0, 10**15])
def test_a_tiny_share_comes_in_the_end(row: int) -> None:
    mixture = Mixture((Part(0, (10**12, 1)),))
    assert mixture.taken(row + 3 * 10**12)[1] - mixture.taken(row)[1] == pytest.approx(3, abs=1)
