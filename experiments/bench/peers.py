"""Programs to measure next to ours: each a process, in an interpreter that has what it needs, that answers JSON."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codelm.errors import UserError

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def interpreter(given: str, needs: Sequence[str], option: str) -> str | None:
    """The one given, or this one where it has what the peer needs; else None, and why is said."""
    if given:
        if not shutil.which(given):
            raise UserError(f"no interpreter {given!r}: give the path of one that has {', '.join(needs)}: {option}")
        return given
    if missing := [name for name in needs if not importlib.util.find_spec(name)]:
        print(
            f"skipped: {missing[0]} is not installed; give an interpreter that has it: {option} PATH", file=sys.stderr
        )
        return None
    return sys.executable


@contextmanager
def asking(python: str, script: Path) -> Iterator[Ask]:
    """A peer that waits for questions."""
    with subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            if not (answer := process.stdout.readline()):
                raise UserError(f"{python} could not run {script.name}: what it said is above")
            return json.loads(answer)

        yield ask
