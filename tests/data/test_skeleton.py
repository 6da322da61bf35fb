"""Renaming, comments and layout change nothing in a skeleton; what the code does changes it."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import skeleton

CODE = """
def total(values, limit):
    found = 0
    for value in sorted(values):
        if value.size > limit and len(value) != 3:
            found += value.weight(limit) * 2
    return found
"""


def whole(text: str, comment: str = "#") -> int:
    """One hash for all of the text."""
    code = skeleton.of(text, comment)
    [found] = skeleton.runs(code, np.array([0]), len(code.shape))
    return int(found)


SAME = {
    "names": CODE.replace("values", "v").replace("value", "item_2").replace("found", "é").replace("total", "f"),
    "two names exchanged": CODE.replace("found", "Q").replace("limit", "found").replace("Q", "limit"),
    "a docstring": CODE.replace("limit):", 'limit):\n    """Don\'t stop: for x in y, "never"."""'),
    "a raw docstring": CODE.replace("limit):", "limit):\n    r'''One \\' more\n    line'''"),
    "a comment": CODE.replace("found = 0", "found = 0  # not 1, don't ask"),
    "a comment with a quote": CODE.replace("found = 0", "found = 0  # '''"),
    "tabs": CODE.replace("    ", "\t"),
    "carriage returns": CODE.replace("\n", "\r\n"),
    "spaces": CODE.replace("(", " ( ").replace("=", "  ="),
    "brackets and broken lines": CODE.replace("value in sorted(values)", "(value) in (\n  sorted(values,\n  )\n )"),
}
DIFFERENT = {
    "operator": CODE.replace(">", "<"),
    "longer operator": CODE.replace(">", ">="),
    "number": CODE.replace("* 2", "* 4"),
    "keyword": CODE.replace(" and ", " or "),
    "attribute": CODE.replace(".weight", ".height"),
    "built-in function": CODE.replace("len(", "abs("),
    "one name for two": CODE.replace("found", "limit"),
    "another name at one place": CODE.replace("return found", "return limit"),
    "a new name at one place": CODE.replace("return found", "return lost"),
}


@pytest.mark.parametrize("change", SAME)
def test_the_same_skeleton(change: str) -> None:
    assert SAME[change] != CODE
    assert whole(SAME[change]) == whole(CODE)


@pytest.mark.parametrize("change", DIFFERENT)
def test_another_skeleton(change: str) -> None:
    assert DIFFERENT[change] != CODE
    assert whole(DIFFERENT[change]) != whole(CODE)


def test_tokens_one_by_one() -> None:
    code = skeleton.of("def f(a):\n    return a.b + len(f'x{a}') - len  # c", "#")
    # def f a return a . b + len - len: what stands for itself, and which names are one
    assert (code.shape != 0).tolist() == [True, False, False, True, False, True, True, True, True, True, False]
    names = code.names.tolist()
    assert [name != 0 for name in names] == (code.shape == 0).tolist()
    assert names[2] == names[4]
    assert len({names[1], names[2], names[10]}) == 3


@pytest.mark.parametrize("operator", "!$%&*+-./<=>?@[]^{|}~")
def test_operators_are_tokens(operator: str) -> None:
    code = skeleton.of(f"a {operator} b", "#")
    assert (code.shape != 0).tolist() == [False, True, False]
    assert code.shape[1] != skeleton.of("a ~ b" if operator != "~" else "a ! b", "#").shape[1]


@pytest.mark.parametrize("mark", "(),:;\\`")
def test_other_punctuation_is_not(mark: str) -> None:
    assert len(skeleton.of(f"a {mark} b", "#").shape) == 2


def test_strings_are_left_out_with_their_prefix() -> None:
    plain = skeleton.of("x = join(y)", "#")
    for quoted in ("'a b'", '"it\'s"', "rb'\\''", 'f"{x}"', '"""\n# not a comment\n"""', "u''"):
        found = skeleton.of(f"x = join({quoted}, y)", "#")
        assert found.shape.tolist() == plain.shape.tolist()
        assert found.names.tolist() == plain.names.tolist()


@pytest.mark.parametrize(
    "text", ["// it's 'not code'\n", "/* for (;;) */", "/* a\n * b **/", "/***/ /**/", '"*/" /* " */'], ids=repr
)
def test_comments_with_slashes(text: str) -> None:
    assert whole(f"let a = b * c;{text} return a + b;", "//") == whole("let x = y * z; return x + y;", "//")


def test_slashes_divide_where_comments_begin_with_a_hash() -> None:
    assert whole("a // b + c", "#") != whole("a // b - c", "#")
    assert whole("a // b + c", "//") == whole("a // b - c", "//")


def test_a_block_comment_that_does_not_end_hides_nothing() -> None:
    assert whole("a = b /* c + d", "//") != whole("a = b /* c - d", "//")


@pytest.mark.parametrize("language", ["Python", "Ruby", "Shell", "YAML"])
def test_languages_whose_comments_begin_with_a_hash(language: str) -> None:
    assert skeleton.comments(language) == "#"


@pytest.mark.parametrize("language", ["JavaScript", "C", "Markdown", "no such language"])
def test_languages_whose_comments_begin_with_slashes(language: str) -> None:
    assert skeleton.comments(language) == "//"


@given(st.lists(st.sampled_from(["a", "b", "c", "+", "if", "1"]), min_size=6, max_size=24), st.integers(1, 6))
def test_runs_are_equal_where_names_go_over_one_for_one(tokens: list[str], n: int) -> None:
    def renamed(window: list[str]) -> tuple[str, ...]:
        names = list(dict.fromkeys(token for token in window if token in "abc"))
        return tuple(f"name {names.index(token)}" if token in names else token for token in window)

    code = skeleton.of(" ".join(tokens), "#")
    starts = np.arange(len(tokens) - n + 1)
    hashes = skeleton.runs(code, starts, n).tolist()
    references = [renamed(tokens[start : start + n]) for start in starts]
    pairs = set(zip(hashes, references, strict=True))
    assert len(pairs) == len(set(hashes)) == len(set(references))


def test_prose_says_nothing_and_code_does() -> None:
    prose = skeleton.of("The quick brown fox jumps over the lazy dog, and so does every other fox. " * 3, "#")
    assert not len(skeleton.telling(prose, 16))
    assert not len(skeleton.telling(skeleton.of("a = b + c * d + e", "#"), 9))  # three different operators
    assert skeleton.telling(skeleton.of("a = b + c * d - e", "#"), 9).tolist() == [0]
    code = skeleton.of(CODE, "#")
    assert len(skeleton.telling(code, 16)) == len(code.shape) - 16 + 1


@pytest.mark.parametrize("comment", skeleton.COMMENTS)
@pytest.mark.parametrize("odd", ["/*", "/* ", '"""', "\\'", "'", '"\\', "'''\"\"\"", "''' ", "x'", "*/", "{", "\\\n'"])
def test_time_is_linear_in_the_text_however_odd(odd: str, comment: str) -> None:
    start = time.process_time()
    skeleton.of(odd * 100_000, comment)
    skeleton.of("*/\n" + odd * 100_000, comment)
    assert time.process_time() - start < 3  # 20 to 200 ms; were it quadratic, half a minute and more


@pytest.mark.parametrize("text", ["", " ", "\n", "'", '"""', "\ud800", "(,;:)", "x"])
def test_any_text_has_a_skeleton(text: str) -> None:
    for comment in skeleton.COMMENTS:
        code = skeleton.of(text, comment)
        assert len(code.shape) == len(code.names) <= 1
