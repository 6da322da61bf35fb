"""In which order the files of a repository are joined: what a file needs before it, a test after what it tests."""

import heapq
import re
from collections.abc import Sequence
from typing import Any

from data.repository_files import Parts, nearest


def by_imports(dependencies: Sequence[Sequence[int]], ties: Sequence[Any]) -> list[int]:
    """Again and again the file with the fewest dependencies not yet placed; of several the first by its tie.

    Where imports go in no circle, every file comes after all that it imports. Where they do, a file of the circle
    that lacks least is placed without them (DeepSeek-Coder, arXiv:2401.14196, algorithm 1).

    >>> by_imports([[1], [], [0]], ties=["a.py", "b.py", "c.py"])
    [1, 0, 2]
    """
    rank = {number: place for place, number in enumerate(sorted(range(len(ties)), key=lambda number: ties[number]))}
    needed_by: list[list[int]] = [[] for _ in dependencies]
    for number, needed in enumerate(dependencies):
        for one in needed:
            needed_by[one].append(number)
    missing = [len(needed) for needed in dependencies]
    heap = [(missing[number], rank[number], number) for number in range(len(dependencies))]
    heapq.heapify(heap)
    order: list[int] = []
    placed = [False] * len(dependencies)
    while heap:
        *_, number = heapq.heappop(heap)
        if placed[number]:
            continue  # it was pushed again with fewer missing
        placed[number] = True
        order.append(number)
        for other in needed_by[number]:
            if not placed[other]:
                missing[other] -= 1
                heapq.heappush(heap, (missing[other], rank[other], other))
    return order


def beside_tests(order: Sequence[int], paths: Sequence[str]) -> list[int]:
    """The order with each test moved to directly after the file it tests; tests of one file keep their order.

    >>> beside_tests([0, 1, 2], ["tests/test_b.py", "a.py", "b.py"])
    [1, 2, 0]
    """
    tested = subjects(paths)
    present = set(order)
    tests: dict[int | None, list[int]] = {}
    for number in order:
        of = tested[number]
        tests.setdefault(of if of in present else None, []).append(number)
    return [placed for number in tests.get(None, ()) for placed in (number, *tests.get(number, ()))]


def satisfied(window: Sequence[int], dependencies: Sequence[Sequence[int]]) -> int:
    """How many files of a window of an order have a file that they import before them in it.

    >>> satisfied([1, 0, 2], dependencies=[[1], [], [3], []])
    1
    """
    before: set[int] = set()
    count = 0
    for number in window:
        count += not before.isdisjoint(dependencies[number])
        before.add(number)
    return count


_TEST_NAME = re.compile(
    r"(?:tests?|spec)[_-](.+)|Test([A-Z].*)|(.+)(?:[._-](?:test|tests|spec|specs|unittest|unittests)|(?:Tests?|Spec|TestCase))"
)
# Extensions of which one tests another; where there are several, the first is what a test is placed after.
_KINDS = [
    ("c", "cc", "cpp", "cxx", "c++", "cu", "h", "hh", "hpp", "hxx"),
    ("js", "jsx", "ts", "tsx", "mjs", "cjs", "mts", "cts", "vue", "svelte"),
    ("java", "kt", "groovy", "scala"),
    ("m", "mm"),
    ("ex", "exs"),
]
_KIND = {extension: (kind[0], place) for kind in _KINDS for place, extension in enumerate(kind)}
# Folders in which tests are kept apart from what they test, or the other way round.
_APART = {"test", "tests", "__tests__", "spec", "specs", "testing", "unit", "src", "main", "lib", "source", "include"}


def subjects(paths: Sequence[str]) -> list[int | None]:
    """For each file that by its name is a test the number of the file it tests, where there is one, and only one is
    nearest: as many folders shared as can be, from the root on or from the file on, whatever folders keep tests apart.
    """
    names = [_kind_and_subject(path) for path in paths]
    folders = [tuple(part for part in path.split("/")[:-1] if part.lower() not in _APART) for path in paths]
    backwards = [folder[::-1] for folder in folders]
    ways = [(_by_name(names, paths, parts), parts) for parts in (folders, backwards)]
    return [
        _closest([(found[name], parts) for found, parts in ways], number) if is_test and name in ways[0][0] else None
        for number, (name, is_test) in enumerate(names)
    ]


_Name = tuple[str, str]


def _kind_and_subject(path: str) -> tuple[_Name, bool]:
    """What a file is called or, if it is a test, what is called that it tests, with its kind; and whether it is."""
    stem, _, extension = path.rpartition("/")[2].rpartition(".")
    kind, _ = _KIND.get(extension.lower(), (extension.lower(), 0))
    if found := _TEST_NAME.fullmatch(stem):
        return (kind, next(group for group in found.groups() if group)), True
    return (kind, stem), False


def _by_name(
    names: Sequence[tuple[_Name, bool]], paths: Sequence[str], folders: Sequence[Parts]
) -> dict[_Name, list[int]]:
    """Files that are no tests, by kind and name, in the order of their folders."""

    def place(number: int) -> tuple[Parts, int, str]:
        path = paths[number]
        return folders[number], _KIND.get(path.rpartition(".")[2].lower(), ("", 0))[1], path

    found: dict[_Name, list[int]] = {}
    for number in sorted(range(len(names)), key=place):
        name, is_test = names[number]
        if not is_test:
            found.setdefault(name, []).append(number)
    return found


def _closest(ways: Sequence[tuple[list[int], Sequence[Parts]]], number: int) -> int | None:
    best: tuple[int, int] | None = None
    for candidates, folders in ways:
        to = folders[number]
        at, shared = nearest(candidates, folders, to)
        alone = len(candidates) == 1 or shared > 0 or folders[candidates[at]] == to
        if alone and (best is None or shared > best[0]):
            best = shared, candidates[at]
    return None if best is None else best[1]
