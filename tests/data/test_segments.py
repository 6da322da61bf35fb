"""Cutting documents: nothing lost, nothing over the row, by hand and at random."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data import segments
from data.segments import LEAST, Costs


def costs(count: int, segment: int = 0, file: int = 0, name: int = 0, header: int = 0) -> Costs:
    return Costs(segment, file, np.full(count, name), np.full(count, header))


def anywhere(document: int, place: int) -> int:
    return place


def cut(
    units: list[list[int]], sizes: list[int], given: Costs, capacity: int, running: bool = False, boundary=anywhere
):
    found = segments.cut(units, np.array(sizes), given, capacity, boundary, running)
    parts, cuts = found.parts().tolist(), found.segments()
    bounds = [*cuts["first"].tolist(), len(parts)]
    listed = [parts[a:b] for a, b in pairwise(bounds)]
    return listed, cuts["length"].tolist(), cuts["complete"].tolist(), found.ends


def test_a_long_document_by_hand() -> None:
    parts, lengths, complete, _ = cut([[0], [1]], [250, 30], costs(2, segment=5, header=3), 100)
    assert parts == [[(0, 0, 92)], [(0, 92, 184)], [(0, 184, 250)], [(1, 0, 30)]]
    assert lengths == [100, 100, 74, 38]
    assert complete == [False, False, True, True]


def test_a_repository_by_hand() -> None:
    """Two files and the beginning of a third fill a row; its rest begins the next one."""
    parts, lengths, complete, _ = cut([[2, 0, 1]], [20, 90, 40], costs(3, segment=4, file=2, name=6, header=1), 100)
    assert parts == [[(2, 0, 40), (0, 0, 20), (1, 0, 21)], [(1, 21, 90)]]
    assert lengths == [100, 4 + 6 + 3 + 69]
    assert complete == [False, True]


def test_running_on_by_hand() -> None:
    parts, lengths, complete, ends = cut([[0], [1], [2]], [60, 70, 30], costs(3), 100, running=True)
    assert parts == [[(0, 0, 60)], [(1, 0, 40)], [(1, 40, 70)], [(2, 0, 30)]]
    assert (lengths, complete, ends) == ([60, 40, 30, 30], [True, False, True, True], [2])


def test_no_sliver_is_left_at_the_end_of_a_row() -> None:
    parts, _, _, ends = cut([[0], [1]], [100 - LEAST + 1, 50], costs(2), 100, running=True)
    assert parts == [[(0, 0, 85)], [(1, 0, 50)]]
    assert ends == [1]


def test_a_small_file_may_fill_what_is_left() -> None:
    parts, _, _, ends = cut([[0], [1]], [95, 5], costs(2), 100, running=True)
    assert parts == [[(0, 0, 95)], [(1, 0, 5)]]
    assert ends == []


def test_characters_stay_whole() -> None:
    parts, _, _, _ = cut([[0]], [25], costs(1), 20, boundary=lambda document, place: place // 4 * 4 - 1)
    assert parts == [[(0, 0, 19)], [(0, 19, 25)]]


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=5), min_size=1, max_size=8),
    st.integers(0, 6),
    st.integers(0, 4),
    st.booleans(),
)
def test_every_token_is_in_one_segment(units: list[list[int]], segment: int, header: int, running: bool) -> None:
    sizes = [size for unit in units for size in unit]
    numbers = iter(range(len(sizes)))
    numbered = [[next(numbers) for _ in unit] for unit in units]
    parts, lengths, complete, ends = cut(
        numbered, sizes, costs(len(sizes), segment=segment, header=header), 100, running
    )
    seen: dict[int, int] = dict.fromkeys(range(len(sizes)), 0)
    for listed, length in zip(parts, lengths, strict=True):
        assert length == segment + sum(header + stop - start for _, start, stop in listed) <= 100
        for document, start, stop in listed:
            assert start == seen[document] < stop
            seen[document] = stop
    assert list(seen.values()) == sizes
    assert sum(complete) == len(units)
    if running:
        bounds = [0, *ends, len(parts)]
        assert all(sum(lengths[a:b]) <= 100 for a, b in pairwise(bounds))
