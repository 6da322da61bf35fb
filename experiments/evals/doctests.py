"""Examples in docstrings as checks of a file with something else in one place of it.

Python only, and files that import nothing but the standard library: they are run as they are, alone. Examples run in
the sandbox and what they print is compared here, as doctest does it. What they should print is in the docstrings as
well; it is taken out of the file before that is run.
"""

import ast
import doctest
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from codelm.sandbox import Limits, Pool
from data.spans import Span

_LIMITS = Limits(seconds=10, cpu_seconds=10)
_RAISES = "Traceback (most recent call last):\n    ...\n"  # what the sandbox tells before the exception
# An example's own lines, then what it should print: up to a blank line, the next example or the docstring's end.
_EXAMPLE = r"^([ \t]*>>>.*\n(?:[ \t]*\.\.\.(?: .*)?\n)*)"
_EXPECTED = re.compile(_EXAMPLE + r"(?:(?![ \t]*(?:>>>|$))(?!.*(?:\"{3}|'{3})).+\n)+", re.MULTILINE)
_FLAGS = {flag: name for name, flag in doctest.OPTIONFLAGS_BY_NAME.items()}


@dataclass(frozen=True)
class Example:
    source: str
    want: str
    raises: str = ""
    """What the exception says that it ends with; empty where it ends with none."""
    options: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Owner:
    """A function or class with examples; where it is in the file, in characters."""

    span: Span
    examples: tuple[Example, ...]


def owners(text: str) -> list[Owner]:
    """Outer ones first; none where the file could not be run alone."""
    try:
        tree, shown = ast.parse(text), ast.parse(_without_expected(text))
        both = list(zip(ast.walk(tree), ast.walk(shown), strict=True))
    except (SyntaxError, ValueError, RecursionError):
        return []
    if not _is_alone(tree):
        return []
    lines, found = _Lines.of(text), []
    for node, as_run in both:
        examples = tuple(_examples(node))
        if examples and not any(example.want for example in _examples(as_run)):
            found.append(Owner(lines.span(node), examples))
    return found


def run(pool: Pool, before: str, written: str, after: str, examples: Sequence[Example]) -> str:
    """Why a file fails its examples; empty where it does not."""
    source = _without_expected(before) + written + _without_expected(after)
    printed, reason = pool.transcript(source, [example.source for example in examples], _LIMITS)
    if reason:
        return reason
    return "" if all(map(_agrees, examples, printed)) else "examples"


def passes(pool: Pool, text: str, examples: Sequence[Example]) -> bool:
    """Twice, since what depends on the order of a set or on an address is no check."""
    return not any(run(pool, text, "", "", examples) for _ in range(2))


def covers(pool: Pool, text: str, hole: Span, examples: Sequence[Example]) -> bool:
    """Whether examples that the file passes fail without what is in the hole: where that is empty, and where the
    statement that it is part of raises instead."""
    if not run(pool, text[: hole[0]], "", text[hole[1] :], examples):
        return False
    start, end = _statements(text, hole)
    before, raising, after = text[:start], "raise NotImplementedError", text[end:]
    try:
        ast.parse(before + raising + after)
    except SyntaxError:  # an `elif`, say: it would fail for that
        return False
    return bool(run(pool, before, raising, after, examples))


def _agrees(example: Example, printed: str) -> bool:
    checker = doctest.OutputChecker()
    flags = sum(doctest.OPTIONFLAGS_BY_NAME[name] for name, on in example.options.items() if on)
    raised = printed.rpartition(_RAISES)[2] if _RAISES in printed else ""
    if bool(raised) != bool(example.raises):
        return False
    if not raised:
        return checker.check_output(example.want, printed, flags)
    if flags & doctest.IGNORE_EXCEPTION_DETAIL:
        return _kind(raised) == _kind(example.raises)
    return checker.check_output(example.raises, raised, flags)


def _kind(raised: str) -> str:
    """The name of an exception, without its module."""
    return raised.partition(":")[0].strip().rpartition(".")[2]


def _without_expected(text: str) -> str:
    return _EXPECTED.sub(r"\1", text)


def _examples(node: ast.AST) -> Iterator[Example]:
    """In the docstring of a function or class."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    try:
        found = doctest.DocTestParser().get_examples(ast.get_docstring(node, clean=False) or "")
    except ValueError:  # its indentation is no example's
        return
    for example in found:
        options = {_FLAGS[flag]: on for flag, on in example.options.items()}
        if not options.get("SKIP"):
            yield Example(example.source, example.want, example.exc_msg or "", options)


def _is_alone(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." if node.level else node.module or ""]
        if any(name.partition(".")[0] not in sys.stdlib_module_names for name in names):
            return False
    return True


def _statements(text: str, hole: Span) -> Span:
    """The hole itself, where it is whole statements; or else the statement that it is in."""
    lines, around = _Lines.of(text), [hole]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            start, end = lines.span(node)
            if start == hole[0] and end <= hole[1]:
                return hole
            if start <= hole[0] and hole[1] <= end:
                around.append((start, end))  # an inner one comes after those around it
    return around[-1]


@dataclass(frozen=True)
class _Lines:
    """Lines of a text and where they start, in characters; ast counts columns in bytes."""

    lines: Sequence[str]
    starts: Sequence[int]

    @staticmethod
    def of(text: str) -> "_Lines":
        lines = text.split("\n")
        return _Lines(lines, [0, *accumulate(len(line) + 1 for line in lines)])

    def span(self, node: Any) -> Span:
        """Of a statement, decorators included."""
        start = self._at(node.lineno, node.col_offset)
        for decorator in getattr(node, "decorator_list", ()):
            start = min(start, self._at(decorator.lineno, decorator.col_offset) - 1)
        return start, self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())
