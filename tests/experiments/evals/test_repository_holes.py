"""Holes in files: where they are, against what Python's own parser says, and where a completion ends."""

import ast
import io
import json
import queue
import textwrap
import tokenize
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from types import ModuleType

import pytest

from data.spans import Span
from data.triggers import candidates
from experiments.evals import repository_holes
from experiments.evals.repository_holes import KINDS, Kind, cut, find

MODULES: tuple[ModuleType, ...] = (textwrap, json.decoder, queue)


class Code:
    """A Python file as its own tokenizer and parser see it."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, ast.parse(text)
        self.starts = [0, *accumulate(map(len, text.splitlines(keepends=True)))]
        self.prose = [False] * len(text)
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT, tokenize.FSTRING_MIDDLE):
                start, end = self.at(*token.start), self.at(*token.end)
                self.prose[start:end] = [True] * (end - start)

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def span(self, statements: list[ast.stmt]) -> Span:
        first, last = statements[0], statements[-1]
        line, column = first.lineno, first.col_offset
        for decorator in getattr(first, "decorator_list", ()):
            line, column = min((line, column), (decorator.lineno, decorator.col_offset - 1))
        return self.at(line, column), self.at(last.end_lineno or 0, last.end_col_offset or 0)

    def words(self, span: Span) -> int:
        return sum(self.text[at].isalnum() and not self.prose[at] for at in range(*span))

    def bodies(self, of_functions: bool) -> Iterator[Span]:
        for node in ast.walk(self.tree):
            for statements in _lists(node):
                is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                if is_function == of_functions and not isinstance(node, ast.Module):
                    documented = (
                        isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None
                    )
                    if statements[documented:]:
                        yield self.span(statements[documented:])


def _lists(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        found = getattr(node, name, None)
        if isinstance(found, list) and found and isinstance(found[0], ast.stmt):
            yield found


@pytest.fixture(scope="module", params=MODULES, ids=lambda module: module.__name__)
def code(request: pytest.FixtureRequest) -> Code:
    return Code(Path(request.param.__file__).read_text(encoding="utf-8"))


def test_every_hole_begins_after_a_trigger_in_code_and_has_something_to_say(code: Code) -> None:
    starts = {start for start, _ in candidates(code.text, "Python")}
    found = find(code.text, "Python")
    assert all(found[kind] for kind in KINDS)
    for kind in KINDS:
        for start, end in found[kind]:
            middle = code.text[start:end]
            assert start in starts
            assert not code.prose[start]
            assert code.words((start, end)) >= 3
            assert middle == middle.rstrip() == cut(kind, code.text[:start], middle)


def test_a_line_ends_with_its_line(code: Code) -> None:
    for start, end in find(code.text, "Python")["line"]:
        assert "\n" not in code.text[start:end]
        assert not code.text[end:].split("\n")[0].strip()


@pytest.mark.parametrize("kind", ["function", "block"])
def test_functions_and_blocks_are_those_of_pythons_parser(kind: Kind, code: Code) -> None:
    found, known = set(find(code.text, "Python")[kind]), set(code.bodies(kind == "function"))
    assert found <= known
    longest = {"function": 1600, "block": 800}[kind]
    for start, end in known - found:
        one_line = code.text[:start].rpartition("\n")[2].strip() != ""
        commented = code.text[:start].rstrip().rpartition("\n")[2].lstrip().startswith("#")  # it begins with that
        other = end - start > longest or code.words((start, end)) < 3 or _is_elif(code.text, start)
        dedented = cut(kind, code.text[:start], code.text[start:end]) != code.text[start:end]
        assert one_line or commented or other or dedented, code.text[start:end]


def _is_elif(text: str, start: int) -> bool:
    return text.startswith("elif", start) or text[:start].endswith("else ")


def test_what_is_hidden_of_an_api_is_of_an_imported_name(code: Code) -> None:
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(code.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for start, _ in find(code.text, "Python")["api"]:
        before = code.text[:start].rstrip()
        assert before[-1] in ".("
        assert next(word for word in reversed(_words(before)) if word) in imported


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text[-80:]).split(" ")


PIECES: dict[str, tuple[str, dict[Kind, list[str]]]] = {
    "JavaScript": (
        "import open, {read as load} from './x.js';\nconst store = require('y');\nfunction total(path) {\n"
        "  const a = load(path, 12);\n  if (a) {\n    store.close(a).later;\n  }\n  return open.first;\n}\n",
        {"block": ["store.close(a).later;"], "api": ["path, 12", "close(a).later", "first"]},
    ),
    "Java": (
        "import a.b.Shelf;\nclass Total {\n  int of(int size) {\n    while (size > 3) {\n      size = size / 2;\n"
        "    }\n    return Shelf.find(size, 33);\n  }\n}\n",
        {
            "function": ["while (size > 3) {\n      size = size / 2;\n    }\n    return Shelf.find(size, 33);"],
            "api": ["find(size, 33)"],
        },
    ),
    "Go": (
        'package m\nimport (\n\t"fmt"\n\tshelf "a/store"\n)\nfunc total(n int) int {\n\tfor i := range n {\n'
        "\t\tfmt.Println(i)\n\t}\n\treturn shelf.Size(1)\n}\n",
        {"block": ["fmt.Println(i)"], "api": ["Println(i)", "Size(1)"]},
    ),
    "Rust": (
        "use a::b::{Shelf, find as look};\nfn total() -> i32 {\n    if full {\n        look(222);\n    }\n"
        "    Shelf::new(123).size()\n}\n",
        {"block": ["look(222);"], "api": ["222", "new(123).size()"]},
    ),
    "Ruby": ("def total(path)\n  if path\n    find(path)\n  end\nend\n", {"block": ["find(path)"], "api": []}),
    "C++": ("int total(int n) {\n  if (n) {\n    find(n);\n  }\n  return 12345;\n}\n", {"block": ["find(n);"]}),
}


@pytest.mark.parametrize("language", PIECES)
def test_other_languages_have_the_same_kinds(language: str) -> None:
    text, expected = PIECES[language]
    found = find(text, language)
    for kind, middles in expected.items():
        assert [text[start:end] for start, end in found[kind]] == middles


def test_comments_and_strings_have_no_holes() -> None:
    text = (
        'x = 1\n# total = compute(a, b)\n"""total = compute(a, b)"""\ny = "total = compute"\nz = 2  # as said (above)\n'
    )
    assert not any(find(text, "Python").values())


def test_lines_alone_are_hidden_where_there_is_no_grammar() -> None:
    text = "set total = 12345\n"
    found = find(text, "Gnuplot")
    assert [text[start:end] for start, end in found["line"]] == [" 12345"]
    assert not any(found[kind] for kind in KINDS if kind != "line")
    assert not repository_holes.is_code("Gnuplot")
    assert not repository_holes.is_code("JSON")


def test_what_does_not_parse_has_no_holes() -> None:
    assert not any(find("} ) ] {{ ,, 12 = = = ((\n" * 50, "Java").values())


@pytest.mark.parametrize(
    ("kind", "prefix", "written", "kept"),
    [
        ("line", "x = ", "total(1)\ny = 2\n", "total(1)"),
        ("line", "x = ", "total(1)  \n", "total(1)"),
        ("api", "f(", "a, (b, c)) + 1", "a, (b, c)"),
        ("api", "np.", "zeros((3,\n  4))\nnext()", "zeros((3,\n  4))"),
        ("api", "[np.", "pi, 2]", "pi, 2"),
        ("block", "if x:\n    ", "a = 1\n\n    b = 2\nelse:\n    c = 3", "a = 1\n\n    b = 2"),
        ("function", "  f() {\n    ", "a();\n    b();\n  }\n  g() {", "a();\n    b();"),
        ("function", "\tf() {\n\t\t", "a();\n\t\tb();\n\t}\n", "a();\n\t\tb();"),
    ],
)
def test_a_completion_is_cut_where_its_hole_ends(kind: Kind, prefix: str, written: str, kept: str) -> None:
    assert cut(kind, prefix, written) == kept
