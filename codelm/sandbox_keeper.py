"""Keeps sandboxes started ahead of the jobs that come for them, and the process that tests are forked from."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

from codelm import sandbox_bubblewrap
from codelm.sandbox_process import Broken, Home, Sandbox

_AGAIN = 0.5  # seconds before another try, where none could be started
_PATIENCE = 60.0  # seconds that a job waits for a sandbox


class Keeper:
    """Starts them all in one thread, which lives as long as they may: bwrap dies with the thread that started it."""

    def __init__(self, workers: int, unsafe: bool) -> None:
        self.home = Home(unsafe)
        self._counted = () if unsafe else ("counted",)  # without a namespace all your processes count as one's own
        self._turns = threading.Semaphore(workers)
        self._warm: queue.Queue[Sandbox | Broken] = queue.Queue(workers)
        self._used: set[Sandbox] = set()
        self._examiner: Sandbox | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sandboxes", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            try:
                if self._examiner is None or not self._examiner.alive():
                    self._start_examiner()
                made: Sandbox | Broken = Sandbox(self.home, "sandbox_inside", self._counted)
            except (Broken, OSError) as error:
                made = error if isinstance(error, Broken) else Broken(str(error))
                self._closed.wait(_AGAIN)
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._warm.put(made, timeout=0.2)
                    break
            else:
                if isinstance(made, Sandbox):
                    made.kill()

    def _start_examiner(self) -> None:
        packages = sandbox_bubblewrap.packages(self.home.unsafe)
        examiner = Sandbox(self.home, "sandbox_examiner", (packages,))
        try:
            examiner.ready()
        except Broken:
            examiner.kill()
            raise
        with self._lock:
            if self._examiner:
                self._examiner.kill()
            self._examiner = examiner

    @contextlib.contextmanager
    def sandbox(self) -> Iterator[Sandbox]:
        """One for a job, when it is its turn; gone afterwards."""
        with self._turns:
            taken = self._next()
            with self._lock:
                self._used.add(taken)
            try:
                taken.ready()
                yield taken
            finally:
                with self._lock:
                    self._used.discard(taken)
                taken.kill()

    def _next(self) -> Sandbox:
        deadline = time.monotonic() + _PATIENCE
        while not self._closed.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                taken = self._warm.get(timeout=0.2)
                if isinstance(taken, Broken):
                    raise taken
                return taken
        raise Broken("the pool is closed" if self._closed.is_set() else "no sandbox was started")

    def examine(self, candidate: socket.socket) -> socket.socket:
        """Fork a process for tests that has a candidate's channel; what is returned is ours to it."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            if self._examiner is None or self._closed.is_set():
                ours.close()
                raise Broken("the pool is closed")
            try:
                socket.send_fds(self._examiner.channel, [b"!"], [candidate.fileno(), theirs.fileno()])
            except OSError as error:
                ours.close()
                raise Broken(f"the tests' process: {error}") from error
        return ours

    def close(self) -> None:
        """Ends what still runs too."""
        self._closed.set()
        self._thread.join()
        with self._lock:
            for sandbox in self._used:
                sandbox.stop()
            if self._examiner:
                self._examiner.kill()
                self._examiner = None
        with contextlib.suppress(queue.Empty):
            while True:
                made = self._warm.get_nowait()
                if isinstance(made, Sandbox):
                    made.kill()
        self.home.remove()
