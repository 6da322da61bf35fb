"""Middles are never empty, lie where they should, and each comes as often as it should."""

import itertools
import math
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codelm import tokenizer_training
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer
from data import spans
from data.spans import MOST_SPANS, NoSpan
from tests.data import standard_library
from tests.data.frequencies import assert_drawn

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("ab \t\r\né漢😀\u2028\x0c\ud800"), max_size=30),
    st.lists(st.sampled_from(["x = 1\n", "\r\n", "  return é\r\n", "\n", "# 😀", "\ufeff"]), max_size=8).map("".join),
)
SEEDS = st.integers(0, 2**32)


@cache
def tokenizer() -> Tokenizer:
    """So small that most of what is not ASCII is in bytes, and characters are cut in two."""
    lines = standard_library.texts()["dataclasses.py"].splitlines(keepends=True)
    return from_proto(tokenizer_training.train(iter(lines), 700))


def token_boundaries(text: str) -> set[int]:
    """In characters: where the bytes of the tokens so far are text by themselves."""
    found, content = {0}, b""
    for i in tokenizer().encode(text):
        content += tokenizer().piece_bytes(i)
        try:
            found.add(len(content.decode(errors="surrogatepass")))
        except UnicodeDecodeError:
            continue
    return found


def line_boundaries(text: str) -> set[int]:
    return {0, len(text), *(i + 1 for i, character in enumerate(text) if character == "\n")}


def pairs(boundaries: set[int]) -> dict[tuple[int, int], int]:
    return dict.fromkeys(itertools.combinations(sorted(boundaries), 2), 1)


@settings(deadline=None)  # the first example learns the vocabulary
@given(TEXTS, SEEDS)
def test_a_middle_is_not_empty_and_begins_and_ends_at_boundaries(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = {
        "characters": (spans.characters(text, rng), set(range(len(text) + 1))),
        "lines": (spans.lines(text, rng), line_boundaries(text)),
        "tokens": (spans.tokens(text, rng, tokenizer()), token_boundaries(text)),
    }
    for name, (span, boundaries) in choices.items():
        if not text:
            assert span == NoSpan("empty")
            continue
        assert not isinstance(span, NoSpan), name
        start, end = span
        assert type(start) is type(end) is int
        assert 0 <= start < end <= len(text), name
        assert {start, end} <= boundaries, name
        assert text[:start] + text[start:end] + text[end:] == text


@given(TEXTS, SEEDS)
def test_the_same_generator_gives_the_same_middle(text: str, seed: int) -> None:
    def everything() -> list:
        rng = np.random.default_rng(seed)
        return [f(text, rng) for f in (spans.characters, spans.lines, spans.several)]

    assert everything() == everything()


def test_each_pair_of_characters_is_as_likely() -> None:
    assert_drawn(lambda rng: spans.characters("aé漢😀\r\n", rng), pairs(set(range(7))))


@pytest.mark.parametrize("text", ["a\n\r\nb\x0cc\u2028\r\n  d", "\n\n\n", "one", "a\rb\n"])
def test_each_pair_of_line_boundaries_is_as_likely(text: str) -> None:
    assert_drawn(lambda rng: spans.lines(text, rng), pairs(line_boundaries(text)), 4000)


def test_each_pair_of_token_boundaries_is_as_likely() -> None:
    text = "def é漢😀(self):\r\n"
    assert len(tokenizer().encode(text)) + 1 > len(token_boundaries(text)) > 6  # some cut a character
    assert_drawn(lambda rng: spans.tokens(text, rng, tokenizer()), pairs(token_boundaries(text)), 4000)


def test_a_token_that_begins_inside_a_character_is_no_boundary() -> None:
    class Cut:
        awkward = re.compile("(?!)")

        def encode(self, text: str) -> list[int]:
            return [0, 1, 2]

    cutting = Tokenizer((b"(\xc3", b"\xa9x", b"y"), {}, (None,) * 256, Cut())
    assert_drawn(lambda rng: spans.tokens("(éxy", rng, cutting), pairs({0, 3, 4}), 2000)


def test_text_a_vocabulary_has_no_bytes_for_has_no_token_boundaries() -> None:
    whole = tokenizer()
    lacking = Tokenizer(whole.pieces, whole.special, (None,) * 256, whole.encoder)
    assert spans.tokens("x\ud800", np.random.default_rng(0), lacking) == NoSpan("not_in_vocabulary")


@given(TEXTS, SEEDS)
@example("a", 0)
@example("ab" * 3000, 1)
def test_several_middles_neither_overlap_nor_touch(text: str, seed: int) -> None:
    found = spans.several(text, np.random.default_rng(seed))
    if not text:
        assert found == NoSpan("empty")
        return
    assert isinstance(found, list)
    assert 1 <= len(found) <= MOST_SPANS
    cuts = [cut for span in found for cut in span]
    assert cuts == sorted(set(cuts))
    assert cuts[0] >= 0
    assert cuts[-1] <= len(text)


def test_how_many_middles_is_poisson_and_where_is_anywhere() -> None:
    text = "x" * 100
    chances = {n: math.exp(-1) / math.factorial(n) for n in range(2, 10)} | {1: 2 * math.exp(-1)}
    assert_drawn(lambda rng: len(spans.several(text, rng)), chances)
    fours = dict.fromkeys(itertools.combinations(range(6), 4), 1)

    def two_of_five(rng: np.random.Generator) -> tuple[int, ...]:
        while len(found := spans.several("a😀\r\nb", rng)) != 2:
            pass
        return tuple(cut for span in found for cut in span)

    assert_drawn(two_of_five, fours, 2000)


def test_no_more_middles_than_fit() -> None:
    class Many(np.random.Generator):
        def poisson(self, lam: float = 1.0, size: None = None) -> int:
            return 10**6

    rng = Many(np.random.PCG64(0))
    assert Counter(len(spans.several("x" * n, rng)) for n in (1, 2, 3, 4, 5)) == {1: 2, 2: 2, 3: 1}
    assert len(spans.several("x" * 10_000, rng)) == MOST_SPANS


@given(TEXTS)
def test_characters_are_counted_in_bytes(text: str) -> None:
    content = text.encode(errors="surrogatepass")
    ends = [0, *itertools.accumulate(len(c.encode(errors="surrogatepass")) for c in text)]
    assert np.flatnonzero(spans.cuts_between_characters(content)).tolist() == ends
    assert spans.characters_before(content)[ends].tolist() == list(range(len(text) + 1))
