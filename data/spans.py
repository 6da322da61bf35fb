"""Which characters of a text become the middle, for training to fill in: by characters, lines or tokens.

A chooser is a pure function of a text and a random generator. It returns the character offsets of a middle that is
never empty, or says why there is none to choose; which chooser to ask instead is the caller's business.
Syntax nodes are in data/syntax.py, the places where an editor would ask for a completion in data/triggers.py.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from codelm.tokenizer import Tokenizer
from data import shingles

Span = tuple[int, int]
"""The offsets, in characters, of the first character of a middle and of the first one after it."""


@dataclass(frozen=True, slots=True)
class NoSpan:
    why: str
    """A short name, to be counted: `empty`, `no_grammar`, …"""


MOST_SPANS = 256  # of one text, as InCoder (arXiv 2204.05999) has it
_MEAN_SPANS = 1.0


def characters(text: str, rng: np.random.Generator) -> Span | NoSpan:
    """Between two distinct positions, each pair as likely as any other.

    >>> start, end = characters("x = 1", np.random.default_rng(0))
    """
    return _between(np.arange(len(text) + 1), rng) if text else NoSpan("empty")


def lines(text: str, rng: np.random.Generator) -> Span | NoSpan:
    """Whole lines with their newlines: between two distinct line boundaries."""
    if not text:
        return NoSpan("empty")
    pieces = text.split("\n")  # not splitlines, which also cuts at form feeds and at U+2028, inside a line of code
    boundaries = np.cumsum([0, *(len(piece) + 1 for piece in pieces)], dtype=np.int64)
    return _between(np.unique(np.minimum(boundaries, len(text))), rng)


def tokens(text: str, rng: np.random.Generator, tokenizer: Tokenizer) -> Span | NoSpan:
    """Whole tokens: between two distinct token boundaries, of those that do not cut a character in two."""
    if not text:
        return NoSpan("empty")
    content = shingles.to_bytes(text)
    sizes = [0, *(len(tokenizer.pieces[i]) for i in tokenizer.encode(text))]
    at = np.cumsum(sizes, dtype=np.int64)
    if at[-1] != len(content):
        return NoSpan("not_in_vocabulary")  # a piece that stands for bytes it does not have: offsets mean nothing
    return _between(np.unique(characters_before(content)[at[cuts_between_characters(content)[at]]]), rng)


def several(text: str, rng: np.random.Generator) -> list[Span] | NoSpan:
    """One middle or more, in order, that neither overlap nor touch: a Poisson number of them, as InCoder has it.

    >>> for start, end in several(text, rng): ...
    """
    if not text:
        return NoSpan("empty")
    fitting = (len(text) + 1) // 2
    count = min(max(1, int(rng.poisson(_MEAN_SPANS))), MOST_SPANS, fitting)
    # Distinct cuts, so that the characters on both sides of every cut are one middle's and no other's.
    cuts = np.sort(rng.choice(len(text) + 1, 2 * count, replace=False)).tolist()
    return list(zip(cuts[0::2], cuts[1::2], strict=True))


def cuts_between_characters(content: bytes) -> Bool[np.ndarray, " B_and_1"]:
    """For each position in UTF-8, the end included, whether a character begins or the text ends there."""
    byte = np.frombuffer(content, np.uint8)
    return np.append(byte & 0xC0 != 0x80, True)


def characters_before(content: bytes) -> Int64[np.ndarray, " B_and_1"]:
    """For each position in UTF-8, the end included, how many characters begin before it."""
    begins = cuts_between_characters(content)[:-1]
    return np.append(0, np.cumsum(begins, dtype=np.int64))


def _between(boundaries: Int64[np.ndarray, " N"], rng: np.random.Generator) -> Span:
    """Two distinct boundaries, each pair as likely as any other; there are at least two, in order."""
    one = int(rng.integers(len(boundaries)))
    other = int(rng.integers(len(boundaries) - 1))
    other += other >= one
    return int(boundaries[min(one, other)]), int(boundaries[max(one, other)])
