"""Being told to stop: finish the step, save, leave."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from codelm.processes import stop_now


class Stop:
    """Whether somebody asked; on several hosts all agree on the step after which they stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def asked(self) -> bool:
        """After every step."""
        return stop_now(self.signal is not None)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        print(f"{self.signal.name}: saving after this step", file=sys.stderr, flush=True)


class Stopped(Exception):
    """Somebody asked for it, and nothing is lost."""

    def __init__(self, said: str, by: str, agreed: bool) -> None:
        """`agreed`: all processes stop after the same step."""
        super().__init__(said)
        self.by, self.agreed = by, agreed


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """SIGTERM before, between and after training: there is no step to finish, so it stops at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped("SIGTERM: stopped; the same command goes on from there", "SIGTERM", agreed=False)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """SIGTERM (a machine that is taken away) and Ctrl-C, which asked for twice does not wait."""
    stop = Stop()
    before = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
