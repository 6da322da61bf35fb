"""Goodput: what share of the time went into training, and what the rest went into."""

import contextlib
import time
from collections.abc import Callable, Iterator

# All wall time is in one of these. restart: everything before, between and after what the others name.
PARTS = ("productive", "compile", "data", "checkpoint", "evaluation", "restart")


class Clock:
    """Wall time by part, from the start of the process on."""

    def __init__(self, before: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        """`before`: seconds of starting that passed before there was a clock."""
        self._now = now
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._spent["restart"] = before
        self._part, self._since = "restart", now()

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Time in here is of this part, but for what is of another part within."""
        outer = self._part
        self._switch(part)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, part: str) -> None:
        now = self._now()
        self._spent[self._part] += now - self._since
        self._part, self._since = part, now

    def spent(self) -> dict[str, float]:
        """Seconds by part; they add up to the wall time."""
        self._switch(self._part)
        return dict(self._spent)


def goodput(spent: dict[str, float], lost: float = 0.0) -> float:
    """The share of the time that trained; `lost` seconds trained what a restart had to train again."""
    return max(spent["productive"] - lost, 0.0) / max(sum(spent.values()), 1e-9)
