"""Tokens to text as they come: whole characters only, and nothing of a stop string, wherever tokens cut it.

What may be the beginning of a stop string, or of a character, is held back until it is known.
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

from codelm.tokenizer import LENIENT, Tokenizer


class Piece(NamedTuple):
    ids: list[int]
    text: str
    logprobs: list[float]


class Writer:
    """The text of one request."""

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str] = (), skip: int = 0, tail: int = 0) -> None:
        """Left out of the text: its first `skip` bytes, and its last `tail` bytes if it ends by a stop token."""
        self.tokenizer = tokenizer
        self.stops = [text.encode("utf-8", errors="surrogatepass") for text in stop]
        self.skip, self.tail = skip, tail
        self.decoder = codecs.getincrementaldecoder("utf-8")(LENIENT)
        self.held = b""
        """Bytes of the tokens below, those of which nothing was given out."""
        self.tokens: list[tuple[int, float, int]] = []
        """Token, log-probability, and its bytes."""
        self.stopped = False

    def write(self, token: int, logprob: float) -> Piece:
        """What can be given out after one more token; with `stopped` set it is the last."""
        before = len(self.held)
        # A model may have more rows of scores than its tokenizer has pieces, to fill them up: such a token is no text.
        pieces = self.tokenizer.pieces if self.tokenizer else ()
        added = pieces[token] if token < len(pieces) else b""
        self.held += added
        self.tokens.append((token, logprob, len(added)))
        found = [at for at in (self.held.find(stop, max(before - len(stop) + 1, 0)) for stop in self.stops) if at >= 0]
        if found:
            self.stopped = True
            return self._give(min(found), partly=True, final=True)
        return self._give(len(self.held) - max(self._may_stop(), self.tail))

    def end(self, by_stop: bool) -> Piece:
        """What was held back, for no more tokens will come."""
        if self.stopped:
            return Piece([], "", [])
        return self._give(len(self.held) - (self.tail if by_stop else 0), partly=True, final=True)

    def _may_stop(self) -> int:
        """Bytes at the end that may begin a stop string."""
        lengths = (n for stop in self.stops for n in range(len(stop) - 1, 0, -1) if self.held.endswith(stop[:n]))
        return max(lengths, default=0)

    def _give(self, size: int, partly: bool = False, final: bool = False) -> Piece:
        """Whole tokens within the first `size` bytes; with `partly` those bytes to the last one."""
        ids: list[int] = []
        logprobs: list[float] = []
        given = 0
        for token, logprob, length in self.tokens:
            if given + length > size:
                break
            ids.append(token)
            logprobs.append(logprob)
            given += length
        self.tokens = self.tokens[len(ids) :]
        given = max(size, 0) if partly else given
        new, self.held = self.held[:given], self.held[given:]
        new, self.skip = new[self.skip :], max(self.skip - len(new), 0)
        return Piece(ids, self.decoder.decode(new, final), logprobs)
