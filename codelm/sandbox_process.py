"""One sandbox as its pool sees it: started ahead, given one job, listened to until a deadline, killed."""

import contextlib
import os
import py_compile
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from codelm import sandbox_bubblewrap, sandbox_codec

_START = 30.0  # seconds; many times what it takes
_DIES = 1.0  # seconds
_LOOK = 0.1  # seconds between looks at memory
_MODULES = ("sandbox_checks", "sandbox_codec", "sandbox_examiner", "sandbox_inside")


class Over(Exception):
    """It was stopped; the argument says why: timeout, memory, output."""


class Broken(Exception):
    """No sandbox came up, which is nobody's fault inside; the argument says what bwrap said."""


class Home:
    """What all sandboxes of a pool share: our code, compiled once, and the filter."""

    def __init__(self, unsafe: bool) -> None:
        self.unsafe = unsafe
        self.folder = Path(tempfile.mkdtemp(prefix="codelm-sandbox-"))
        self.driver = self.folder / "driver"
        (self.driver / "codelm").mkdir(parents=True)
        for name in _MODULES:
            source = Path(__file__).with_name(f"{name}.py")
            # As if it lay nowhere: a traceback need not tell where this checkout is.
            py_compile.compile(str(source), str(self.driver / "codelm" / f"{name}.pyc"), f"{name}.py", doraise=True)
        for path in [self.folder, *self.folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)  # others than the one who runs this come to read it
        self.filter = None if unsafe else sandbox_bubblewrap.filter_of(self.folder)

    @property
    def seen_driver(self) -> str:
        return str(self.driver) if self.unsafe else sandbox_bubblewrap.DRIVER

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Sandbox:
    """A process with a channel. Nothing that it does can hold up who listens, nor grow beyond what is allowed."""

    def __init__(self, home: Home, module: str, arguments: tuple[str, ...] = ()) -> None:
        self.channel, theirs = socket.socketpair()
        self.output, self.errors = bytearray(), bytearray()
        self._heard = bytearray()
        self._scratch = tempfile.mkdtemp(prefix="scratch-", dir=home.folder) if home.unsafe else None
        walls, passed = [], [theirs.fileno()]
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            if not home.unsafe:
                opened = stack.enter_context(home.filter.open("rb")).fileno() if home.filter else -1
                passed += [opened] if home.filter else []
                walls = sandbox_bubblewrap.command(str(home.driver), opened)
            user = 0 if home.unsafe else sandbox_bubblewrap.user()
            argv = sandbox_bubblewrap.argv(module, home.seen_driver, (str(theirs.fileno()), str(user), *arguments))
            self._process = subprocess.Popen(
                [*walls, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=sandbox_bubblewrap.environment(self._scratch),
                cwd=self._scratch or "/",
                pass_fds=passed,
                start_new_session=True,
            )
        assert self._process.stdout
        assert self._process.stderr
        self._pipes = {self._process.stdout.fileno(): self.output, self._process.stderr.fileno(): self.errors}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        self._exit = os.pidfd_open(self._process.pid)

    def begin(self, deadline: float, output_bytes: int = 1 << 16, memory_mb: int = 1 << 20) -> None:
        """From here on this deadline, and these bounds of what it says and holds."""
        self.deadline, self._most_output, self._memory_mb = deadline, output_bytes, memory_mb

    def ready(self) -> "Sandbox":
        """Wait until it listens; Broken where it never will."""
        self.begin(time.monotonic() + _START)
        try:
            said = self.hear(self.channel)
        except Over:
            said = None
        if said != sandbox_codec.encode("ready"):
            with contextlib.suppress(Over):
                self.begin(time.monotonic() + 1)
                self.hear(None)
            lines = self.errors.decode(errors="replace").strip().splitlines()
            raise Broken(lines[-1] if lines else "it did not start")
        return self

    def tell(self, to: socket.socket, message: object) -> None:
        """Raises Over where it is not taken in time; who has gone is noticed by listening."""
        to.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            to.sendall(sandbox_codec.frame(sandbox_codec.encode(message)))
        except TimeoutError:
            raise Over("timeout") from None
        except OSError:
            pass

    def hear(self, source: socket.socket | None) -> str | None:
        """The next message of a source, None at its end; without a source, None once the process has ended."""
        poll = select.poll()
        waited_for = self._exit if source is None else source.fileno()
        for descriptor in (*self._pipes, waited_for):
            poll.register(descriptor, select.POLLIN)
        while True:
            if source is not None and (text := self._message()) is not None:
                return text
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Over("timeout")
            happened = poll.poll(min(left, _LOOK) * 1000 + 1)
            for descriptor, _ in happened:
                if descriptor in self._pipes and not self._drain(descriptor):
                    poll.unregister(descriptor)
            if any(descriptor == waited_for for descriptor, _ in happened):
                if source is None or not self._listen(source):
                    self.drain()
                    return None
            elif time.monotonic() - self._looked > _LOOK:
                self._look()

    _looked = 0.0

    def _look(self) -> None:
        self._looked = time.monotonic()
        if _memory(self._process.pid) > self._memory_mb << 20:
            raise Over("memory")

    def _listen(self, source: socket.socket) -> bool:
        """Take what a source has; False at its end."""
        try:
            piece = source.recv(1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._heard += piece
        return bool(piece)

    def _message(self) -> str | None:
        if len(self._heard) < 4:
            return None
        size = int.from_bytes(self._heard[:4], "big")
        if size > sandbox_codec.MOST_BYTES or size > max(self._most_output * 4, 1 << 20):
            raise Over("output")
        if len(self._heard) < 4 + size:
            return None
        data = self._heard[4 : 4 + size]
        del self._heard[: 4 + size]
        return sandbox_codec.text_of(data)

    def _drain(self, pipe: int) -> bool:
        """Take what lies in a pipe; False at its end."""
        while True:
            try:
                piece = os.read(pipe, 1 << 16)
            except BlockingIOError:
                return True
            self._pipes[pipe] += piece
            if len(self.output) + len(self.errors) > self._most_output:
                raise Over("output")
            if not piece:
                return False

    def drain(self) -> None:
        for pipe in self._pipes:
            self._drain(pipe)

    def forget(self) -> None:
        """What it has said so far."""
        self.drain()
        self.output.clear()
        self.errors.clear()

    def alive(self) -> bool:
        return self._process.poll() is None

    def status(self, patience: float = 0.0) -> int | None:
        """As a shell tells it: 128 and more for a signal; None while it runs."""
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return status if status >= 0 else 128 - status

    def stop(self) -> None:
        """The first process of its namespace dies, and with it the kernel ends all others. From any thread."""
        if self._process.returncode is not None:
            return
        inner = [] if self._scratch else _children(self._process.pid)
        for pid in inner:  # bwrap itself, its parent, reaps it and ends
            _signal(os.kill, pid)
        if not inner:
            _signal(os.killpg, self._process.pid)

    def kill(self) -> None:
        """Stop it and leave nothing of it. Once, by the thread that it belongs to."""
        self.stop()
        if self.status(_DIES) is None:
            _signal(os.killpg, self._process.pid)
            self._process.wait()
        os.close(self._exit)
        self.channel.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _signal(kill: Callable[[int, int], None], pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def _memory(pid: int) -> int:
    """Bytes that a process and all below it hold that is no file's."""
    held = 0
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                held += int(line.split()[1]) << 10
    return held + sum(_memory(child) for child in _children(pid))
