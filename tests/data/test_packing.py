"""Packing against doing it slowly, and against the best that can be done."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.packing import best_fit

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


def rows_of(lengths: list[int], capacity: int, window: int = 1 << 17) -> list[list[int]]:
    order, counts = best_fit(np.array(lengths, np.int64), capacity, window)
    bounds = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [order[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def slowly(lengths: list[int], capacity: int) -> list[int]:
    """How full each row is: the longest first, each where it leaves the least space."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [n for n, used in enumerate(rows) if used + length <= capacity]
        if fitting:
            rows[max(fitting, key=lambda n: rows[n])] += length
        else:
            rows.append(length)
    return sorted(rows)


@given(LENGTHS, st.integers(40, 100), st.sampled_from([7, 1 << 17]))
def test_every_item_is_in_one_row_and_none_overflows(lengths: list[int], capacity: int, window: int) -> None:
    rows = rows_of(lengths, capacity, window)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in row) <= capacity for row in rows)


@given(LENGTHS, st.integers(40, 100))
def test_it_is_best_fit(lengths: list[int], capacity: int) -> None:
    rows = rows_of(lengths, capacity)
    assert sorted(sum(lengths[item] for item in row) for row in rows) == slowly(lengths, capacity)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=7))
def test_it_is_near_the_best(lengths: list[int]) -> None:
    """Best fit by falling length needs at most 11/9 of the fewest rows, and 6/9 more."""
    assert len(rows_of(lengths, 10)) <= 11 / 9 * fewest(lengths, 10) + 6 / 9


def fewest(lengths: list[int], capacity: int) -> int:
    """Over all subsets: the fewest full rows, and then the least in the row that is open."""
    best = {0: (1, 0)}
    for subset in range(1, 1 << len(lengths)):
        ways = []
        for n, length in enumerate(lengths):
            if subset >> n & 1:
                rows, used = best[subset ^ 1 << n]
                ways.append((rows, used + length) if used + length <= capacity else (rows + 1, length))
        best[subset] = min(ways)
    return best[(1 << len(lengths)) - 1][0]


def test_what_fits_exactly_shares_a_row() -> None:
    assert sorted(map(sorted, rows_of([6, 4, 10, 3, 7], 10))) == [[0, 1], [2], [3, 4]]


@pytest.mark.parametrize("capacity", [2048, 131072])
def test_little_space_is_left(capacity: int) -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(6.5, 1.2, 20000).astype(int) + 1, capacity)
    _, counts = best_fit(lengths, capacity)
    assert lengths.sum() / (len(counts) * capacity) > 0.995
