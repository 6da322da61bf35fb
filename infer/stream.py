"""The reader's end of a request: its events as they come, its text when it is whole, and a way to end it early."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from infer.request import Event, Request, Text, Timing

if TYPE_CHECKING:
    from infer.run import Run


class Stream:
    """Iterate for events. Reading drives the engine, unless a thread of its own does."""

    def __init__(self, request: Request, timing: Timing, drive: Callable[["Stream"], None]) -> None:
        self.request = request
        self.timing = timing
        self.cancelled = False
        self._drive = drive
        self._events: deque[Event] = deque()
        self._parts: list[list[Event]] = [[] for _ in range(request.n)]
        self._open = request.n
        self.arrival = threading.Condition()
        self.runs: list[Run] = []
        """The engine's: what is being written for it."""

    def cancel(self) -> None:
        """No more is wanted. What it holds is given back before the engine's next call to the device."""
        self.cancelled = True

    @property
    def finished(self) -> bool:
        """Whether every text has ended; there may be events left to read."""
        return not self._open

    def __iter__(self) -> Iterator[Event]:
        while (event := self._next()) is not None:
            yield event

    def texts(self) -> list[Text]:
        """Every text, once all are whole."""
        for _ in self:
            pass
        return [_joined(events) for events in self._parts]

    def text(self) -> Text:
        """The one text of a request with n = 1."""
        return self.texts()[0]

    def put(self, event: Event) -> None:
        """The engine's end."""
        with self.arrival:
            self._events.append(event)
            self._parts[event.sample].append(event)
            self._open -= event.finish is not None
            self.arrival.notify_all()

    def poll(self) -> Event | None:
        """The next event, if it is there."""
        return self._events.popleft() if self._events else None

    def ready(self) -> bool:
        return bool(self._events) or self.finished

    def _next(self) -> Event | None:
        if not self.ready():
            self._drive(self)
        return self.poll()


def _joined(events: list[Event]) -> Text:
    return Text(
        ids=[i for event in events for i in event.ids],
        text="".join(event.text for event in events),
        finish=events[-1].finish or "error",
        logprobs=[value for event in events for value in event.logprobs or ()],
        error=events[-1].error,
    )
