"""Whole syntax nodes: where other readers of the same text find them, as likely as they are large."""

import ast
import io
import threading
import tokenize
from collections import Counter
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codelm.languages import LANGUAGES
from data import syntax
from data.spans import NoSpan
from tests.data import standard_library
from tests.data.frequencies import assert_drawn

# Kinds of which Python's own reader gives the range that the grammar does. Not here: what it gives without the brackets
# around it, and what the grammar has no node for. A block's comments at its end are part of it only for the grammar.
SIMPLE = (
    *(ast.Return, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign, ast.Pass, ast.Name),
    *(ast.Attribute, ast.Call, ast.Subscript, ast.List, ast.Dict, ast.Lambda, ast.UnaryOp, ast.ListComp, ast.Constant),
)
BLOCKS = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.With, ast.Try)


def spans_of(text: str, language: str) -> list[tuple[int, int]]:
    found = syntax.nodes(text, language)
    assert isinstance(found, syntax.Nodes), found
    return list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))


def ranges(text: str, kinds: tuple[type[ast.AST], ...]) -> set[tuple[int, int]]:
    """In characters: `ast` counts lines, and bytes within them."""
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *(len(line) for line in lines)])

    def offset(line: int, column: int) -> int:
        return int(starts[line - 1]) + len(lines[line - 1].encode()[:column].decode())

    return {
        (offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds) and not isinstance(getattr(node, "value", None), str)  # strings that are joined
    }


def token_edges(text: str) -> set[int]:
    """Where Python's tokens start or end, and everywhere inside strings."""
    starts = np.cumsum([0, *(len(line) for line in text.splitlines(keepends=True))])
    edges: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        start, end = (int(starts[line - 1]) + column for line, column in (token.start, token.end))
        is_string = token.type in (tokenize.STRING, tokenize.FSTRING_MIDDLE, tokenize.FSTRING_START)
        edges |= set(range(start, end + 1)) if is_string else {start, end}
    return edges


LIBRARY = ["json/decoder.py", "bisect.py", "textwrap.py", "contextlib.py", "heapq.py", "dataclasses.py"]


@pytest.mark.parametrize("name", LIBRARY)
def test_pythons_own_readers_find_the_same(name: str) -> None:
    text = standard_library.texts()[name].replace("self", "sélf").replace(" # ", " # 😀")
    ours = set(spans_of(text, "Python"))
    simple = ranges(text, SIMPLE)
    assert len(simple) > 100
    assert [text[start:end] for start, end in simple - ours] == []
    for start, end in ranges(text, BLOCKS):
        ends = [other for begin, other in ours if begin == start and other >= end]
        assert any(all(not line or line[0] == "#" for line in map(str.strip, text[end:e].split("\n"))) for e in ends)
    edges = token_edges(text)
    assert [text[start:end] for start, end in ours if not {start, end} <= edges] == []


SMALL = {
    # Every node by hand, in text order; a range comes twice where two nodes have it.
    "Python": (
        "def f(x):\n    return x\n\ny = f(1)\n",
        [
            *("def f(x):\n    return x", "f", "(x)", "x", "return x", "return x", "x"),
            *("y = f(1)", "y = f(1)", "y", "f(1)", "f", "(1)", "1"),
        ],
    ),
    "JavaScript": (
        "function f(x) {\r\n  return x;\r\n}\r\nlet y = 2;\r\n",
        [
            *("function f(x) {\r\n  return x;\r\n}", "f", "(x)", "x", "{\r\n  return x;\r\n}", "return x;", "x"),
            *("let y = 2;", "y = 2", "y", "2"),
        ],
    ),
    "Go": (
        "package p\n\nvar é = 7 // 😀ü",
        ["package p", "p", "var é = 7", "é = 7", "é", "7", "7", "// 😀ü"],
    ),
    "Rust": ("fn f() {}\nfn g() {}\n", ["fn f() {}", "f", "()", "{}", "fn g() {}", "g", "()", "{}"]),
    "Java": (
        "class A { }\nclass é { int x; }",
        ["class A { }", "A", "{ }", "class é { int x; }", "é", "{ int x; }", "int x;", "int", "x", "x"],
    ),
}


