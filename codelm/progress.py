"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_EVERY = 10.0  # seconds between lines where there is no terminal
_FEW = 10_000_000  # bytes that are not told in megabytes


class Bar:
    """What is done, the rate and the time left, on stderr."""

    def __init__(self, what: str, total: float, unit: str, scale: float = 1.0) -> None:
        """`scale`: how much of what is counted makes one of the unit that is shown."""
        self._what, self._total, self._unit, self._scale = what, total / scale, unit, scale
        self._note = ""
        self._done = 0.0
        self._before = 0.0
        self._start = self._said = time.monotonic()
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
        )
        self._rich = Progress(*columns, console=console) if console.is_terminal else None
        self._task = self._rich.add_task(what, total=max(self._total, 1e-9), text="") if self._rich else None

    @staticmethod
    def of_bytes(what: str, total: int) -> "Bar":
        """Counts bytes; says megabytes, or kilobytes where those would be a few."""
        return Bar(what, total, "MB", 1e6) if total >= _FEW else Bar(what, total, "kB", 1e3)

    def __enter__(self) -> "Bar":
        if self._rich:
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich:
            self._rich.stop()
        elif kind is None:
            self._say()

    def advance(self, amount: float, worked: bool = True) -> None:
        """`worked=False`: done by an earlier run, so that it counts but does not flatter the rate."""
        self._done += amount / self._scale
        self._before += 0 if worked else amount / self._scale
        if self._rich and self._task is not None:
            self._rich.update(self._task, completed=self._done, text=self.text())
        elif time.monotonic() - self._said >= _EVERY:
            self._say()

    def note(self, note: str) -> None:
        """Shown behind the rate from the next advance on."""
        self._note = note

    def text(self) -> str:
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = (self._done - self._before) / spent
        left = f", {duration((self._total - self._done) / rate)} left" if rate and self._done < self._total else ""
        note = f"; {self._note}" if self._note else ""
        return f"{self._done:,.0f}/{self._total:,.0f} {self._unit}, {rate:,.1f} {self._unit}/s{left}{note}"

    def _say(self) -> None:
        self._said = time.monotonic()
        print(f"{self._what}: {self.text()}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
