"""Runs untrusted code, such as a model writes: checks of Python, examples, programs of other languages.

A candidate runs in a sandbox that is used once. Its tests run elsewhere, with nothing of it but proxies, and a check
passes only on the word of that other process, which has to name every assert that must have held. So whatever a
candidate does in its own process, it has to answer right.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType

from codelm import sandbox_bubblewrap, sandbox_checks, sandbox_codec
from codelm.errors import UserError
from codelm.sandbox_checks import Plan
from codelm.sandbox_codec import Malformed
from codelm.sandbox_examiner import ENDED_EARLY
from codelm.sandbox_keeper import Keeper
from codelm.sandbox_process import Broken, Over, Sandbox

_XCPU, _KILLED = 128 + 24, 128 + 9  # statuses
_REASONS = {"": "", "raised": "error", "syntax": "syntax", "memory": "memory", "output": "output"}  # of transcripts
_OUT_OF_MEMORY = ("MemoryError", "std::bad_alloc", "heap out of memory", "OutOfMemoryError", "memory allocation of")


@dataclass(frozen=True)
class Limits:
    """Of one job, all its processes together where no "each" is said."""

    seconds: float = 10.0
    """Wall clock."""
    cpu_seconds: int = 10
    """Each process."""
    memory_mb: int = 1024
    file_mb: int = 16
    """Each file."""
    processes: int = 16
    """Threads count."""
    open_files: int = 64
    """Each process."""
    output_kb: int = 256


@dataclass(frozen=True)
class Check:
    """A candidate and its tests."""

    candidate: str
    """Untrusted Python source."""
    tests: str
    """Python source; runs in another process, which has only proxies of the candidate's names. What it passes to them
    are copies: what a candidate changes in an argument, the tests do not see."""
    names: tuple[str, ...]
    """The candidate's top-level names that the tests use."""
    setup: str = ""
    """Trusted Python that runs before the tests, in their process; `names` override what it defines."""
    stdin: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str
    """Empty when passed, else: assertion, error (the candidate raised, does not define a name, or gave the tests what
    they cannot go on with), syntax, timeout, memory, output, result (no plain data), crash (its process ended early),
    checks (not all that must run did), sandbox (the harness or the tests failed by themselves)."""
    detail: str
    seconds: float


@dataclass(frozen=True)
class Program:
    """Files for the scratch folder, and commands to run there one after another while they succeed."""

    files: Mapping[str, str]
    commands: Sequence[Sequence[str]]
    stdin: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True)
class Ran:
    """Of the command that was last: `step`."""

    status: int
    """As a shell tells it: 128 and more for a signal; -1 where it was stopped."""
    stdout: str
    stderr: str
    reason: str
    """Empty, or: timeout, memory, output, crash (ended by a signal)."""
    seconds: float
    step: int


