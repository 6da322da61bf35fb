"""Whether something that a file says of itself, or its tests say of it, tells what stands in one place of it.

Python only, and files that import nothing but the standard library: they are run as they are, alone.
"""

import ast
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from data.spans import Span

Run = Callable[[str, str, str], str]
"""Why a file fails its checks, from what is before a hole, in it, and after it; empty where it does not."""


def passes(run: Run, text: str) -> bool:
    """Twice, since what depends on the order of a set or on an address is no check."""
    return not any(run(text, "", "") for _ in range(2))


def covers(run: Run, text: str, hole: Span) -> bool:
    """Whether checks that the file passes fail without what is in the hole: where that is empty, and where the
    statement that it is part of raises instead."""
    if not run(text[: hole[0]], "", text[hole[1] :]):
        return False
    start, end = _statements(text, hole)
    before, raising, after = text[:start], "raise NotImplementedError", text[end:]
    try:
        ast.parse(before + raising + after)
    except SyntaxError:  # an `elif`, say: it would fail for that
        return False
    return bool(run(before, raising, after))


def is_standard(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether it imports from the standard library alone."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    own = isinstance(node, ast.ImportFrom) and node.level
    return not own and all(name.partition(".")[0] in sys.stdlib_module_names for name in names)


def is_alone(tree: ast.Module) -> bool:
    return all(is_standard(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _statements(text: str, hole: Span) -> Span:
    """The hole itself, where it is whole statements; or else the statement that it is in."""
    lines, around = Lines.of(text), [hole]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            start, end = lines.span(node)
            if start == hole[0] and end <= hole[1]:
                return hole
            if start <= hole[0] and hole[1] <= end:
                around.append((start, end))  # an inner one comes after those around it
    return around[-1]


@dataclass(frozen=True)
class Lines:
    """Lines of a text and where they start, in characters; ast counts columns in bytes."""

    lines: Sequence[str]
    starts: Sequence[int]

    @staticmethod
    def of(text: str) -> "Lines":
        lines = text.split("\n")
        return Lines(lines, [0, *accumulate(len(line) + 1 for line in lines)])

    def span(self, node: Any) -> Span:
        """Of a statement, decorators included."""
        start = self._at(node.lineno, node.col_offset)
        for decorator in getattr(node, "decorator_list", ()):
            start = min(start, self._at(decorator.lineno, decorator.col_offset) - 1)
        return start, self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())
