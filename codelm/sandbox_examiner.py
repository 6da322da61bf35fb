"""Where tests run: a process of its own for each, forked from one that has numpy ready, with proxies of a candidate.

The tests are trusted; what a candidate answers is not, and is read as plain data only. Whatever ends a test early
is kept, so that no `except` of the tests can hide it.
"""

import builtins
import contextlib
import gc
import marshal
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from codelm import sandbox_codec
from codelm.sandbox_checks import RAN
from codelm.sandbox_codec import Malformed, NotPlain
from codelm.sandbox_inside import become

_SPARE_MB = 2048  # address space beside what a candidate may use: numpy's


ENDED_EARLY = "its process ended early"


class Ended(BaseException):
    """The candidate can be asked no more. No Exception, since tests catch those."""


@dataclass
class Candidate:
    """The other end of a candidate's channel."""

    channel: int
    ended: tuple[str, str] | None = None
    """Why it can be asked no more: reason and detail."""
    raised: list[BaseException] = field(default_factory=list)
    """Exceptions that came from it, which are no fault of the tests."""
    answered: bool = False

    def hear(self) -> tuple[str, object]:
        """What it says next: ("value", …), ("object", number), ("loaded", kinds). All else ends it or is raised."""
        if self.ended:
            raise Ended
        try:
            text = sandbox_codec.receive(self.channel)
            if text and text[0] == "=":
                self.answered = True
                return "value", sandbox_codec.decode(text[1:])
            said = sandbox_codec.decode(text) if text else None
        except OSError:
            said = None
        except Malformed as error:
            self.end("result", f"{error}")
        match said:
            case None:
                self.end("crash", ENDED_EARLY)
            case ("object", int()) | ("loaded", dict()):
                return said[0], said[1]
            case ("raised" | "memory", str(name), str(message)):
                self._raise(name, message)
            case ("exit", str(name)):
                self.end("crash", f"it raised {name[:100]}")
            case ("syntax" | "result" as reason, str(detail)):
                self.end(reason, detail[:500])
        self.end("result", "an answer that is none")

    def ask(self, *question: object) -> object:
        try:
            sandbox_codec.send(self.channel, sandbox_codec.encode(question, _name_of))
        except OSError:
            self.end("crash", ENDED_EARLY)
        except NotPlain as error:
            self.end("sandbox", f"the tests pass what cannot be sent: {error}")
        kind, value = self.hear()
        return Object(self, f"#{value}") if kind == "object" else value

    def end(self, reason: str, detail: str) -> NoReturn:
        self.ended = (reason, detail)
        raise Ended

    def _raise(self, name: str, message: str) -> NoReturn:
        kind = getattr(builtins, name, None)
        # A StopIteration would end a loop of the tests over map(candidate, …) before its checks.
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, StopIteration):
            kind, message = RuntimeError, f"{name}: {message}"
        try:
            error = kind(message)
        except Exception:  # UnicodeDecodeError and others want more than a message
            error = RuntimeError(f"{name}: {message}")
        self.raised.append(error)
        raise error


class Function:
    """A proxy of a function or class: can be called."""

    __slots__ = ("_ask", "name")

    def __init__(self, candidate: Candidate, name: str) -> None:
        self._ask, self.name = candidate.ask, name

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._ask("call", self, args, kwargs)


class Object:
    """A proxy of what a candidate's class made: attributes and calls. All else ends the test: were it forwarded, an
    object that says it equals everything would pass."""

    __slots__ = ("_candidate", "_name")

    def __init__(self, candidate: Candidate, name: str) -> None:
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_name", name)

    def __getattribute__(self, attribute: str) -> object:
        if attribute.startswith("__") and attribute.endswith("__"):
            return object.__getattribute__(self, attribute)
        return object.__getattribute__(self, "_candidate").ask("get", self, attribute)

    def __setattr__(self, attribute: str, value: object) -> None:
        object.__getattribute__(self, "_candidate").ask("set", self, attribute, value)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return object.__getattribute__(self, "_candidate").ask("call", self, args, kwargs)


