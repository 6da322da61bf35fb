"""Where tasks run: in processes of this machine, or on an Apache Beam runner. A task leaves its result in a file."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from codelm.errors import UserError

# Runs a function over every task, in any order, and yields each as it is finished.
type Runner = Callable[[Callable, Iterable], Iterator]


def local(workers: int) -> Runner:
    """As many processes as workers; one worker is this process itself."""

    def run[Task](function: Callable[[Task], None], tasks: Iterable[Task]) -> Iterator[Task]:
        if workers == 1:
            for task in tasks:
                function(task)
                yield task
            return
        yield from _in_processes(function, iter(tasks), workers)

    return run


def _in_processes[Task](function: Callable[[Task], None], tasks: Iterator[Task], workers: int) -> Iterator[Task]:
    spawn = multiprocessing.get_context("spawn")  # forking a process that has threads (JAX) can hang
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn, initializer=_follow_the_parent)
    running: dict[concurrent.futures.Future, Task] = {}
    try:
        while True:
            for task in islice(tasks, 2 * workers - len(running)):  # no more than are needed wait in memory
                running[pool.submit(function, task)] = task
            if not running:
                break
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                future.result()
                yield task
        pool.shutdown()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker died (out of memory?): run the same command again to go on, perhaps with fewer --workers"
        ) from error
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _follow_the_parent() -> None:
    """Ctrl-C is for the parent, which ends its workers; when it is killed they end by themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def beam(options: Sequence[str]) -> Runner:
    """A Beam pipeline for each stage; the options are Beam's own, `--runner` among them."""

    def run[Task](function: Callable[[Task], None], tasks: Iterable[Task]) -> Iterator[Task]:
        try:
            import apache_beam
        except ImportError as error:
            raise UserError('--runner beam needs apache-beam: make install EXTRAS="data beam"') from error
        listed = list(tasks)
        with apache_beam.Pipeline(argv=list(options)) as pipeline:
            _ = pipeline | apache_beam.Create(listed) | apache_beam.Reshuffle() | apache_beam.Map(function)
        yield from listed

    return run


def beam_here(workers: int) -> list[str]:
    """Options for Beam's own runner in several processes of this machine."""
    here = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    return [*here, "--default_sdk_harness_log_level=ERROR"]
