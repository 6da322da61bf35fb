"""Token healing: what the cursor cut in two is taken out of the prompt, and generated again as whole tokens.

The tokens in front of the cursor in `import js|on` are none that `import json` begins with, and a model that learnt
from whole texts is lost behind them. So all tokens are taken out that a longer piece of the vocabulary could reach into
from across the cursor, at the end of the prefix and at the beginning of the suffix, and the completion has to begin
with the text taken from the prefix (`typed`) and to end with the text taken from the suffix (`tail`). Prompts come from
`codelm.formats`, whose roles say where the cursor is.

What is exact. Every sequence of tokens whose text begins with `typed`, and goes on to end with `tail` where it is
ended, can be generated, and no other. Among tokens that spell all of `typed` at once the model's own odds are kept.
What is not: a token that spells only a part of `typed` is weighed by its own probability, whether or not the rest is
likely behind it. Weighing every spelling as a whole would take a forward pass over all of them. And the model is not
told of the `tail`: one that would rather stop goes on until its text happens to end so, or its tokens run out.

Knows tokens and bytes, no model and no engine. Not healed are ends without anything to take back (an empty prefix, text
that no piece reaches into) and special tokens, which are never taken out.

>>> ids, healing = heal(tokenizer, formats.fim(family, tokenizer, prefix, suffix))  # doctest: +SKIP
>>> constraint = healing.start(tokenizer, stop_ids)  # doctest: +SKIP
>>> healing.middle(written, ended=True)  # what belongs between prefix and suffix  # doctest: +SKIP
"""

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from codelm.errors import UserError
from codelm.formats import Rendered, Role
from codelm.tokenizer import Tokenizer
from infer.constraints import Constraint


