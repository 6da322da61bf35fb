"""Holes in repositories made into a suite: which files, which holes, what is shown beside them, what can be run.

>>> rows = build(repository_documents.read(folder), Settings(per_kind=20), pool)

Files are drawn from each repository, and of a file one hole of each kind. Repositories take turns, so that a large one
is not most of the suite. In a file with examples or unit tests that can be run, a hole that they cover goes before
others, and up to half of each kind are such holes. The same files and seed make the same rows.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from operator import eq

import numpy as np

from codelm.progress import Bar
from codelm.sandbox import Pool
from data import import_graph
from data.document import Document
from data.imports import imports
from data.repository_files import folder_of, parts_of
from data.spans import Span
from experiments.evals import doctests, file_checks, repository_holes, unit_tests
from experiments.evals.doctests import Example
from experiments.evals.repository_documents import Documents
from experiments.evals.repository_holes import KINDS, Kind
from experiments.evals.repository_rows import Row
from experiments.evals.unit_tests import UnitTest

_TRIES = 3  # holes of one kind in a file that are tried whether checks cover them
_MOST_OWNERS = 4  # functions and classes of a file whose examples are run; and so many whose unit tests are
_MOST_TESTS = 8  # of one of those
_MOST_FILES, _MOST_OF_FILE = 6, 4000  # beside a hole; characters


@dataclass(frozen=True)
class Settings:
    languages: tuple[str, ...] = ()
    """None: all that have a grammar and are code."""
    per_kind: int = 50
    """The most holes of each kind in each language."""
    files: int = 20
    """The most files of each repository."""
    seed: int = 0


@dataclass(frozen=True)
class _Checks:
    """What runs a hole: examples or tests, if anything does."""

    examples: tuple[Example, ...] = ()
    tests: tuple[UnitTest, ...] = ()

    def run(self, pool: Pool) -> file_checks.Run:
        if self.examples:
            return lambda before, written, after: doctests.run(pool, before, written, after, self.examples)
        return lambda before, written, after: unit_tests.run(pool, before, written, after, self.tests)


@dataclass(frozen=True)
class _Hole:
    repository: str
    file: int
    """Its number in the repository."""
    turn: int
    """Of the repository."""
    language: str
    kind: Kind
    span: Span
    checks: _Checks


def build(documents: Documents, settings: Settings, pool: Pool | None) -> list[Row]:
    """In random order, so that the first so many are of all kinds. Without a pool nothing is run, and no row has
    checks."""
    drawn = {name: _drawn(name, files, settings) for name, files in documents.by_repository.items()}
    found: list[_Hole] = []
    with Bar("looking for holes", sum(map(len, drawn.values())), "files") as bar:
        for name, numbers in drawn.items():
            tests = unit_tests.Repository(documents.by_repository[name])
            for turn, number in enumerate(numbers):
                found += _holes(name, turn, number, tests, settings.seed, pool)
                bar.advance(1)
    chosen = _chosen(found, settings)
    rows = []
    for name, files in documents.by_repository.items():
        if holes := [hole for hole in chosen if hole.repository == name]:
            known = [imports(file.text, file.language) for file in files]
            rows += [_row(hole, files, known) for hole in holes]
    return sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())


def _drawn(repository: str, files: Sequence[Document], settings: Settings) -> list[int]:
    """The numbers of the files that get holes, in random order."""
    languages = settings.languages
    wanted = [
        number
        for number, file in enumerate(files)
        if (file.language in languages if languages else repository_holes.is_code(file.language))
    ]
    return _random(settings.seed, repository).permutation(wanted)[: settings.files].tolist()


def _random(seed: int, *names: str) -> np.random.Generator:
    """Of names, so that what is drawn for one does not depend on which others there are."""
    digest = hashlib.sha256("\0".join(names).encode(errors="replace")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8])])


def _holes(
    repository: str, turn: int, number: int, tests: unit_tests.Repository, seed: int, pool: Pool | None
) -> Iterator[_Hole]:
    file = tests.files[number]
    rng = _random(seed, repository, file.path)
    spans = repository_holes.find(file.text, file.language)
    owners = [*_with_examples(file, rng, pool), *_with_tests(tests, number, rng, pool)] if pool else []
    for kind in KINDS:
        if spans[kind]:
            span, checks = _one(spans[kind], file.text, owners, rng, pool)
            yield _Hole(repository, number, turn, file.language, kind, span, checks)


def _with_examples(file: Document, rng: np.random.Generator, pool: Pool) -> Iterator[tuple[Span, _Checks]]:
    """Some of the functions and classes whose examples hold."""
    found = doctests.owners(file.text) if file.language == "Python" else []
    for number in sorted(rng.permutation(len(found))[:_MOST_OWNERS].tolist(), reverse=True):  # inner ones first
        checks = _Checks(found[number].examples)
        if file_checks.passes(checks.run(pool), file.text):
            yield found[number].span, checks


def _with_tests(
    repository: unit_tests.Repository, number: int, rng: np.random.Generator, pool: Pool
) -> Iterator[tuple[Span, _Checks]]:
    """Some of the functions and classes that unit tests use, and the tests that hold."""
    found, text = repository.tested(number), repository.files[number].text
    for owner in sorted(rng.permutation(len(found))[:_MOST_OWNERS].tolist()):
        span, tests = found[owner]
        some = [tests[n] for n in sorted(rng.permutation(len(tests))[:_MOST_TESTS].tolist())]
        if held := [test for test in some if file_checks.passes(_Checks(tests=(test,)).run(pool), text)]:
            yield span, _Checks(tests=tuple(held))


def _one(
    spans: Sequence[Span],
    text: str,
    owners: Sequence[tuple[Span, _Checks]],
    rng: np.random.Generator,
    pool: Pool | None,
) -> tuple[Span, _Checks]:
    """A hole that checks cover, if a few tries find one, and the checks; any hole else."""
    order = [spans[number] for number in rng.permutation(len(spans))]
    inside = [(span, checks) for span in order for owner, checks in owners if _is_inside(span, owner)]
    for span, checks in inside[:_TRIES]:
        if pool is not None and file_checks.covers(checks.run(pool), text, span):
            return span, checks
    return order[0], _Checks()


def _is_inside(span: Span, outer: Span) -> bool:
    return outer[0] <= span[0] and span[1] <= outer[1]


def _chosen(found: Sequence[_Hole], settings: Settings) -> list[_Hole]:
    groups: dict[tuple[str, Kind], list[_Hole]] = {}
    for hole in found:
        groups.setdefault((hole.language, hole.kind), []).append(hole)
    chosen = []
    for key in sorted(groups):
        holes = groups[key]
        lots = _random(settings.seed, *key).permutation(len(holes))
        order = sorted(range(len(holes)), key=lambda n, holes=holes, lots=lots: (holes[n].turn, lots[n]))
        run = [n for n in order if holes[n].checks != _Checks()][: (settings.per_kind + 1) // 2]
        others = (n for n in order if n not in run)
        chosen += [holes[n] for n in [*run, *others][: settings.per_kind]]
    return chosen


# ---- rows ----


def _row(hole: _Hole, files: Sequence[Document], known: Sequence[Sequence[str]]) -> Row:
    file, (start, end) = files[hole.file], hole.span
    prefix, middle, suffix = file.text[:start], file.text[start:end], file.text[end:]
    # An import that is hidden is not known.
    known = [*known[: hole.file], imports(prefix + suffix, file.language), *known[hole.file + 1 :]]
    copied = middle if hole.kind in ("block", "function") else ""
    name = f"{hole.repository}/{file.path}:{start}:{hole.kind}"
    examples, tests = hole.checks.examples, hole.checks.tests
    shown = beside(hole.file, files, known, copied, {test.path for test in tests})
    return Row(
        name, hole.repository, file.path, file.language, hole.kind, prefix, middle, suffix, shown, examples, tests
    )


def beside(
    number: int, files: Sequence[Document], known: Sequence[Sequence[str]], hidden: str, tests: Collection[str]
) -> list[tuple[str, str]]:
    """Beginnings of the files that a file imports, and of those of its language that are nearest by their paths; the
    imported ones last. None that has what is hidden, which a copy of the file would tell, and none of the tests that
    the hole is scored by."""
    paths, languages = [file.path for file in files], [file.language for file in files]
    folder = parts_of(folder_of(paths[number]))

    def distance(other: int) -> tuple[int, str]:
        same = map(eq, folder, parts_of(folder_of(paths[other])))
        return -sum(1 for _ in takewhile(bool, same)), paths[other]

    alike = (other for other in range(len(files)) if other != number and languages[other] == languages[number])
    imported = import_graph.dependencies(paths, languages, known)[number]
    order = dict.fromkeys([*imported, *sorted(alike, key=distance)])
    told = {other for other in order if (hidden and hidden in files[other].text) or paths[other] in tests}
    shown = [other for other in order if other not in told][:_MOST_FILES]
    return [(paths[other], _beginning(files[other].text)) for other in reversed(shown)]


def _beginning(text: str) -> str:
    """Whole lines."""
    return text if len(text) <= _MOST_OF_FILE else text[: text.rfind("\n", 0, _MOST_OF_FILE) + 1]
