"""What the processes of one run tell each other beside arrays: small values, and that one of them stops or is gone.

>>> exchange(said)          # what each process said, in order; all of them call it
>>> of_first(newest_step)   # what process 0 sees, so that all decide alike
>>> agreed(load, Damaged)   # what went wrong on one went wrong on all

Each process holds a line (TCP) to process 0. A process that dies closes it, whatever its accelerator waits for, so the
others know at once which one is gone; a host that goes silent is found by keepalive. There are no time limits: process
0 may build a corpus for days while the others wait.
"""

import json
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

GONE = 75  # the exit code where a process is gone: EX_TEMPFAIL, the same command may go on


@dataclass(frozen=True)
class Verdict:
    """Why all stop."""

    code: int
    said: str


class Company:
    """The lines of this process: to all others in process 0, to process 0 in the others."""

    def __init__(self, process: int, lines: Mapping[int, Connection], names: Mapping[int, str], heartbeat: int) -> None:
        self.process, self._lines, self._names = process, dict(lines), names
        self.verdict: Verdict | None = None
        self.stops = threading.Event()
        """Set once there is a verdict."""
        self._round = 0
        self._heard = threading.Condition()
        self._values: dict[int, dict[int, Any]] = defaultdict(dict)  # by round, then by process
        self._sending = threading.Lock()
        self._over = False
        self._asked, self._steps, self._counts, self._last_step = False, 0, dict[int, int](), 0
        for line in lines.values():
            _keep_alive(line, heartbeat)
        threading.Thread(target=self._listen, name="processes", daemon=True).start()

    def exchange(self, value: Any, last: bool = False) -> list[Any]:
        """After the `last` exchange nobody is missed."""
        self._round += 1
        if self.process:
            self._send(0, "value", self._round, value)
            (values,) = self._wait_for(1)
        else:
            found = self._wait_for(len(self._lines)) if self._lines else []
            values = [value, *found]
            self._over = last
            for other in list(self._lines):
                self._send(other, "value", self._round, values)
        self._over = last
        return values

    def stops_now(self, asked: bool) -> bool:
        """Called after every step, by all processes alike; whether they stop after this one, as one of them asked.

        Process 0 then asks each how far it is, and none goes further until told the last step, the one after the
        furthest."""
        with self._heard:
            self._steps += 1
            if asked and not self._asked:
                self._asked = True
                self._send(0, "stop") if self.process else self._find_last_step(0, "stop", [])
            self._heard.wait_for(lambda: self.process not in self._counts or self._last_step)
            return self._steps == self._last_step

    def tell(self, verdict: Verdict) -> None:
        """All stop."""
        if self.verdict is None:
            self.verdict = verdict
            for other in list(self._lines):
                self._send(other, "verdict", verdict.code, verdict.said)
            self.stops.set()

    def _wait_for(self, count: int) -> list[Any]:
        with self._heard:
            self._heard.wait_for(lambda: len(self._values[self._round]) == count)
            found = self._values.pop(self._round)
        return [found[process] for process in sorted(found)]

    def _send(self, other: int, *message: Any) -> None:
        try:
            with self._sending:
                self._lines[other].send_bytes(json.dumps(message).encode())
        except (OSError, KeyError):  # gone: `_listen` finds it too
            return

    def _listen(self) -> None:
        while self._lines:
            ready = wait(list(self._lines.values()))
            for other, line in list(self._lines.items()):
                if line in ready:
                    try:
                        kind, *content = json.loads(line.recv_bytes())
                    except (EOFError, OSError):
                        self._lost(other)
                    else:
                        self._take(other, kind, content)

    def _take(self, other: int, kind: str, content: list[Any]) -> None:
        with self._heard:
            if kind == "verdict":
                self.tell(Verdict(*content))
            elif kind == "value":
                number, value = content
                self._values[number][other] = value
            elif kind == "last step":
                (self._last_step,) = content
            else:
                self._find_last_step(other, kind, content)
            self._heard.notify_all()

    def _find_last_step(self, other: int, kind: str, content: list[int]) -> None:
        if kind == "stop" and not self._counts:  # in process 0
            self._counts[0] = self._steps
            for process in self._lines:
                self._send(process, "how far")
        elif kind == "how far":
            self._counts[self.process] = self._steps
            self._send(0, "so far", self._steps)
        elif kind == "so far":
            self._counts[other] = content[0]
        if not self.process and len(self._counts) == len(self._lines) + 1:
            self._last_step = max(self._counts.values()) + 1
            for process in self._lines:
                self._send(process, "last step", self._last_step)

    def _lost(self, other: int) -> None:
        del self._lines[other]
        if not self._over:
            self.tell(Verdict(GONE, f"process {other} ({self._names[other]}) is gone"))


def _keep_alive(line: Connection, heartbeat: int) -> None:
    """A host that went silent is found within the heartbeat."""
    with socket.socket(fileno=os.dup(line.fileno())) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", heartbeat // 2), ("TCP_KEEPINTVL", heartbeat // 8), ("TCP_KEEPCNT", 4)):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), max(value, 1))


_company: Company | None = None


def meet(company: Company) -> None:
    """From now on these are the processes of this run."""
    global _company
    _company = company


def exchange(value: Any) -> list[Any]:
    """What each process gives, as JSON carries it, in order. All processes call it in the same order."""
    return [value] if _company is None else _company.exchange(value)


def stop_now(asked: bool) -> bool:
    """After every step, in all processes: whether to stop after this one, because some process asked."""
    return asked if _company is None else _company.stops_now(asked)


def of_first[Value](make: Callable[[], Value]) -> Value:
    """What process 0 makes of it, as JSON carries it."""
    return exchange(None if _company is not None and _company.process else make())[0]


def agreed[Value](work: Callable[[], Value], wrong: type[Exception]) -> Value:
    """Every process works; where one raises `wrong`, all do."""
    try:
        value, said = work(), ""
    except wrong as error:
        value, said = None, str(error)
    if told := next(filter(None, exchange(said)), ""):
        raise wrong(told)
    return value  # pyrefly: ignore
