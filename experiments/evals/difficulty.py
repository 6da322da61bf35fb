"""How hard a task is, where its benchmark does not say: by the program that solves it, next to those of the others."""

import ast
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from codelm.errors import UserError
from experiments.evals.suite import Task

_THIRDS = ("1 easy", "2 middle", "3 hard")  # so that they sort


def by_size(tasks: Sequence[Task], programs: Sequence[str]) -> list[Task]:
    """The tasks with a slice more: in which third of them the nodes of its program's syntax tree are."""
    if not tasks:
        return []
    sizes = [_nodes(task.id, program) for task, program in zip(tasks, programs, strict=True)]
    limits = np.quantile(sizes, [1 / 3, 2 / 3], method="inverted_cdf")
    thirds = np.searchsorted(limits, sizes)  # equal sizes are equally hard
    return [
        replace(task, slices={**task.slices, "difficulty": _THIRDS[third]})
        for task, third in zip(tasks, thirds, strict=True)
    ]


def _nodes(name: str, program: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return sum(1 for _ in ast.walk(ast.parse(program)))
        except (SyntaxError, ValueError, RecursionError) as error:
            raise UserError(f"the solution of {name} is no Python ({error}): its file is damaged") from error