@pytest.mark.parametrize("language", SMALL)
def test_nodes_of_a_small_text(language: str) -> None:
    text, expected = SMALL[language]
    assert [text[start:end] for start, end in spans_of(text, language)] == expected


@pytest.mark.parametrize("language", SMALL)
def test_a_node_is_as_likely_as_it_is_large(language: str) -> None:
    text, expected = SMALL[language]
    shares = Counter()
    for node in expected:
        shares[node] += len(node)

    def chosen(rng: np.random.Generator) -> str:
        span = syntax.syntax(text, rng, language)
        assert not isinstance(span, NoSpan)
        return text[slice(*span)]

    assert_drawn(chosen, shares, 500)


def test_of_two_nodes_of_one_character_each_is_as_likely() -> None:
    assert_drawn(lambda rng: syntax.syntax("f.x", rng, "Python"), {(0, 1): 1, (2, 3): 1}, 300)


def test_a_node_of_nothing_is_none() -> None:
    assert all(start < end for start, end in spans_of("x=1\ncat <<A\nA\n", "Shell"))  # the text of what is piped in


WORKS = {
    "C": "int f(void) { return 1; }\nint x;",
    "C#": "class A { }\nclass B { }",
    "C++": "class A { };\nint x;",
    "CSS": "a { color: red; }\nb { }",
    "HTML": "<p>a</p>\n<b>c</b>",
    "JSON": '{"a": [1, 2]}',
    "Lua": "x = 1\ny = 2",
    "Kotlin": "fun f() { }\nval x = 1",
    "PHP": "<p><?php f(1); ?></p>",
    "Ruby": "def f\n  1\nend\nx = 2",
    "Scala": "object A { }\nobject B { }",
    "Shell": "echo a\nls | cat",
    "SQL": "SELECT a FROM t;\nSELECT b FROM t;",
    "Starlark": "x = 1\ny = 2",
    "Swift": "let x = 1\nlet y = 2",
    "TSX": "let x = <p>a</p>;\nlet y: A = 1;",
    "TypeScript": "let x: A = 1;\nlet y = <A>z;",
    "JSON with Comments": "// c\n{}",
    **{language: text for language, (text, _) in SMALL.items()},
}


@pytest.mark.parametrize("language", syntax._GRAMMARS)
def test_every_grammar_reads_its_language(language: str) -> None:
    assert language in LANGUAGES
    reader = syntax.parser(language)
    assert reader is not None
    assert not reader.parse(WORKS[language].encode()).root_node.has_error
    assert len(spans_of(WORKS[language], language)) > 1


PIECES = [
    "def f(x):\n",
    "    return x\n",
    "x = [1,\r\n",
    "é😀",
    "(",
    ")",
    '"',
    "\ud800",
    " ",
    "\n",
    "if y:\n",
    "a b c",
    "\0",
]


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)),
    st.sampled_from(["Python", "JavaScript", "HTML", "Shell", "Brainfuck"]),
    st.integers(0, 1000),
)
def test_any_text_gives_a_node_or_a_reason(text: str, language: str, seed: int) -> None:
    span = syntax.syntax(text, np.random.default_rng(seed), language)
    if isinstance(span, NoSpan):
        assert span.why in {"empty", "no_grammar", "does_not_parse"}
        return
    start, end = span
    assert type(start) is type(end) is int
    assert 0 <= start < end <= len(text)
    assert text[:start] + text[start:end] + text[end:] == text
    assert (text[:start] + text[end:]).strip()  # not all there is
    assert span == syntax.syntax(text, np.random.default_rng(seed), language)


def test_a_piece_of_a_file_has_nodes_and_none_with_a_mistake() -> None:
    text = "        return foo(é)\n\n    def g(self):\n        y = [1, 2\n        z = bar(1)\n"
    found = [text[start:end] for start, end in spans_of(text, "Python")]
    assert "foo(é)" in found
    assert not [node for node in found if "[" in node]


