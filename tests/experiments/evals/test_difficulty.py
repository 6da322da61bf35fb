"""Thirds of a suite by the size of what solves its tasks."""

import pytest

from codelm.errors import UserError
from experiments.evals import difficulty
from experiments.evals.suite import Prompt, Task


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([3, 1, 2], "HEM"),
        ([5, 4, 3, 2, 1, 6], "HMMEEH"),
        ([1, 1, 1, 1], "EEEE"),
        ([1, 1, 1, 9], "EEEH"),
        ([7], "E"),
    ],
)
def test_longer_programs_are_harder_and_equal_ones_equally_hard(lengths: list[int], expected: str) -> None:
    tasks = [Task(str(n), Prompt(""), "", {"language": "Python"}) for n in range(len(lengths))]
    found = difficulty.by_size(tasks, ["\n".join(["x = 1  # \\w '\\w'"] * length) for length in lengths])
    names = {"E": "1 easy", "M": "2 middle", "H": "3 hard"}
    assert [task.slices for task in found] == [
        {"language": "Python", "difficulty": names[letter]} for letter in expected
    ]
    assert [task.id for task in found] == [task.id for task in tasks]


def test_a_solution_that_is_no_python_is_told() -> None:
    with pytest.raises(UserError, match=r"the solution of T/1 is no Python \(.*\): its file is damaged"):
        difficulty.by_size([Task("T/1", Prompt(""), "")], ["def ("])
    assert difficulty.by_size([], []) == []
