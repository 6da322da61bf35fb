"""Words and runs of words by their hashes: equal exactly where cutting them with `re` gives equal words."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import shingles
from tests.data import standard_library

WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
# Sizes around the eight bytes that are hashed at once, each also with a neighbour that differs in one byte.
SIZED = [word for size in (1, 7, 8, 9, 15, 16, 17, 24, 25, 200) for word in ("a" * size, "a" * (size - 1) + "b")]
TEXTS = st.one_of(
    st.text(st.characters(categories=("Ll", "Nd", "Zs", "Po", "Cs", "Lo")), max_size=60),
    st.lists(st.sampled_from([*SIZED, *(word[::-1] for word in SIZED), "é", "\ud800", "x_1", "+", "\n", "\0"])).map(
        " ".join
    ),
)


def words_by_re(text: str) -> list[bytes]:
    return WORD.findall(text.encode(errors="surrogatepass"))


def assert_same_classes(hashes: np.ndarray, references: list) -> None:
    """Equal things have equal hashes, and different things have different ones."""
    assert len(hashes) == len(references)
    pairs = set(zip(hashes.tolist(), references, strict=True))
    assert len(pairs) == len({h for h, _ in pairs}) == len({r for _, r in pairs})


@given(TEXTS)
def test_words_are_those_that_re_finds(text: str) -> None:
    assert_same_classes(shingles.words(text), words_by_re(text))


def test_words_of_any_size_are_told_apart() -> None:
    swapped = [f"{'a' * 8}{'b' * 8}c", f"{'b' * 8}{'a' * 8}c"]
    text = " ".join([*SIZED, *(word[::-1] for word in SIZED), *swapped, *SIZED])
    assert_same_classes(shingles.words(text), words_by_re(text))


@given(TEXTS, TEXTS, st.integers(1, 14))
def test_runs_are_equal_where_their_words_are(one: str, other: str, n: int) -> None:
    hashes, references = [], []
    for text in (one, other):
        words = words_by_re(text)
        size = min(n, len(words))
        hashes.append(shingles.ngrams(shingles.words(text), n))
        references += [tuple(words[i : i + size]) for i in range(len(words) - size + 1)] if words else []
    assert_same_classes(np.concatenate(hashes), references)


@pytest.mark.parametrize("n", [1, 5, 10, 13])
def test_no_two_runs_of_the_standard_library_share_a_hash(n: int) -> None:
    texts = list(standard_library.texts().values())[::12]
    hashes = np.concatenate([shingles.ngrams(shingles.words(text), n) for text in texts])
    references = []
    for text in texts:
        words = words_by_re(text)
        references += list(zip(*(words[i:] for i in range(min(n, len(words)))), strict=False))
    assert_same_classes(hashes, references)


def test_white_space_and_punctuation_do_not_count() -> None:
    plain, spaced = (shingles.words(text) for text in ("f(x, y)=x+1", " f ( x,\n\ty ) = x + 1 ;"))
    assert plain.tolist() == spaced.tolist()
    assert len(plain) == 5


@pytest.mark.parametrize("text", ["", " ", "+-\n\t*"])
def test_a_text_without_words_has_no_runs(text: str) -> None:
    assert len(shingles.words(text)) == len(shingles.ngrams(shingles.words(text), 5)) == 0


def test_mixing_is_splitmix64_and_loses_nothing() -> None:
    def reference(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    values = [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0]
    given_ = np.array(values, np.uint64)
    assert shingles.mixed(given_).tolist() == [reference(value) for value in values]
    assert given_.tolist() == values  # not in place
    assert len(np.unique(shingles.mixed(np.arange(100_000, dtype=np.uint64)))) == 100_000


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1))
def test_first_uses(rows: list[list[int]]) -> None:
    found = shingles.first_uses(np.array(rows, np.uint64))
    assert found.tolist() == [[row.index(value) for value in row] for row in rows]
