"""A middle begins where an editor would ask and ends with its line; how much of a context is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codelm.languages import LANGUAGES
from data import triggers
from data.spans import NoSpan
from tests.data.frequencies import assert_drawn

CODE = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            ["\n", "\r\n", "  ", "\t", "x", "é😀", "(", "=", "==", ".", ":", "return ", "# ", "{{", '="', "\x0c"]
        ),
        max_size=25,
    ).map("".join),
)
SOME = st.sampled_from(["Python", "C", "Ruby", "Shell", "SQL", "HTML", "JSON", "Haskell", "Brainfuck", None])


def after(text: str, language: str) -> list[str]:
    """What each middle is: its text tells where it begins, as its end is the line's."""
    return [text[start:end] for start, end in triggers.candidates(text, language)]


@given(CODE, SOME)
def test_a_middle_is_the_rest_of_a_line_that_has_some(text: str, language: str | None) -> None:
    found = triggers.candidates(text, language)
    assert found == sorted(set(found))
    for start, end in found:
        line_start = text.rfind("\n", 0, start) + 1
        line_end = text.find("\n", start)
        line_end = len(text) if line_end < 0 else line_end
        assert line_start < start < end
        assert end == line_end - (text[line_start:line_end].endswith("\r"))
        assert text[start:end].strip()
        before = text[line_start:start]
        assert before.strip() or not text[start].isspace()  # not inside the indentation


@given(CODE, SOME, st.integers(0, 1000))
def test_one_of_the_candidates_or_a_reason(text: str, language: str | None, seed: int) -> None:
    span = triggers.language_causal(text, np.random.default_rng(seed), language)
    found = triggers.candidates(text, language)
    assert span in found if found else span == NoSpan("no_trigger" if text else "empty")


def test_each_trigger_is_as_likely() -> None:
    text = "é = f(1)\r\n  😀.y\n"
    # After `=`, after `(`, after the indentation, after `.`.
    expected = {(3, 8): 1, (6, 8): 1, (12, 15): 1, (14, 15): 1}
    assert_drawn(lambda rng: triggers.language_causal(text, rng, "Python"), expected, 8000)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("Python", "import os\n", ["os"]),
        ("Python", "x == y", [" y"]),
        ("Python", "n // 2", []),
        ("Python", "    return   f(a)\n", ["return   f(a)", "f(a)", "a)"]),
        ("Python", "reimport = 1 # returns x", [" 1 # returns x"]),
        ("Python", "if x:\n", ["x:"]),
        ("Python", "f(\n", []),
        ("Python", "   \n\t\n", []),
        ("Python", "plain words\n", []),
        ("Java", "a->b; // c", ["b; // c", " // c"]),
        ("C++", "std::move", ["move"]),
        ("TypeScript", "x => y === z", [" y === z", " z"]),
        ("Go", "x := y", [" y"]),
        ("Ruby", "foo do |x| y", ["|x| y", "x| y", " y"]),
        ("Shell", "echo $HOME | cat", ["$HOME | cat", "HOME | cat", " cat"]),
        ("Shell", "x $(ls)", ["ls)"]),
        ("SQL", "SELECT a FROM t", ["a FROM t", "t"]),
        ("SQL", "select a from t", ["a from t", "t"]),
        ("HTML", '<a href="x">y</a>', ['a href="x">y</a>', 'x">y</a>', "y</a>", "a>"]),
        ("JSON", '{"a": [1]}', ['"a": [1]}', " [1]}", "1]}"]),
        ("Haskell", "f x = y <- z", [" y <- z", " z"]),
        ("Brainfuck", "f(x)", ["x)"]),
    ],
)
def test_where_middles_begin(language: str, text: str, expected: list[str]) -> None:
    assert after(text, language) == expected


def test_families_are_of_languages_there_are() -> None:
    languages = [language for family in triggers._FAMILIES.values() for language in family.split("|")]
    assert len(languages) == len(set(languages))
    assert set(languages) <= set(LANGUAGES)
    assert {*triggers._FAMILIES, "default"} == set(triggers._MARKS) == set(triggers._WORDS)