def test_what_is_mostly_wrong_is_refused() -> None:
    prose = "This is some prose, and it is not code. "
    assert syntax.nodes(prose * 3, "Go") == NoSpan("does_not_parse")
    assert syntax.nodes("(" * 50, "Python") == NoSpan("does_not_parse")
    code = "package p\n\nfunc f() int { return 1 }\n\n"
    assert isinstance(syntax.nodes(code * 5 + prose, "Go"), syntax.Nodes)


def test_what_has_nothing_but_itself_is_refused() -> None:
    for text in ("x", " x \n", "\n", "   "):
        assert syntax.nodes(text, "Python") == NoSpan("does_not_parse")
    assert spans_of("f.x\n", "Python") == [(0, 1), (2, 3)]  # the whole line is three nodes, all left out


def test_without_a_grammar() -> None:
    for language in ("Text", "F*", "../os", "No such"):
        assert syntax.parser(language) is None
        assert syntax.nodes("f(x)", language) == NoSpan("no_grammar")
    assert syntax.nodes("", "Python") == syntax.nodes("", "Text") == NoSpan("empty")


def test_a_pack_is_used_only_where_it_brings_its_grammars(monkeypatch: pytest.MonkeyPatch) -> None:
    python = syntax._grammar("Python")
    asked: list[str] = []

    def get_language(name: str) -> object:
        asked.append(name)
        if name == "text":
            raise LookupError(name)
        return python

    installed = "0.13.0"
    real = syntax.import_module
    pack = SimpleNamespace(get_language=get_language)
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    monkeypatch.setattr(syntax, "import_module", lambda name: pack if name == syntax._PACK else real(name))
    uncached = syntax._grammar.__wrapped__
    given_ = {"Haskell": "haskell", "Common Lisp": "commonlisp", "Objective-C": "objc", "F#": "fsharp"}
    assert [uncached(language) for language in given_] == [python] * len(given_)
    assert uncached("Text") is uncached("F*") is None
    assert asked == [*given_.values(), "text"]
    assert uncached("Go") is not python  # its own wheel comes first
    installed = "1.0.0"
    assert uncached("Haskell") is None
    assert len(asked) == len(given_) + 1


# What stops each: no progress at the rate of good code, or reading the rest again and again, or size.
@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a<b<c," * 10_000, "TSX"),
        ("/* " * 60_000, "Java"),
        ("{[(" * 60_000, "Java"),
        ("case x in " * 20_000, "Scala"),
        ("x = 1\n" * 50_000, "Python"),
        ("<p>a</p>\n" * 10_000, "HTML"),
    ],
    ids=["doubt", "comments", "open", "lookahead", "large", "large page"],
)
def test_a_parse_that_would_take_too_long_is_given_up(text: str, language: str) -> None:
    assert syntax.nodes(text, language) == NoSpan("too_slow")


@pytest.mark.parametrize(
    ("text", "language"),
    [("(" * 30_000, "Python"), ("[" * 30_000 + "]" * 30_000, "JSON"), ("x = (" * 20_000, "Ruby")],
    ids=["open", "closed", "assignments"],
)
def test_nesting_however_deep_is_an_answer(text: str, language: str) -> None:
    answers = []
    threading.stack_size(2**20)
    try:
        thread = threading.Thread(target=lambda: answers.append(syntax.nodes(text, language)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(0)
    assert len(answers) == 1


def test_a_large_good_file_is_read_to_its_end() -> None:
    text = "".join(standard_library.texts()[name] for name in ("argparse.py", "inspect.py"))[: syntax.LONGEST]
    assert len(text) > 200_000
    text = text.replace("self", "sélf")[:240_000].rsplit("\n\n\n", 1)[0]
    found = spans_of(text, "Python")
    assert max(end for _, end in found) > len(text) - 2000
    plain = syntax._good_nodes(syntax.parser("Python").parse(text.encode()))
    chunked = syntax._good_nodes(syntax._parse(syntax.parser("Python"), text.encode()))
    assert [array.tolist() for array in plain] == [array.tolist() for array in chunked]