@dataclass(frozen=True)
class Healing:
    """What a completion has to begin and to end with, besides what it adds between prefix and suffix."""

    typed: bytes = b""
    tail: bytes = b""

    def start(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> Constraint:
        """A completion's own state. `end_ids` end it and spell nothing."""
        return _HealingRun(self, tokenizer, sorted(end_ids))

    def middle(self, written: bytes, ended: bool) -> bytes:
        """The text to put at the cursor; `ended`: an end token was reached, so that what was written has its tail.

        Of a completion still being written the last `len(tail)` bytes may turn out to be the tail.
        """
        return written[len(self.typed) : len(written) - len(self.tail) if ended else None]


def heal(tokenizer: Tokenizer, prompt: Rendered, *, suffix: bool = True) -> tuple[list[int], Healing]:
    """The prompt's ids without the tokens that its cursor may have cut, and what to generate in their place.

    The prompt is one of `formats.fim`, its other files without holes, or one of `formats.text`. Without `suffix` only
    the prefix is healed.
    """
    ids, roles = prompt.ids, prompt.roles
    stop = _after_last(roles, Role.TEXT if roles[-1:] == [Role.TEXT] else Role.PREFIX)
    start = stop - _words(tokenizer).reached(tokenizer.pieces[ids[i]] for i in _run(roles, stop - 1, -1))
    begin = end = roles.index(Role.SUFFIX) if suffix and Role.SUFFIX in roles else len(roles)
    end += _words_backwards(tokenizer).reached(tokenizer.pieces[ids[i]][::-1] for i in _run(roles, begin, 1))
    first, second = sorted([(start, stop), (begin, end)])
    kept = [*ids[: first[0]], *ids[first[1] : second[0]], *ids[second[1] :]]
    return kept, Healing(tokenizer.decode_bytes(ids[start:stop]), tokenizer.decode_bytes(ids[begin:end]))


def _after_last(roles: Sequence[Role], role: Role) -> int:
    return len(roles) - roles[::-1].index(role) if role in roles else 0


def _run(roles: Sequence[Role], i: int, step: int) -> Iterator[int]:
    """From i on, one way, as long as the role is the same."""
    first = i
    while 0 <= i < len(roles) and roles[i] is roles[first]:
        yield i
        i += step


class _HealingRun:
    def __init__(self, healing: Healing, tokenizer: Tokenizer, end_ids: list[int]) -> None:
        self._pieces = tokenizer.pieces
        self._typed, self._tail, self._end_ids = healing.typed, healing.tail, end_ids
        self._steps = _words(tokenizer).spellings(healing.typed, end_ids)
        self._spelled = 0  # bytes of typed
        self._last = b""  # what was written after it, as much as the tail is long
        self._before: list[tuple[int, bytes]] = []  # both, before each token
        if self._typed and not self._steps[0].size:
            raise UserError(f"the prompt ends in {self._typed!r}, which only stop tokens spell: stop at others")

    def allowed(self) -> Bool[np.ndarray, " V"] | None:
        if self._spelled < len(self._typed):
            mask = np.zeros(len(self._pieces), bool)
            mask[self._steps[self._spelled]] = True
            return mask
        if not self._tail:
            return None
        mask = np.ones(len(self._pieces), bool)
        mask[self._end_ids] = self._last == self._tail
        return mask

    def advance(self, token: int) -> None:
        self._before.append((self._spelled, self._last))
        piece = self._pieces[token]
        of_typed = min(len(piece), len(self._typed) - self._spelled)
        self._spelled += of_typed
        written = self._last + piece[of_typed:]
        self._last = written[max(0, len(written) - len(self._tail)) :]

    def rewind(self, tokens: int) -> None:
        if tokens:
            self._spelled, self._last = self._before[-tokens]
            del self._before[-tokens:]


class _Words:
    """The pieces of a vocabulary in the order of their bytes, where those that begin alike stand together."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        # Python sorts them: NumPy's strings lose the NULs at their end.
        self._ids = np.array(sorted((i for i, piece in enumerate(pieces) if piece), key=pieces.__getitem__), np.int64)
        self._pieces = [pieces[i] for i in self._ids]
        self._longest = max(map(len, self._pieces), default=0)

    def reached(self, tokens: Iterable[bytes]) -> int:
        """How many of the tokens in front of a cursor, the nearest first, a piece may reach into from behind it."""
        count, text = 0, b""
        for i, token in enumerate(tokens):
            if not token or len(text) >= self._longest:
                break
            if any(self._goes_on(token[at:] + text) for at in range(len(token))):
                count = i + 1
            text = token + text
        return count

    def spellings(self, text: bytes, without: list[int]) -> list[Int[np.ndarray, " _"]]:
        """For every place in the text the tokens to spell it on with: to its end or past it, or to such a place."""
        steps = [np.zeros(0, np.int64)] * len(text)
        for at in reversed(range(len(text))):
            rest = text[at:]
            lengths = range(1, min(len(rest), self._longest + 1))
            parts = [self._exactly(rest[:length]) for length in lengths if steps[at + length].size]
            steps[at] = np.setdiff1d(np.concatenate([self._beginning_with(rest), *parts]), without)
        return steps

    def _beginning_with(self, text: bytes) -> Int[np.ndarray, " _"]:
        return self._ids[bisect_left(self._pieces, text) : self._past(text)]

    def _exactly(self, text: bytes) -> Int[np.ndarray, " _"]:
        return self._ids[bisect_left(self._pieces, text) : bisect_right(self._pieces, text)]

    def _goes_on(self, text: bytes) -> bool:
        """Whether a piece begins with the text and is longer."""
        return self._past(text) > bisect_right(self._pieces, text)

    def _past(self, text: bytes) -> int:
        return bisect_right(self._pieces, text, key=lambda piece: piece[: len(text)])


@functools.lru_cache(maxsize=4)
def _words(tokenizer: Tokenizer) -> _Words:
    return _Words(tokenizer.pieces)


@functools.lru_cache(maxsize=4)
def _words_backwards(tokenizer: Tokenizer) -> _Words:
    return _Words([piece[::-1] for piece in tokenizer.pieces])
