"""Unit tests in a repository as checks of one of its files with something else in one place of it.

Tests run as `Pool.check` runs them: in a process that has nothing of the file but proxies of its names. So each test
is made a piece of Python of its own that needs no framework: functions as pytest finds them, parametrised or not, and
methods of unittest.TestCase; with what they need of their file's imports, constants and helpers. What they import from
the file under test become names of proxies, `self.assertEqual(a, b)` becomes `assert a == b`, `pytest.raises` a try.
A test with fixtures or with what else is not known here fails on the file itself, and so is none.
"""

import ast
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from codelm.sandbox import Check, Limits, Pool
from data.document import Document
from data.import_modules import Python
from data.repository_files import Files
from data.spans import Span
from experiments.evals.file_checks import Lines, is_alone, is_standard

_LIMITS = Limits(seconds=10, cpu_seconds=10)
_EQUAL = ("Equal", "ListEqual", "DictEqual", "TupleEqual", "SetEqual", "SequenceEqual", "MultiLineEqual")
_COMPARED = dict.fromkeys(_EQUAL, ast.Eq) | {
    "NotEqual": ast.NotEq,
    "Is": ast.Is,
    "IsNot": ast.IsNot,
    "In": ast.In,
    "NotIn": ast.NotIn,
    "Greater": ast.Gt,
    "GreaterEqual": ast.GtE,
    "Less": ast.Lt,
    "LessEqual": ast.LtE,
}


@dataclass(frozen=True)
class UnitTest:
    """One test of a file, to be run without the file that it stands in."""

    path: str
    """Of that file."""
    name: str
    names: tuple[str, ...]
    """What it uses of the file under test."""
    source: str


def run(pool: Pool, before: str, written: str, after: str, tests: Sequence[UnitTest]) -> str:
    """Why a file fails its tests; empty where it does not."""
    source = before + written + after
    verdicts = (pool.check(Check(source, test.source, tuple(test.names), limits=_LIMITS)) for test in tests)
    return next((verdict.reason for verdict in verdicts if verdict.reason), "")


@dataclass(frozen=True)
class Repository:
    """All that is tested in one repository."""

    files: Sequence[Document]

    def tested(self, number: int) -> list[tuple[Span, list[UnitTest]]]:
        """The functions and classes of a file that tests use: where each is, and its tests. None where the file could
        not be run alone."""
        file = self.files[number]
        tree = _parsed(file.text) if file.language == "Python" else None
        if tree is None or number in self._modules or not is_alone(tree):
            return []
        tests = [test for other, imported in self._uses.get(number, ()) for test in self._tests(other, imported)]
        lines = Lines.of(file.text)
        owners = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        found = [(lines.span(node), [test for test in tests if node.name in test.names]) for node in owners]
        return [(span, used) for span, used in found if used]

    @cached_property
    def _modules(self) -> dict[int, ast.Module]:
        """The files of tests, by their numbers."""
        found = {n: _parsed(f.text) for n, f in enumerate(self.files) if f.language == "Python" and _has_tests(f.path)}
        return {number: tree for number, tree in found.items() if tree is not None}

    @cached_property
    def _find(self) -> Callable[[int, str], Sequence[int]]:
        paths, languages = [file.path for file in self.files], [file.language for file in self.files]
        return Python(Files(paths, languages, [()] * len(paths)))

    @cached_property
    def _uses(self) -> dict[int, list[tuple[int, "_Imported"]]]:
        """For each file, the files of tests that import it."""
        found: dict[int, list[tuple[int, _Imported]]] = {}
        for other, module in self._modules.items():
            for number, imported in self._imported(other, module).items():
                found.setdefault(number, []).append((other, imported))
        return found

    def _tests(self, other: int, imported: "_Imported") -> Iterator[UnitTest]:
        """The tests of one file that use what it imports."""
        module = self._modules[other]
        helpers = _helpers(module)
        for test in _pieces(module):
            piece = _Piece(imported)
            try:
                body = piece.with_helpers(test, helpers)
                source = ast.unparse(ast.Module(body, []))
            except RecursionError:  # a sum of a thousand parts
                continue
            if piece.used and not piece.is_ambiguous(body):
                yield UnitTest(self.files[other].path, test.function.name, tuple(sorted(piece.used)), source)

    def _imported(self, other: int, module: ast.Module) -> dict[int, "_Imported"]:
        """What a file of tests calls each file that it imports, and what is in it."""
        found = defaultdict[int, _Imported](lambda: _Imported({}, set()))
        for node in module.body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname or "." not in alias.name:
                        for number in self._find(other, alias.name):
                            found[number].modules.add(alias.asname or alias.name)
            elif isinstance(node, ast.ImportFrom):
                start = "." * node.level + (node.module or "")
                whole = set(self._find(other, start)) if node.module else set()
                for alias in node.names:
                    for number in whole:
                        found[number].names[alias.asname or alias.name] = alias.name
                    for number in {*self._find(other, start + "." * bool(node.module) + alias.name)} - whole:
                        found[number].modules.add(alias.asname or alias.name)
        return found


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _has_tests(path: str) -> bool:
    stem = PurePosixPath(path).stem
    return stem.startswith("test_") or stem.endswith("_test") or stem in ("test", "tests")


