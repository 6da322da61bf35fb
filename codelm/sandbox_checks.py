"""Which checks a test has, and a version of it that tells which of them it has passed."""

import ast
import contextlib
import functools
import marshal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

RAN = "__ran__"
"""The function that the changed tests call with the number of each assert that held."""

_FILTERS = threading.Lock()
_CONDITIONAL = (ast.If, ast.Try, ast.TryStar, ast.While, ast.Match)


@dataclass(frozen=True)
class Plan:
    code: bytes
    """The changed tests, compiled."""
    required: frozenset[int]
    """Numbers of the asserts that must have run: those under no if, try, while or match."""
    lines: tuple[str, ...]
    """The tests as they were, to tell what failed."""


class _Numbered(ast.NodeTransformer):
    def __init__(self) -> None:
        self.count = 0
        self.required: set[int] = set()
        self._conditions = 0

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        call = ast.Call(ast.Name(RAN, ast.Load()), [ast.Constant(self.count)], [])
        if not self._conditions:
            self.required.add(self.count)
        self.count += 1
        return [node, ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr):  # holds no assert, and may be most of the tests
            return node
        self._conditions += isinstance(node, _CONDITIONAL)
        super().generic_visit(node)
        self._conditions -= isinstance(node, _CONDITIONAL)
        return node


@functools.lru_cache(maxsize=32)
def plan(tests: str) -> Plan:
    """Raises what `compile` does where the tests are no Python. Cached: a problem is checked with many candidates."""
    numbered = _Numbered()
    with _quietly():
        tree = numbered.visit(ast.parse(tests))
        code = marshal.dumps(compile(tree, "tests", "exec"))
    return Plan(code, frozenset(numbered.required), tuple(tests.splitlines()))


@functools.lru_cache(maxsize=32)
def compiled(setup: str) -> bytes:
    with _quietly():
        return marshal.dumps(compile(setup, "setup", "exec"))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings: the tests are others'. By one thread at a time, since the filters are everybody's."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
