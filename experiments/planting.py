"""A benchmark's problem hidden in an ordinary file, in the ways that a corpus really has it.

Each way takes a problem and gives what to plant, or nothing where it does not apply (no docstring, not Python 3).
"""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Callable
from functools import cache

from data.benchmarks import Problem

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
_NEW_NAMES = ("alpha", "item2", "walker", "q", "total_seen", "left", "buf", "hold", "k9", "outcome")


def verbatim(problem: Problem) -> str | None:
    if problem.program.startswith(problem.prompt):
        return problem.program
    return f"# {problem.prompt}\n{problem.program}"


def solution_only(problem: Problem) -> str | None:
    """The answer without the question; where it is a function's body, as the body of another function."""
    if not problem.solution:
        return None
    if problem.solution == problem.program:
        return problem.program
    return f"def some_other_function(argument):\n{problem.solution}"


def docstring_only(problem: Problem) -> str | None:
    """The question without the answer, in a function of another name."""
    question = problem.prompt
    if question and problem.program.startswith(question):
        tree = _tree(problem.program)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
        question = next((text for node in reversed(functions) if (text := ast.get_docstring(node))), "")
    if not question.strip():
        return None
    lines = "\n    ".join(question.splitlines())
    return f"def some_other_function(argument):\n    '''{lines}\n    '''\n    raise NotImplementedError\n"


def reformatted(problem: Problem) -> str | None:
    """Without docstrings and comments; tabs, other quotes, spaces around everything, a line for each argument."""
    plain = _undocumented(problem.program)
    return None if plain is None else _respaced(plain)


def renamed(problem: Problem) -> str | None:
    """Without docstrings and comments; functions, arguments and variables have other names."""
    plain = _undocumented(problem.program)
    return None if plain is None else ast.unparse(_Renamer(plain).visit(ast.parse(plain)))


def tests_only(problem: Problem) -> str | None:
    return problem.tests or None


WAYS: dict[str, Callable[[Problem], str | None]] = {
    "verbatim": verbatim,
    "reformatted": reformatted,
    "renamed": renamed,
    "docstring only": docstring_only,
    "solution only": solution_only,
    "tests only": tests_only,
}


def planted(host: str, text: str) -> str:
    """The text between two functions or classes in the middle of a file."""
    starts = [found.start() for found in re.finditer(r"^(def|class) ", host, re.MULTILINE)] or [len(host)]
    middle = min(starts, key=lambda start: abs(start - len(host) // 2))
    return f"{host[:middle]}{text}\n\n\n{host[middle:]}"


@cache
def _tree(program: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that Python would rather not see
        try:
            return ast.parse(program)
        except (SyntaxError, ValueError):
            return None


def _undocumented(program: str) -> str | None:
    if _tree(program) is None:
        return None
    tree = ast.parse(ast.unparse(_tree(program) or ast.Module([], [])))  # a copy
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


class _Renamer(ast.NodeTransformer):
    """Gives what the program binds (imports aside) other names, one for one."""

    def __init__(self, program: str) -> None:
        bound: dict[str, None] = {}
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.arg):
                bound[node.arg] = None
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound[node.id] = None
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound[node.name] = None
        names = [f"{_NEW_NAMES[i % len(_NEW_NAMES)]}{i // len(_NEW_NAMES) or ''}" for i in range(len(bound))]
        self._new = dict(zip(bound, names, strict=True))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._new[node.arg]
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._new.get(node.id, node.id)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._new.get(name, name) for name in node.names]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._new[node.name]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._new[node.name]
        return self.generic_visit(node)


def _respaced(program: str) -> str:
    """Every token apart; a line break after each comma in brackets, tabs to indent, double quotes."""
    lines: list[str] = []
    line, depth, indent, in_format = "", 0, 0, 0
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            indent += 1 if token.type == tokenize.INDENT else -1
            continue
        if token.type == tokenize.FSTRING_START:
            in_format += 1
        if token.type in (tokenize.NEWLINE, tokenize.NL):
            if line:
                lines.append(line)
            line = ""
            continue
        if not line:
            line = "\t" * indent
            space = ""
        else:
            space = "" if in_format and token.type != tokenize.FSTRING_START else " "
        line += space + _requoted(token.string if token.type != tokenize.FSTRING_MIDDLE else _braces(token.string))
        if token.type == tokenize.FSTRING_END:
            in_format -= 1
        if token.string in ("(", "[", "{") and not in_format:
            depth += 1
        elif token.string in (")", "]", "}") and not in_format:
            depth -= 1
        elif token.string == "," and depth and not in_format:
            line += "\n" + "\t" * (indent + 2)
    return "\n".join([*lines, line]) + "\n"


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _requoted(text: str) -> str:
    inside = text[1:-1]
    single = len(text) > 1 and text[0] == text[-1] == "'" and not inside.startswith("'")
    return f'"{inside}"' if single and '"' not in inside else text