# ---- a file of tests ----


@dataclass(frozen=True)
class _Test:
    """A function, and the values that it is called with: names of parameters, and an expression for each decorator."""

    function: ast.FunctionDef
    cases: tuple[tuple[list[str], ast.expr], ...] = ()

    def statements(self) -> list[ast.stmt]:
        """Defined and called; of several decorators all combinations."""
        name = self.function.name
        given, call = [], ""
        for number, (names, _) in enumerate(self.cases):
            case = f"__case{number}"
            given.append(f"{names[0]}={case}" if len(names) == 1 else f"**dict(zip({names!r}, {case}, strict=True))")
        call = f"{name}({', '.join(given)})"
        (statement,) = ast.parse(call).body
        for number, (_, values) in enumerate(self.cases):
            statement = ast.For(ast.Name(f"__case{number}", ast.Store()), values, [statement], [])
        return [self.function, statement]


def _pieces(module: ast.Module) -> Iterator[_Test]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield from _test(node, ())
        elif isinstance(node, ast.ClassDef) and (node.name.startswith("Test") or "TestCase" in map(_last, node.bases)):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                    yield from _test(method, ("self",))


def _test(node: ast.FunctionDef, own: tuple[str, ...]) -> Iterator[_Test]:
    """None of a function that takes what nobody here gives."""
    given = [argument.arg for argument in node.args.args]
    cases = [_cases(decorator) for decorator in node.decorator_list]
    names = [name for case in cases if case for name in case[0]]
    if None not in cases and sorted(given) == sorted([*own, *names]) and not node.args.kwonlyargs:
        arguments = copy.copy(node.args)
        arguments.args = [argument for argument in node.args.args if argument.arg not in own]
        function = copy.copy(node)
        function.decorator_list, function.args = [], arguments
        yield _Test(function, tuple(case for case in cases if case))


def _cases(decorator: ast.expr) -> tuple[list[str], ast.expr] | None:
    """Of pytest.mark.parametrize; none of any other decorator."""
    if not isinstance(decorator, ast.Call) or _last(decorator.func) != "parametrize" or len(decorator.args) != 2:
        return None
    try:
        names = ast.literal_eval(decorator.args[0])
    except (ValueError, TypeError, RecursionError):
        return None
    match names:
        case str():
            return [name.strip() for name in names.split(",")], decorator.args[1]
        case [str(), *_]:
            return list(names), decorator.args[1]
    return None


