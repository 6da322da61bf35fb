"""Several processes as one run, through `jax.distributed`: they find each other, and none is left waiting.

What JAX does by itself is no use to a person: a coordinator that does not answer, and a process that dies, abort the
others with a stack trace of C++, the second only after the heartbeat. So the coordinator is knocked at first, and
`codelm.processes` tells what goes wrong; then this process says one line and leaves.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import secrets
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

import jax
from jax._src import distributed as jax_distributed  # its client is nowhere public

from codelm import processes
from codelm.errors import UserError
from codelm.processes import GONE, Company, Verdict
from train.signals import Stopped

_GRACE = 1.0  # seconds in which the others hear of a verdict, or say the same by themselves
_LATE = 5.0  # seconds after an error in which it may turn out that a process is gone


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Of commands that run on several hosts, the same command on each."""

    distributed: bool = False
    """One of several processes, as JAX finds them: TPU pods, Slurm, Open MPI, Kubernetes."""
    coordinator: str = ""
    """… or as told: where process 0 listens, HOST:PORT."""
    processes: int = 0
    """… how many there are."""
    process: int = -1
    """… which one this is, from 0."""
    join_timeout: int = 300
    """Seconds to wait for all of them."""
    heartbeat: int = 100
    """Seconds after which a silent process is taken for gone."""

    def check(self) -> bool:
        """Whether this is one of several."""
        told = [bool(self.coordinator), self.processes > 0, self.process >= 0]
        if any(told) and not all(told):
            raise UserError("--coordinator HOST:PORT, --processes N and --process I (from 0) belong together")
        if all(told) and self.process >= self.processes:
            raise UserError(f"--process {self.process}: {self.processes} processes are counted from 0")
        host, colon, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and colon and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UserError(f"--coordinator {self.coordinator}: HOST:PORT is needed, such as 10.0.0.1:8476")
        if min(self.join_timeout, self.heartbeat) < 1:
            raise UserError("--join_timeout and --heartbeat are seconds, 1 at least")
        return self.distributed or all(told)


@contextlib.contextmanager
def joined(options: ProcessOptions, advice: Callable[[], str]) -> Iterator[None]:
    """With the other processes, before any device is touched. `advice` says how to go on when one of them is gone."""
    if not options.check():
        yield
        return
    company = _join(options, advice)
    try:
        yield
        company.exchange("done", last=True)
    except Stopped as stop:
        if not stop.agreed:
            _fail(company, stop)
        company.exchange("stopped", last=True)
        raise
    except BaseException as error:
        _fail(company, error)


def _join(options: ProcessOptions, advice: Callable[[], str]) -> Company:
    told = {"coordinator_address": options.coordinator, "num_processes": options.processes}
    told |= {"process_id": options.process}
    seen: dict[str, Any] = {}
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, see train.signals
    try:
        with _own_client(options, seen, advice):
            jax.distributed.initialize(
                **(told if options.coordinator else {}),  # type: ignore[arg-type]
                initialization_timeout=options.join_timeout,
                heartbeat_timeout_seconds=max(options.heartbeat * 2 // 3, 1),  # and `_guard` takes its time
            )
    except UserError:
        raise
    except Exception as error:
        if "address" in seen:  # JAX's client is broken, and would be waited for on the way out
            said = f"not all processes joined at {seen['address']} within {options.join_timeout} s"
            _leave(2, f"{said}: start every one, each with its own number and the same count")
        if not options.coordinator and "coordinator_address" in str(error):
            raise UserError(
                "--distributed: JAX finds no cluster here (TPU pod, Slurm, Open MPI, Kubernetes); give --coordinator "
                "HOST:PORT --processes N --process I"
            ) from error
        raise UserError(f"cannot join the other processes: {str(error).splitlines()[0]}") from error
    company = _meet(options.heartbeat, options.join_timeout)
    processes.meet(company)
    threading.Thread(target=_obey, args=(company, advice), name="verdict", daemon=True).start()
    return company


@contextlib.contextmanager
def _own_client(options: ProcessOptions, seen: dict[str, Any], advice: Callable[[], str]) -> Iterator[None]:
    """JAX's client with a callback in place of its abort, which `jax.distributed.initialize` has no argument for; and
    only after a knock at the door. jaxlib 0.12 cannot hand the reason to Python and calls std::terminate instead, so
    that leads to the same function."""
    library, make = jax_distributed._jax, jax_distributed._jax.get_distributed_runtime_client
    guard = ctypes.CFUNCTYPE(None)(partial(_guard, advice))
    _kept.append(guard)

    def client(address: str, process: int, **more: Any) -> Any:
        if process:
            _knock(address, options.join_timeout)
        with contextlib.suppress(OSError, AttributeError):  # another C++ library: JAX's abort then says it
            ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(guard)
        seen["address"] = address
        return make(address, process, missed_heartbeat_callback=lambda _: _guard(advice), **more)

    library.get_distributed_runtime_client = client
    try:
        yield
    finally:
        library.get_distributed_runtime_client = make


_kept: list[Any] = []  # what C++ calls must not be collected


def _knock(address: str, seconds: int) -> None:
    """Until somebody opens."""
    host, _, port = address.rpartition(":")
    end, why = time.monotonic() + seconds, ""
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=left).close()
            return
        except OSError as error:  # not yet listening, not yet a name
            why = error.strerror or str(error)
            time.sleep(min(0.2, left))
    raise UserError(
        f"the coordinator {address} did not answer within {seconds} s ({why}): is process 0 running there, and its "
        "port open?"
    )


