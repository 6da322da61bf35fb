"""What was really changed: regions of files before and after, and versions of a file, from the commits there are."""

import difflib
import itertools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from codelm.errors import UserError

ROOT = Path(__file__).parents[2]
AROUND = 8  # lines that stay as they are, before and after what is changed: a person selects a function


PASTED = 240  # characters that come at once: more than that nobody types without a stop


class Key(NamedTuple):
    """The characters from start to end are replaced: by a letter, by nothing, or by what was pasted. A move changes
    nothing."""

    kind: Literal["type", "delete", "move", "paste"]
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Edit:
    before: str
    """The file up to the region."""
    old: str
    new: str


def versions(path: str) -> list[str]:
    """A file as every commit that changed it left it, the oldest first."""
    commits = _git("log", "--reverse", "--format=%H", "--", path).split()
    if not commits:
        raise UserError(f"{path} has no history here: the benchmark wants a clone with its commits, not a copy")
    return [_git("show", f"{commit}:{path}") for commit in commits if _exists(commit, path)]


def edits(path: str) -> Iterator[Edit]:
    """Every stretch of lines that a commit changed, with some around it."""
    for old, new in pairwise(versions(path)):
        first, second = old.splitlines(keepends=True), new.splitlines(keepends=True)
        for group in difflib.SequenceMatcher(None, first, second, autojunk=False).get_grouped_opcodes(AROUND):
            (_, a, _, c, _), (_, _, b, _, d) = group[0], group[-1]
            yield Edit("".join(first[:a]), "".join(first[a:b]), "".join(second[c:d]))


def keys(old: str, new: str) -> Iterator[Key]:
    """How a person would make one text of another, from the top: to every place that changes, with backspaces for what
    goes, a letter at a time for what comes, or at once if it is much."""
    offset, cursor = 0, -1
    for tag, a, b, c, d in _changes(old, new):
        if tag == "equal":
            continue
        at = b + offset  # behind what goes
        if at != cursor:
            yield Key("move", at, at, "")
        if b - a > PASTED:
            yield Key("delete", a + offset, at, "")
        else:
            yield from (Key("delete", i - 1, i, "") for i in range(at, a + offset, -1))
        at, text = a + offset, new[c:d]
        if len(text) > PASTED:
            yield Key("paste", at, at, text)
        else:
            yield from (Key("type", at + i, at + i, letter) for i, letter in enumerate(text))
        offset, cursor = offset + len(text) - (b - a), at + len(text)


def _changes(old: str, new: str) -> Iterator[tuple[str, int, int, int, int]]:
    """By character, within the lines that differ: over whole files that would take too long."""
    first, second = old.splitlines(keepends=True), new.splitlines(keepends=True)
    at, to = ([0, *itertools.accumulate(map(len, lines))] for lines in (first, second))
    for tag, a, b, c, d in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag != "replace" or max(at[b] - at[a], to[d] - to[c]) > 10 * PASTED:
            yield tag, at[a], at[b], to[c], to[d]
            continue
        for inner in difflib.SequenceMatcher(None, old[at[a] : at[b]], new[to[c] : to[d]], False).get_opcodes():
            yield inner[0], inner[1] + at[a], inner[2] + at[a], inner[3] + to[c], inner[4] + to[c]


def files(suffix: str = ".py") -> Sequence[str]:
    return [name for name in _git("ls-files").splitlines() if name.endswith(suffix)]


def _exists(commit: str, path: str) -> bool:
    return bool(_git("ls-tree", commit, "--", path))


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {command[0]}: {done.stderr.strip()}")
    return done.stdout
