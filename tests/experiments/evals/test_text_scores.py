"""Scores of texts against figures worked out by hand, and BLEU against a plain implementation."""

import math
import random
from fractions import Fraction

import pytest

from experiments.evals import text_scores
from experiments.evals.text_scores import bleu, exact, f1, identifiers, scores


def test_only_white_space_at_the_end_is_nothing() -> None:
    assert exact("return x\n", "return x") == 1
    assert exact(" return x", "return x") == 0
    assert exact("return y", "return x") == 0


def test_bleu_of_a_sentence_worked_out_by_hand() -> None:
    """`a b c d x` for `a b c d e`: 4 of 5 words; 3 of 4 pairs, 2 of 3 and 1 of 2 longer ones, each with one more."""
    expected = (Fraction(4, 5) * Fraction(4, 5) * Fraction(3, 4) * Fraction(2, 3)) ** 0.25
    assert bleu("a b c d x", "a b c d e") == pytest.approx(expected, rel=1e-12)


def test_a_short_text_pays_for_its_brevity() -> None:
    """All of `a b` is there, of 4 tokens: exp(1 - 4/2). What has no longer runs has none that are wrong."""
    assert bleu("a b", "a b c d") == pytest.approx(math.exp(-1), rel=1e-12)
    assert bleu("a b c d a b", "a b c d") < 1, "and a long one for what is too much"


def test_bleu_is_one_for_the_same_and_nothing_for_what_has_no_word_of_it() -> None:
    assert bleu("return", "return") == bleu("f(x)", "f( x )") == bleu("", "") == 1
    assert bleu("", "x") == bleu("x", "") == bleu("a b", "c d") == 0


def test_bleu_is_that_of_a_plain_implementation() -> None:
    rng = random.Random(0)
    for _ in range(500):
        one, other = ([rng.choice("abc") for _ in range(rng.randrange(1, 9))] for _ in range(2))
        assert bleu(" ".join(one), " ".join(other)) == pytest.approx(_plain_bleu(one, other), abs=1e-12)


def _plain_bleu(found: list[str], wanted: list[str]) -> float:
    """Every run of tokens taken out of the reference's once it has matched."""
    product = 1.0
    for n in (1, 2, 3, 4):
        left = [wanted[i : i + n] for i in range(len(wanted)) if i + n <= len(wanted)]
        runs = [found[i : i + n] for i in range(len(found)) if i + n <= len(found)]
        matched = 0
        for run in runs:
            if run in left:
                left.remove(run)
                matched += 1
        product *= matched / len(runs) if n == 1 else (matched + 1) / (len(runs) + 1)
    penalty = 1.0 if len(found) >= len(wanted) else math.exp(1 - len(wanted) / len(found))
    return penalty * product**0.25


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("for total in add(total, 2e5): pass", "Python", ["total", "add", "total"]),
        ("x = f'name' + \"# no comment\"  # nor = this", "Python", ["x"]),
        ("self._parts[i].append(True)", "Python", ["self", "_parts", "i", "append", "True"]),
        ('String s = new Reader("a b").read(); // rest', "Java", ["String", "s", "Reader", "read"]),
        ("/* of two\n lines */ const x: Kind = this.y", "TypeScript", ["x", "Kind", "y"]),
        ("foreach (int item in items) Add(item);", "C#", ["item", "items", "Add", "item"]),
        ("fn run(self) -> Kind { let mut a = b; }", "Rust", ["run", "Kind", "a", "b"]),
    ],
)
def test_identifiers_are_words_of_code_that_are_no_keywords(text: str, language: str, expected: list[str]) -> None:
    assert identifiers(text, language) == expected


def test_f1_is_of_sets() -> None:
    assert f1(["a", "b", "b"], ["a", "c", "d"]) == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))
    assert f1(["a", "a"], ["a"]) == 1
    assert f1([], ["a"]) == f1(["a"], []) == 0
    assert f1([], []) == 1, "neither has any: they are the same"


def test_all_scores_at_once() -> None:
    found = scores("total = add(a, b)", "total = add(a, c)", "Python")
    assert tuple(found) == text_scores.NAMES
    assert found["exact"] == found["identifiers"] == 0
    assert found["similarity"] == pytest.approx(1 - 1 / 17)
    assert found["identifiers_f1"] == 3 / 4
    assert set(scores("f(x)", "f(x)", "Go").values()) == {1.0}


def test_order_and_number_tell_lists_of_identifiers_apart() -> None:
    assert scores("add(b, a)", "add(a, b)", "Python")["identifiers"] == 0
    assert scores("add(b, a)", "add(a, b)", "Python")["identifiers_f1"] == 1