def _refusal(operation: str) -> Callable[..., None]:
    def refuse(self: Object, *_: object) -> None:
        object.__getattribute__(self, "_candidate").end("result", f"{operation} of an object, which is no plain data")

    return refuse


_OPERATIONS = """eq ne lt le gt ge hash bool len iter next reversed contains getitem setitem delitem repr str format
bytes index int float complex round trunc floor ceil abs neg pos invert enter exit await delattr dir
add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or
radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror
iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand ixor ior array"""
for _operation in _OPERATIONS.split():
    setattr(Object, f"__{_operation}__", _refusal(f"__{_operation}__"))


def _name_of(value: object) -> str | None:
    if type(value) is Function:
        return value.name
    return object.__getattribute__(value, "_name") if type(value) is Object else None


def examine(job: dict, channel: int) -> tuple[list[int], str, str]:
    """Run tests against the candidate at the other end: the asserts that held, a reason, a detail."""
    candidate, ran = Candidate(channel), set()
    space: dict[str, object] = {"__name__": "tests"}
    try:
        exec(marshal.loads(job["setup"]), space)
        kinds = candidate.hear()[1]
        if not isinstance(kinds, dict):
            candidate.end("result", "an answer before it was asked")
        for name in job["names"]:
            space[name] = _proxy(candidate, name, kinds.get(name))
        space[RAN] = ran.add
        exec(marshal.loads(job["tests"]), space)
        reason, detail = "", ""
    except BaseException as error:
        reason, detail = _why(error, candidate)
    return (sorted(ran), *(candidate.ended or (reason, detail)))


def _proxy(candidate: Candidate, name: str, kind: object) -> object:
    if kind in ("function", "class"):
        return Function(candidate, name)
    if kind == "value":
        return candidate.ask("value", name)
    candidate.end("error", f"NameError: name {name!r} is not defined")


def _why(error: BaseException, candidate: Candidate) -> tuple[str, str]:
    try:
        shown = f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        shown = type(error).__name__
    if any(error is one for one in candidate.raised):
        return "memory" if isinstance(error, MemoryError) else "error", shown
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests"]
    where = f"line {lines[-1]}: " if lines else ""
    if isinstance(error, AssertionError):
        return "assertion", f"{where}{str(error)[:500]}"
    # What a candidate gave them may be why the tests could not go on: None where a list was due.
    theirs = candidate.answered and lines and isinstance(error, Exception) and not isinstance(error, NameError)
    return "error" if theirs else "sandbox", f"in the tests, {where}{shown}"


def main() -> None:
    """Fork for every pair of descriptors that comes: a candidate's channel, and where the job comes from. Arguments:
    the descriptor they come by, the user to become (0: stay)."""
    server = socket.socket(fileno=int(sys.argv[1]))
    sys.path.append(sys.argv[3])
    with contextlib.suppress(ImportError):  # tests that need it will say so
        import numpy  # noqa: F401
    become(int(sys.argv[2]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    server.sendall(sandbox_codec.frame(sandbox_codec.encode("ready")))
    nowhere = os.open(os.devnull, os.O_WRONLY)  # nobody reads what tests print
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while True:
        _, descriptors, _, _ = socket.recv_fds(server, 1, 2)
        if len(descriptors) != 2:
            return
        if not os.fork():
            server.close()
            _one(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _one(channel: int, control: int) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.set_blocking(channel, True)
        os.set_blocking(control, True)
        job = sandbox_codec.decode(sandbox_codec.receive(control) or "")
        assert isinstance(job, dict)
        most = (job["memory_mb"] + _SPARE_MB) << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        signal.setitimer(signal.ITIMER_REAL, job["seconds"] + 0.5)  # the pool stops waiting before
        report = examine(job, channel)
        sandbox_codec.send(control, sandbox_codec.encode((job["nonce"], *report)))
    finally:
        os._exit(0)
