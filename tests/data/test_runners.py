"""Tasks on several processes: all of them, no more than fit, and no hanging when something dies."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from codelm.errors import UserError
from data import runners


@dataclass(frozen=True)
class Task:
    number: int
    folder: str = ""


def leave_a_mark(task: Task) -> None:
    (Path(task.folder) / f"{task.number}-{os.getpid()}").touch()


def refuse(task: Task) -> None:
    raise UserError(f"task {task.number} is not for me")


def die(task: Task) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_runs_once_and_is_told(tmp_path: Path, workers: int) -> None:
    tasks = [Task(n, str(tmp_path)) for n in range(9)]
    done = list(runners.local(workers)(leave_a_mark, iter(tasks)))
    assert sorted(task.number for task in done) == list(range(9))
    marks = [file.name.split("-") for file in tmp_path.iterdir()]
    assert sorted(int(number) for number, _ in marks) == list(range(9))
    assert (str(os.getpid()) in {process for _, process in marks}) == (workers == 1)


def test_tasks_are_taken_as_they_are_needed(tmp_path: Path) -> None:
    taken = []

    def tasks():
        for n in range(100):
            taken.append(n)
            yield Task(n, str(tmp_path))

    running = runners.local(2)(leave_a_mark, tasks())
    next(running)
    assert len(taken) < 10
    running.close()


def test_an_error_in_a_worker_is_the_users_to_read() -> None:
    with pytest.raises(UserError, match="task 0 is not for me"):
        list(runners.local(2)(refuse, [Task(0)]))


def test_a_worker_that_dies_ends_the_build_with_advice() -> None:
    with pytest.raises(UserError, match=r"a worker died .* with fewer --workers"):
        list(runners.local(2)(die, [Task(n) for n in range(4)]))


LONG = """
import sys, time
from data import runners
from tests.data.test_runners import Task, sleep
list(runners.local(2)(sleep, [Task(n, sys.argv[1]) for n in range(2)]))
"""


def sleep(task: Task) -> None:
    leave_a_mark(task)
    time.sleep(60)


def lives(process: int) -> bool:
    """A process that has ended but was not waited for has no command line."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", LONG, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(marks := list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(how)
    parent.wait()
    workers = [int(mark.name.split("-")[1]) for mark in marks]
    while any(lives(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.02)
