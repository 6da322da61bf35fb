"""What is suggested at a cursor, as it is written; and the rest of it, once its beginning has been typed."""

from collections.abc import Iterator

from codelm.errors import UserError
from infer.request import Event, Finish, Timing
from infer.stream import Stream


class Suggestion:
    """The text of one stream, as far as it has been read."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.text = self.error = ""
        self.finish: Finish | None = None

    def catch_up(self) -> None:
        """Take what is there, and wait for nothing."""
        while (event := self.stream.poll()) is not None:
            self._take(event)

    def wait(self) -> None:
        """For more of it."""
        for event in self.stream:
            self._take(event)
            return

    def _take(self, event: Event) -> None:
        self.text += event.text
        self.finish, self.error = event.finish or self.finish, event.error


class Answer:
    """Iterate for pieces of text, or take it whole. Several may be the same suggestion's, from other places on."""

    def __init__(self, suggestion: Suggestion, start: int, called: bool) -> None:
        self._suggestion, self._start = suggestion, start
        self.called = called
        """Whether the model was called for it; if not, it is the rest of what was suggested before."""

    def __iter__(self) -> Iterator[str]:
        at, suggestion = self._start, self._suggestion
        while len(suggestion.text) > at or not suggestion.finish:
            if len(suggestion.text) > at:
                piece, at = suggestion.text[at:], len(suggestion.text)
                yield piece
            else:
                suggestion.wait()
        if suggestion.finish == "error":
            raise UserError(suggestion.error)

    def text(self) -> str:
        return "".join(self)

    def cancel(self) -> None:
        self._suggestion.stream.cancel()

    @property
    def finish(self) -> Finish | None:
        """Why it ended, once all of it has been read."""
        return self._suggestion.finish

    @property
    def timing(self) -> Timing:
        """Of the call of the model that it is from."""
        return self._suggestion.stream.timing