class Pool:
    """Sandboxes started ahead, each for one job. Its methods block and may be called from many threads."""

    def __init__(self, workers: int = 0, unsafe: bool = False) -> None:
        if not unsafe and not sandbox_bubblewrap.installed():
            raise UserError(
                "untrusted code needs bubblewrap to run in: apt install bubblewrap (or --unsafe-sandbox, which lets it "
                "read your files, use your network and leave processes behind)"
            )
        self._keeper = Keeper(workers or os.cpu_count() or 1, unsafe)
        try:
            with self._keeper.sandbox():
                pass
        except Broken as error:
            self.close()
            raise UserError(
                f"bubblewrap cannot make a sandbox here: {error} (a container may need --privileged, a host "
                "unprivileged user namespaces; or --unsafe-sandbox, which lets it read your files)"
            ) from error
        self.protections = sandbox_bubblewrap.protections(unsafe, self._keeper.home.filter is not None)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._keeper.close()

    def check(self, check: Check) -> Verdict:
        """Whether a candidate passes its tests."""
        try:
            plan = sandbox_checks.plan(check.tests)
            setup = sandbox_checks.compiled(check.setup)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return Verdict(False, "sandbox", f"the tests are no Python: {error}", 0.0)
        start = time.monotonic()
        try:
            with self._keeper.sandbox() as sandbox:
                start = time.monotonic()
                reason, detail = self._examined(sandbox, check, plan, setup, start)
        except Over as error:
            reason, detail = str(error), ""
        except Broken as error:
            reason, detail = "sandbox", f"{error}"
        return Verdict(not reason, reason, detail, time.monotonic() - start)

    def _examined(self, sandbox: Sandbox, check: Check, plan: Plan, setup: bytes, start: float) -> tuple[str, str]:
        limits, nonce = check.limits, secrets.token_hex(16)
        _begin(sandbox, limits, start)
        job = {"source": check.candidate, "names": list(check.names)}
        sandbox.tell(sandbox.channel, self._job("check", limits, check.stdin) | job)
        examination = {
            "names": list(check.names),
            "setup": setup,
            "tests": plan.code,
            "nonce": nonce,
            "seconds": limits.seconds,
            "memory_mb": limits.memory_mb,
        }
        with self._keeper.examine(sandbox.channel) as examiner:
            sandbox.tell(examiner, examination)
            text = sandbox.hear(examiner)
        sandbox.drain()
        reason, detail = _judged(text, nonce, plan)
        if (reason, detail) == ("crash", ENDED_EARLY) and _cpu_spent(
            sandbox.status(0.2), limits, time.monotonic() - start
        ):
            reason, detail = "timeout", f"{limits.cpu_seconds} s of CPU"
        return reason, detail

    def transcript(self, candidate: str, examples: Sequence[str], limits: Limits = Limits()) -> tuple[list[str], str]:
        """What each example prints after the candidate's source, as an interactive session shows it, and why it went
        no further. It is for the caller to compare: what is expected never comes near the candidate."""
        printed: list[str] = []
        try:
            with self._keeper.sandbox() as sandbox:
                start = time.monotonic()
                _begin(sandbox, limits, start)
                job = {"source": candidate, "examples": list(examples)}
                sandbox.tell(sandbox.channel, self._job("transcript", limits) | job)
                while len(printed) <= len(examples):
                    match _heard(sandbox):
                        case ("printed", text):
                            printed.append(text)
                        case ("end", reason, *_):
                            return printed[: len(examples)], _REASONS.get(reason, "crash")
                        case _:
                            break
                spent = _cpu_spent(sandbox.status(0.2), limits, time.monotonic() - start)
                return printed[: len(examples)], "timeout" if spent else "crash"
        except Over as error:
            return printed, str(error)
        except Broken:
            return printed, "sandbox"

    def _job(self, kind: str, limits: Limits, stdin: str = "") -> dict[str, object]:
        home = self._keeper.home
        where = {"driver": home.seen_driver, "path": [sandbox_bubblewrap.packages(home.unsafe)]}
        return {"kind": kind, "stdin": stdin, **where, **asdict(limits)}

    def run(self, program: Program) -> Ran:
        """Run commands, one after another while they succeed."""
        job = {"files": dict(program.files), "commands": [list(command) for command in program.commands]}
        started, step, said = time.monotonic(), 0, ("", "")
        try:
            with self._keeper.sandbox() as sandbox:
                started = time.monotonic()
                try:
                    _begin(sandbox, program.limits, started)
                    sandbox.tell(sandbox.channel, self._job("program", program.limits, program.stdin) | job)
                    for number in _steps(sandbox, len(program.commands)):
                        step = number
                    status = sandbox.status(1.0)
                finally:
                    said = (_text(sandbox.output), _text(sandbox.errors))
        except Over as error:
            return Ran(-1, *said, str(error), time.monotonic() - started, step)
        except Broken as error:
            return Ran(-1, "", str(error), "sandbox", time.monotonic() - started, step)
        seconds = time.monotonic() - started
        reason = _ended(-1 if status is None else status, said[1], program.limits, seconds)
        return Ran(-1 if status is None else status, *said, reason, seconds, step)


def _begin(sandbox: Sandbox, limits: Limits, start: float) -> None:
    sandbox.begin(start + limits.seconds, limits.output_kb * 1024, limits.memory_mb)


def _judged(text: str | None, nonce: str, plan: Plan) -> tuple[str, str]:
    """Reason and detail of what the tests' process reports: it passes with every required assert, and with one."""
    try:
        match sandbox_codec.decode(text or ""):
            case (str(said), list(ran), str(reason), str(detail)) if said == nonce:
                pass
            case _:
                return "sandbox", "the tests' process ended early"
    except Malformed:
        return "sandbox", "the tests' process ended early"
    if reason:
        return reason, _with_line(detail, plan)
    missed = plan.required.difference(ran)
    if missed or not ran:
        return "checks", f"{len(missed)} of {len(plan.required)} asserts that must hold never ran"
    return "", ""


def _with_line(detail: str, plan: Plan) -> str:
    """What a test says at a line, where the detail names one."""
    found = re.match(r"line (\d+): $", detail)
    return detail + plan.lines[int(found[1]) - 1].strip()[:500] if found else detail


def _cpu_spent(status: int | None, limits: Limits, seconds: float) -> bool:
    return status == _XCPU or (status == _KILLED and seconds >= limits.cpu_seconds)


def _heard(sandbox: Sandbox) -> tuple[str, ...]:
    """The next message of a sandbox, in words; none where it has none, or nonsense."""
    try:
        text = sandbox.hear(sandbox.channel)
        return () if text is None else sandbox_codec.decode_strings(text)
    except Malformed:
        return ()


def _steps(sandbox: Sandbox, count: int) -> Iterator[int]:
    """Let the commands of a program run; the number of each as it begins."""
    for step in range(count):
        yield step
        if step == count - 1 or _heard(sandbox) != ("ended", "0"):
            break
        sandbox.forget()  # what a compiler says is no output of the program
        sandbox.tell(sandbox.channel, "go on")
    sandbox.hear(None)


def _text(said: bytes | bytearray) -> str:
    return said.decode("utf-8", errors="replace")


def _ended(status: int, errors: str, limits: Limits, seconds: float) -> str:
    """The reason, of how a program ended by itself."""
    if _cpu_spent(status, limits, seconds):
        return "timeout"
    if status and any(mark in errors for mark in _OUT_OF_MEMORY):
        return "memory"
    return "crash" if status >= 128 or status < 0 else ""
