"""Being told to stop: finish the step, save, leave."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Stop:
    """Whether somebody asked; on several hosts all agree on the step after which they stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def asked(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        print(f"{self.signal.name}: saving after this step", file=sys.stderr, flush=True)


class Stopped(Exception):
    """Somebody asked for it, and nothing is lost."""

    def __init__(self, said: str, by: str) -> None:
        super().__init__(said)
        self.by = by


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """SIGTERM before, between and after training: there is no step to finish, so it stops at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped("SIGTERM: stopped; the same command goes on from there", "SIGTERM")

    if jax.process_count() > 1:  # JAX's own service takes SIGTERM
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """SIGTERM (a machine that is taken away) and Ctrl-C, which asked for twice does not wait."""
    stop = Stop()
    # Of several processes JAX's own service passes SIGTERM on, and Ctrl-C in one is not heard by the others.
    numbers = [signal.SIGINT, signal.SIGTERM] if jax.process_count() == 1 else []
    before = {number: signal.signal(number, stop.note) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
