"""Examples in docstrings in the sandbox, against what Python's own doctest says of the same text."""

import doctest
import types

import pytest

from codelm.sandbox import Pool
from experiments.evals import doctests, file_checks
from experiments.evals.doctests import Owner, owners, run

BODY = "return first + second"
FILE = f'''"""Sums."""
import math


def add(first, second):
    """The sum.

    >>> add(1, 2)
    3
    >>> add([1],
    ...     [2])
    [1, 2]
    >>> add(math.pi, 0)  # doctest: +ELLIPSIS
    3.14...
    >>> add("a", "b  c")  # doctest: +NORMALIZE_WHITESPACE
    'ab c'
    >>> add("", "x\\\\n\\\\ny") == "" or print("x\\\\n\\\\ny")
    x
    <BLANKLINE>
    y
    >>> add(1, None)
    Traceback (most recent call last):
      File "somewhere", line 1
    TypeError: unsupported operand type(s) for +: 'int' and 'NoneType'
    >>> int("x")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ValueError: whatever
    >>> never(1)  # doctest: +SKIP
    """
    if first is second is None:
        return "never"
    {BODY}
'''


def owner(text: str) -> Owner:
    (found,) = owners(text)
    return found


def by_examples(pool: Pool, text: str) -> file_checks.Run:
    examples = owner(text).examples
    return lambda before, written, after: run(pool, before, written, after, examples)


def ran(pool: Pool, body: str) -> str:
    before, after = FILE.split(BODY)
    return run(pool, before, body, after, owner(FILE).examples)


def by_doctest(text: str) -> bool:
    """Whether doctest's own runner finds nothing wrong."""
    module = types.ModuleType("candidate")
    exec(compile(text, "candidate.py", "exec"), module.__dict__)
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder().find(module.add, "add", module=False, globs=module.__dict__):
        runner.run(test, out=lambda text: None)
    return runner.failures == 0


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        "total = first\n    total = total + second\n    return total",
        "return first - second",
        "return first",
        "return [*first, *second] if isinstance(first, list) else first + second",
        "return 3 if first == 1 else first + second",
        'raise ValueError("no")',
        "print(first + second)",
        "return str(first + second)",
    ],
)
def test_a_body_passes_where_doctest_says_so(body: str, pool: Pool) -> None:
    assert (ran(pool, body) == "") == by_doctest(FILE.replace(BODY, body))


@pytest.mark.parametrize(
    ("body", "reason"), [("return first -", "syntax"), ("while True: pass", "timeout"), ("exit()", "examples")]
)
def test_what_does_not_run_says_why(body: str, reason: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctests, "_LIMITS", doctests.Limits(seconds=1))
    assert ran(pool, body) == reason


@pytest.mark.parametrize(
    "body",
    [
        "import re\n    return eval(re.findall(r'\\n *(.*)\\n', add.__doc__)[3])",
        "import doctest\n    return eval(doctest.DocTestParser().get_examples(add.__doc__)[0].want)",
        "import inspect\n    return inspect.getsource(add)",
        "return type('A', (), {'__eq__': lambda a, b: True, '__repr__': lambda a: '3'})()",
    ],
)
def test_what_should_come_out_cannot_be_read_in_the_file(body: str, pool: Pool) -> None:
    assert ran(pool, body) == "examples"


def test_what_should_come_out_is_nowhere_in_what_is_run() -> None:
    class Told:
        source = ""

        def transcript(self, source: str, examples: list[str], limits: object) -> tuple[list[str], str]:
            self.source = source
            return [], "told"

    told = Told()
    assert ran(told, BODY) == "told"  # type: ignore[arg-type]
    assert told.source.count(">>>") == FILE.count(">>>") == len(owner(FILE).examples) + 1, "and one that is skipped"
    for example in owner(FILE).examples:
        for line in example.want.splitlines():
            assert f"\n    {line}\n" not in told.source


def test_files_that_need_others_are_not_run() -> None:
    alone = 'def f():\n    """\n    >>> f()\n    1\n    """\n    return 1\n'
    assert len(owners(alone)) == 1
    for imported in ("import numpy as np", "from . import x", "from .x import y", "from a.b import c"):
        assert not owners(f"{imported}\n{alone}")
        assert not owners(alone.replace("    return", f"    {imported}\n    return"))


WITHIN = 'x = f"""\n>>> x\n{1}\n"""\n'
"""What looks like an example and is an expression of a string: to take that out would change the file."""


@pytest.mark.parametrize(
    "text",
    [
        "def f(:",
        'def f():\n    """\n    >>> f()\n    1"""\n    return 1\n',  # which says so where it cannot be taken out
        f'{WITHIN}def f():\n    """\n    >>> f()\n    1\n    """\n    return 1\n',
        "x = 1\n",
    ],
)
def test_where_nothing_can_be_checked_there_are_no_owners(text: str) -> None:
    assert owners(text) == []


def test_owners_are_where_their_definition_is() -> None:
    text = (
        '# é\n@property\ndef f(x):\n    """\n    >>> 1\n    1\n    """\n\n\n'
        'class A:\n    """\n    >>> 2\n    2\n    """\n\n'
        '    def g(self):\n        """\n        >>> 3\n        3\n        """\n'
    )
    assert [text[slice(*found.span)].split("\n")[0] for found in owners(text)] == [
        "@property",
        "class A:",
        "def g(self):",
    ]


def test_examples_that_hold_only_at_times_are_no_check(pool: Pool) -> None:
    class Chance:
        said = 0

        def transcript(self, source: str, examples: list[str], limits: object) -> tuple[list[str], str]:
            self.said += 1
            return [f"{self.said}\n"], ""

    once = 'def f():\n    """\n    >>> f()\n    1\n    """\n    return 1\n'
    assert not file_checks.passes(by_examples(Chance(), once), once)  # type: ignore[arg-type]
    assert file_checks.passes(by_examples(pool, once), once)
    assert file_checks.passes(by_examples(pool, FILE), FILE)


@pytest.mark.parametrize(
    ("hole", "covered"),
    [
        (BODY, True),
        ("first + second", True),
        (" second", True),
        ('return "never"', False),
        ("first is second is None:", True),
    ],
)
def test_a_hole_is_covered_where_its_statement_is_reached(hole: str, covered: bool, pool: Pool) -> None:
    start = FILE.rindex(hole)
    assert file_checks.covers(by_examples(pool, FILE), FILE, (start, start + len(hole))) is covered


def test_a_hole_that_changes_nothing_is_not_covered(pool: Pool) -> None:
    text = FILE.replace(f"    {BODY}", f"    done = True\n    {BODY}")
    start = text.index("done = True")
    assert not file_checks.covers(by_examples(pool, text), text, (start, start + len("done = True")))
