"""What was really changed: regions of files before and after, and versions of a file, from the commits there are."""

import difflib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from codelm.errors import UserError

ROOT = Path(__file__).parents[2]
AROUND = 8  # lines that stay as they are, before and after what is changed: a person selects a function


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


def files(suffix: str = ".py") -> Sequence[str]:
    return [name for name in _git("ls-files").splitlines() if name.endswith(suffix)]


def _exists(commit: str, path: str) -> bool:
    return bool(_git("ls-tree", commit, "--", path))


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {command[0]}: {done.stderr.strip()}")
    return done.stdout
