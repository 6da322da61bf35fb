"""Examples in docstrings as checks of a file with something else in one place of it.

Examples run in the sandbox and what they print is compared here, as doctest does it. What they should print is in the
docstrings as well; it is taken out of the file before that is run.
"""

import ast
import doctest
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from codelm.sandbox import Limits, Pool
from data.spans import Span
from experiments.evals.file_checks import Lines, is_alone

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
    if not is_alone(tree):
        return []
    lines, found = Lines.of(text), []
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
