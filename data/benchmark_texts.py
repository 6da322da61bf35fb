"""The texts of benchmarks that a corpus must not hold: each once, with where it comes from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import UInt64

from data import shingles
from data.benchmarks import Problem


@dataclass(frozen=True, slots=True)
class Text:
    label: str
    """The benchmark and the task."""
    benchmark: int
    problem: int
    """Copies of a problem (a row for each line to infill) have one number."""
    content: str
    words: UInt64[np.ndarray, " W"]
    is_code: bool
    """Whether it is worth looking for with its names changed."""
    if_short: bool
    """Whether all of it is evidence where that is only a few words: a function's code is, a `return` is not."""


def texts(problems: list[Problem]) -> list[Text]:
    hashed = cache(shingles.words)  # most rows of infilling are copies
    found: dict[tuple[int, str | bytes], Text] = {}
    benchmarks: dict[str, int] = {}
    numbers: dict[tuple[int, bytes], int] = {}
    for problem in problems:
        benchmark = benchmarks.setdefault(problem.benchmark, len(benchmarks))
        identity = hashed(problem.program or "\n".join((problem.prompt, *problem.other)))
        number = numbers.setdefault((benchmark, identity.tobytes()), len(numbers))
        label = f"{problem.benchmark} {problem.name}"
        for content, is_code, if_short in _contents(problem):
            words = hashed(content)
            same = "".join(content.split()) if is_code else words.tobytes()
            found.setdefault((benchmark, same), Text(label, benchmark, number, content, words, is_code, if_short))
    return list(found.values())


def _contents(problem: Problem) -> Iterator[tuple[str, bool, bool]]:
    """What to look for, whether it is code, and whether it counts if it is short."""
    yield problem.program, True, True
    yield _without_prose(problem.program), False, True
    if not problem.program.startswith(problem.prompt):
        yield problem.prompt, False, True
    yield problem.solution, False, False
    yield problem.tests, False, False
    for text in problem.other:
        yield text, _looks_like_code(text), False


_PROSE = re.compile(
    r"""("{3}[\s\S]*?"{3}|'{3}[\s\S]*?'{3}|\#.*)  # docstrings and comments
    |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'      # other strings, that what is in them is not taken for a comment""",
    re.VERBOSE,
)


def _without_prose(program: str) -> str:
    return _PROSE.sub(lambda found: " " if found[1] else found[0], program)


def _looks_like_code(text: str) -> bool:
    return sum(text.count(mark) for mark in "=()[]{};") > 0.03 * len(text)
