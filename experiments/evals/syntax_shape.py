"""A program's syntax without its text: whether it has mistakes, and whether one program is around a part of another."""

from itertools import takewhile
from operator import eq

from data import syntax
from experiments.evals.suite import NotRun

Shape = list[tuple[str, bool]]
"""Every node's type where it begins (True) and where it ends, in order."""


def shape(program: str, language: str) -> Shape | None:
    """None where there is a mistake; a lone semicolon is none."""
    reader = syntax.parser(language)
    if reader is None:
        raise NotRun(f"no grammar of {language}, which tells where a completion ends")
    found: Shape = []
    todo = [(reader.parse(program.encode(errors="replace")).root_node, True)]
    while todo:
        node, begins = todo.pop()
        if node.type == "ERROR" and node.text != b";":
            return None
        found.append((node.type, begins))
        if begins:
            todo += [(node, False), *((child, True) for child in reversed(node.children))]
    return found


def shared(one: Shape, other: Shape) -> int:
    """How much of one is the other's beginning or, apart from that, its end."""
    return _same(one, other) + _same(one[::-1], other[::-1])


def _same(one: Shape, other: Shape) -> int:
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))
