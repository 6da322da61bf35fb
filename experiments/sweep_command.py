"""codelm sweep: the runs of a sweep, each in a process of its own."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import tyro

from codelm.commandline import parse
from codelm.config import fingerprint
from codelm.errors import UserError, nearest
from codelm.publish import check_writable
from data import inputs
from experiments import compare, records, sweep_inputs, sweeps
from experiments.sweeps import Run

File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Patterns = Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN…")]
Command = Callable[[Run, Path], list[str]]

LOG = "log.txt"
_GRACE = 120.0  # seconds in which a run that is told to stop may save its state
_TAIL = 4096  # bytes of a log in which its last line is looked for


@dataclass(frozen=True)
class SweepOptions:
    """Run every point of a sweep, each in a process of its own. What is finished stays; what failed is told at the end.

    The same command goes on where it was interrupted. Corpora and tokenizers are made once for all runs.

    On a cluster: codelm sweep FILE --prepare, then codelm sweep FILE --print > commands, one line a job.
    """

    file: File
    """A Python file with `def sweep() -> Sweep`; see experiments/sweeps.py."""
    dir: Path = inputs.RUNS
    """Folder of runs."""
    jobs: int = 1
    """Runs at a time."""
    only: Patterns = ()
    """Only runs whose name matches one of these: '*depth=4*'."""
    prepare: bool = False
    """Make the corpora and tokenizers, and run nothing."""
    print: bool = False
    """Print one command a run that is not finished, and run nothing."""


def sweep(argv: list[str], prog: str) -> None:
    options = parse(SweepOptions, argv, prog)
    if options.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {options.jobs}")
    runs = chosen(sweeps.planned(sweeps.load(options.file)), options.only)
    todo = [run for run in runs if not finished(run, options.dir)]
    _say(f"{options.file.stem}: {_count(runs)}, {len(runs) - len(todo)} of them finished before")
    if options.print:
        print("\n".join(shlex.join(command(run, options.dir)) for run in todo))
        return
    check_writable(options.dir / LOG)
    sweep_inputs.prepare((run.config for run in todo), options.dir)
    if options.prepare:
        return
    failures = run_all(todo, options.dir, options.jobs, command)
    if done := [run for run in runs if finished(run, options.dir)]:
        print(compare.text([records.load(options.dir / run.name) for run in done]))
    if failures:
        lines = "".join(f"\n  {run.name}: {why}" for run, why in failures)
        raise SystemExit(f"codelm: error: {len(failures)} of {len(runs)} runs failed:{lines}")


def chosen(runs: list[Run], patterns: Sequence[str]) -> list[Run]:
    """Runs whose name matches a pattern; all of them if there is none."""
    names = [run.name for run in runs]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--only {pattern} matches no run; nearest: {nearest(pattern, names)}")
    return [run for run in runs if not patterns or any(fnmatchcase(run.name, pattern) for pattern in patterns)]


def finished(run: Run, folder: Path) -> bool:
    """Whether there is a result, and of this config."""
    return records.result(folder / run.name).get("fingerprint") == fingerprint(run.config)


def command(run: Run, folder: Path) -> list[str]:
    overrides = sweeps.arguments((("name", run.name), *run.overrides))
    return [sys.executable, "-m", "codelm", "run", run.file, f"--dir={folder}", *overrides]


def run_all(todo: Sequence[Run], folder: Path, jobs: int, command: Command) -> list[tuple[Run, str]]:
    """Runs them, `jobs` at a time, and goes on when one fails; which failed, and why."""
    failures, waiting, start, ended = [], deque(todo), time.monotonic(), 0
    with _stopped_together() as running:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.popleft()
                running[_started(command(run, folder), folder / run.name / LOG)] = run
                _say(f"{run.name}: started, see {folder / run.name / LOG}")
            process = _first_to_end(list(running))
            run, ended = running.pop(process), ended + 1
            left = len(todo) - ended
            rest = (time.monotonic() - start) / ended * left
            if why := _failure(process, run, folder):
                failures.append((run, f"{why}; see {folder / run.name / LOG}"))
                _say(f"{run.name}: FAILED, {why}; {left} left")
            else:
                _say(f"{run.name}: {_result(folder / run.name)}; {left} left{f', about {rest:,.0f} s' if left else ''}")
    return failures


@contextlib.contextmanager
def _stopped_together() -> Iterator[dict[subprocess.Popen, Run]]:
    """Runs that end with this process: on Ctrl-C or SIGTERM they save their states, and nothing of them stays behind.

    Each has a session of its own, so that Ctrl-C reaches it once, through here. They get SIGTERM, which stops those too
    that were started in the background and so ignore SIGINT.
    """
    running: dict[subprocess.Popen, Run] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield running
    except KeyboardInterrupt:
        _say(
            f"stopping {_count(running)}, once what they did is saved (Ctrl-C again: at once); the same command goes on"
        )
        for process in running:
            process.terminate()
        until = time.monotonic() + _GRACE
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            for process in running:
                process.wait(max(until - time.monotonic(), 0))
        raise
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _started(argv: list[str], log: Path) -> subprocess.Popen:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            channels = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
            said_at_once = {**os.environ, "PYTHONUNBUFFERED": "1"}
            return subprocess.Popen(argv, **channels, env=said_at_once, start_new_session=True)
    except OSError as error:
        raise UserError(f"cannot write {log}: {error.strerror}") from error


def _first_to_end(running: list[subprocess.Popen]) -> subprocess.Popen:
    while True:
        for process in running:
            if process.poll() is not None:
                return process
        time.sleep(0.05)


def _failure(process: subprocess.Popen, run: Run, folder: Path) -> str:
    """Why a run that ended is not finished; empty if it is. One that is preempted ends well, and is not finished."""
    if process.returncode == 0:
        return "" if finished(run, folder) else f"it ended without {records.RESULT}"
    ended = f"exit code {process.returncode}"
    if process.returncode < 0:
        ended = f"killed by {signal.Signals(-process.returncode).name}"
    with (folder / run.name / LOG).open("rb") as log:
        log.seek(max(log.seek(0, os.SEEK_END) - _TAIL, 0))
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{ended}: {last}"


def _result(folder: Path) -> str:
    result = records.result(folder)
    return f"held-out loss {result['held_out_loss']:.3f} in {result['seconds']:,.0f} s"


def _count(runs: Sized) -> str:
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