def _meet(heartbeat: int, seconds: int) -> Company:
    """Lines to process 0, whose port and key come through JAX."""
    state: Any = jax_distributed.global_state
    host = state.coordinator_address.rpartition(":")[0].strip("[]")
    if state.process_id:
        port, key = json.loads(state.client.blocking_key_value_get("codelm/line", seconds * 1000))
        line = Client((host, port), authkey=key.encode())
        line.send_bytes(json.dumps([state.process_id, socket.gethostname()]).encode())
        return Company(state.process_id, {0: line}, {0: f"the coordinator, {host}"}, heartbeat)
    key, lines, names = secrets.token_hex(16), dict[int, Connection](), dict[int, str]()
    with Listener(("", 0), backlog=state.num_processes, authkey=key.encode()) as listener:
        state.client.key_value_set("codelm/line", json.dumps([listener.address[1], key]))
        while len(lines) < state.num_processes - 1:
            with contextlib.suppress(multiprocessing.AuthenticationError, OSError, EOFError):  # a stranger
                line = listener.accept()
                process, name = json.loads(line.recv_bytes())
                lines[process], names[process] = line, name  # type: ignore[assignment]
    return Company(0, lines, names, heartbeat)


# ---- leaving ----


def _fail(company: Company, error: BaseException) -> None:
    """An error here ends all processes; one that came of another's end leaves the word to the verdict."""
    own = isinstance(error, UserError | KeyboardInterrupt | Stopped)
    if not own:
        company.stops.wait(_LATE)
    if company.verdict is not None and not (own and company.verdict.code == 2):
        threading.Event().wait()  # `_obey` leaves
    number = company.process
    if isinstance(error, UserError):
        code, line, said = 2, str(error), f"process {number} stopped: {error}"
    elif isinstance(error, Stopped):
        code, line, said = 0, str(error), f"process {number} was told to stop"
    elif isinstance(error, KeyboardInterrupt):
        code, line, said = 130, "interrupted", f"process {number} was interrupted"
    else:
        traceback.print_exception(error)
        code, line = 1, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        said = f"process {number} failed: {line}"
    company.tell(Verdict(code, said))
    time.sleep(_GRACE / 2)  # before `_obey`, and not before the others have heard
    _leave(code, line)


def _obey(company: Company, advice: Callable[[], str]) -> None:
    """Leave when all stop."""
    company.stops.wait()
    verdict = company.verdict
    assert verdict is not None
    how = f": {advice()}" if verdict.code == GONE else ""
    time.sleep(_GRACE)
    _leave(verdict.code, f"{verdict.said}, so all stop{how}")


def _guard(advice: Callable[[], str]) -> None:
    """Called by JAX from a thread of its own, when it would abort. It must not call JAX, which holds a lock."""
    time.sleep(3 * _GRACE)  # who is gone is told better by `_obey`
    _leave(GONE, f"JAX lost touch with another process, which process 0 says above: {advice()}")


_leaving = threading.Lock()


def _leave(code: int, line: str) -> None:
    """At once: the ways out through Python wait for computations, and for processes, that never end."""
    with _leaving:
        print(f"codelm: {'error: ' if code not in (0, 130) else ''}{line}", file=sys.stderr, flush=True)
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(code)
