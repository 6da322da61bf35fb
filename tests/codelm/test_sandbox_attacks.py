"""Every attack of the corpus: passes nothing, harms nothing, ends in time, and slows nobody after it."""

import os
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from codelm.sandbox import Check, Limits, Pool, Verdict
from codelm.sandbox_bubblewrap import installed
from tests.codelm.attacks import Attack
from tests.codelm.attacks.files import FILES
from tests.codelm.attacks.kernel import KERNEL
from tests.codelm.attacks.machine import MACHINE
from tests.codelm.attacks.objects import OBJECTS
from tests.codelm.attacks.process import PROCESS

pytestmark = pytest.mark.skipif(not installed(), reason="no bubblewrap (apt install bubblewrap)")

ATTACKS = [*OBJECTS, *PROCESS, *FILES, *MACHINE, *KERNEL]
LIMITS = Limits(seconds=2, cpu_seconds=2, memory_mb=256, processes=8, output_kb=64)
SLACK = 1.0  # seconds to notice and to end it
HONEST = Check("def double(x):\n    return 2 * x", "assert double(2) == 4\nassert double('a') == 'aa'", ("double",))


@dataclass(frozen=True)
class Host:
    """What attacks may find outside, and what they were seen to do."""

    words: dict[str, str]
    before: list[float]
    after: list[float]
    verdicts: dict[str, Verdict]
    honest_between: list[Verdict]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """All attacks, some at a time, with honest checks among them."""
    answer, mark = f"secret-{secrets.token_hex(16)}", f"codelm-mark-{secrets.token_hex(8)}"
    secret = tmp_path_factory.mktemp("host") / "codelm-secret"
    secret.write_text(answer)
    os.environ["CODELM_ANSWER"] = answer
    listener, abstract = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{mark}")
    abstract.listen()
    words = {
        "ANSWER": answer,
        "SECRET": str(secret),
        "MARK": mark,
        "PID": str(os.getpid()),
        "PORT": str(listener.getsockname()[1]),
        "REACHED": f"reached-{secrets.token_hex(8)}",
    }
    with listener, abstract, Pool(6) as pool, ThreadPoolExecutor(6) as threads:
        before = [pool.check(HONEST).seconds for _ in range(9)]
        jobs = {a.name: threads.submit(pool.check, _check(a.filled(words))) for a in ATTACKS}
        between = [pool.check(HONEST) for _ in range(9)]
        verdicts = {name: job.result() for name, job in jobs.items()}
        after = [pool.check(HONEST).seconds for _ in range(9)]
        yield Host(words, before, after, verdicts, between)
    del os.environ["CODELM_ANSWER"]


def _check(attack: Attack) -> Check:
    return Check(attack.source, attack.tests, ("answer",), limits=LIMITS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_passes_nothing_and_ends_in_time(attack: Attack, host: Host) -> None:
    verdict = host.verdicts[attack.name]
    assert not verdict.passed, attack.tries
    assert verdict.reason not in ("", "sandbox"), verdict
    assert verdict.seconds < LIMITS.seconds + SLACK


def test_there_are_many_of_them_each_with_a_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 45


def test_honest_checks_pass_among_them_and_as_fast_afterwards(host: Host) -> None:
    assert all(verdict.passed for verdict in host.honest_between)
    assert statistics.median(host.after) < 4 * statistics.median(host.before) + 0.05


def test_no_process_of_theirs_is_left(host: Host) -> None:
    deadline = time.monotonic() + 3
    while left := _marked(host.words["MARK"]):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if mark.encode() in command:
            found.append(f"{process.name} {command!r}")
    return found


def test_no_file_of_theirs_is_left(host: Host) -> None:
    mark = host.words["MARK"]
    import numpy

    roots = ("/", "/usr", "/usr/lib", "/etc", "/tmp", "/var/tmp", "/dev/shm", "/root", "/home", *sys.path)
    folders = [Path(root) for root in roots] + [Path(numpy.__file__).parent.parent, Path(os.__file__).parent]
    for folder in folders:
        assert not (folder / f"{mark}.py").exists()
        for name in ("sitecustomize", "usercustomize", "marshal"):
            path = folder / f"{name}.py"
            assert not path.exists() or "_exit(0)" not in path.read_text()
    assert mark not in Path("/proc/sys/kernel/core_pattern").read_text()
    assert Path(host.words["SECRET"]).read_text() == host.words["ANSWER"]


def test_the_tests_would_pass_with_the_answers() -> None:
    """Else that no attack passes would say nothing."""
    words = {"ANSWER": "known", "REACHED": "known"}
    with Pool(2) as pool:
        for tests in {attack.filled(words).tests for attack in ATTACKS}:
            if "known" in tests and "[" not in tests:  # those with lists ask for others
                assert pool.check(Check("def answer(x): return 'known' * x", tests, ("answer",))).passed