def _last(node: ast.expr) -> str:
    """The last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _helpers(module: ast.Module) -> dict[str, ast.stmt]:
    """What a file of tests defines and imports from the standard library, by name."""
    found: dict[str, ast.stmt] = {}
    for node in module.body:
        if not isinstance(node, ast.Import | ast.ImportFrom) or is_standard(node):
            found |= dict.fromkeys(_bound([node], inside=False), node)
    return found


def _bound(nodes: Sequence[ast.stmt], inside: bool = True) -> set[str]:
    """Names that are given a value; also those in functions and classes, or not."""
    found, todo = set(), list[ast.AST](nodes)
    while todo:
        node = todo.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
                if not inside:
                    continue
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                found.add(name)
        todo += ast.iter_child_nodes(node)
    return found


# ---- a test alone ----


@dataclass(frozen=True)
class _Imported:
    names: dict[str, str]
    """As a file of tests calls them, and as the file under test does."""
    modules: set[str]
    """The file under test itself."""


class _Piece(ast.NodeTransformer):
    """A test without its framework, and with the names of the file under test."""

    def __init__(self, imported: _Imported) -> None:
        self._imported = imported
        self.used: set[str] = set()

    def with_helpers(self, test: _Test, helpers: Mapping[str, ast.stmt]) -> list[ast.stmt]:
        """What it needs comes first, in the order of its file."""
        body, needed = [self.visit(copy.deepcopy(node)) for node in test.statements()], dict[int, ast.stmt]()
        todo = list(body)
        while todo:
            names = {node.id for node in ast.walk(todo.pop()) if isinstance(node, ast.Name)}
            for name in sorted((names & helpers.keys()) - {test.function.name}):
                if helpers[name].lineno not in needed:
                    needed[helpers[name].lineno] = self.visit(copy.deepcopy(helpers[name]))
                    todo.append(needed[helpers[name].lineno])
        return [ast.fix_missing_locations(node) for node in [*(needed[line] for line in sorted(needed)), *body]]

    def is_ambiguous(self, body: Sequence[ast.stmt]) -> bool:
        """Whether a name of the file under test is also something else in it."""
        return bool(_bound(body) & {*self.used, *self._imported.names, *self._imported.modules})

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id in self._imported.names:
            self.used.add(self._imported.names[node.id])
            return ast.Name(self._imported.names[node.id], node.ctx)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        match node.value:
            case ast.Name(id=name) if name in self._imported.modules:
                self.used.add(node.attr)
                return ast.Name(node.attr, node.ctx)
        self.generic_visit(node)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        self.generic_visit(node)
        match node.value:
            case ast.Call(func=ast.Attribute(ast.Name("self"), name), args=given, keywords=[]):
                condition = _condition(name.removeprefix("assert"), given)
                return ast.Assert(condition) if condition else node
        return node

    def visit_With(self, node: ast.With) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        match node.items:
            case [
                ast.withitem(
                    ast.Call(func=ast.Attribute(attr="raises" | "assertRaises"), args=[kind], keywords=[]), None
                )
            ]:
                raised = ast.parse("__raised = False\ntry: pass\nexcept __kind: __raised = True\nassert __raised").body
                assert isinstance(raised[1], ast.Try)
                raised[1].body, raised[1].handlers[0].type = node.body, kind
                return raised
        return node


def _condition(name: str, given: list[ast.expr]) -> ast.expr | None:
    """What a method of unittest asserts; none where it is not known here."""
    match name, given:
        case _, [left, right, *_] if name in _COMPARED:
            return ast.Compare(left, [_COMPARED[name]()], [right])
        case "True", [value, *_]:
            return value
        case "False", [value, *_]:
            return ast.UnaryOp(ast.Not(), value)
        case "IsNone", [value, *_]:
            return ast.Compare(value, [ast.Is()], [ast.Constant(None)])
        case "IsNotNone", [value, *_]:
            return ast.Compare(value, [ast.IsNot()], [ast.Constant(None)])
    return None
