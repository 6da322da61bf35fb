"""Where a file of a repository gets holes for models to fill: at places where a product would ask for a completion.

Every hole begins after a trigger (data/triggers.py), in code and not in a comment or a string, and is of a kind:

- line: the rest of the line.
- block: what is inside a block that is no function's: of an `if`, a loop, a class.
- function: a function's body; in Python what follows its docstring.
- api: the arguments of a call, or the chain of attributes and calls, of a name that the file imports.

All but lines need a grammar (data/syntax.py). What is hidden has at least three letters or digits outside comments and
strings, a bounded length, no white space at its end, and is what `cut` leaves of it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64
from tree_sitter import Node

from data import shingles, syntax
from data.spans import NoSpan, Span, characters_before
from data.triggers import candidates

Kind = Literal["line", "block", "function", "api"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST: dict[Kind, int] = {"line": 160, "block": 800, "function": 1600, "api": 160}  # characters
_LEAST_WORDS = 3  # letters and digits: a lone bracket is no achievement

_DATA = frozenset({"CSS", "HTML", "JSON", "JSON with Comments"})
# Grammars name things alike.
_PROSE = re.compile(r"comment|string|char_literal|character_literal|heredoc")
_FUNCTION = re.compile(r"function|method|constructor|closure|lambda")
_BLOCK = re.compile(r"(?:^|_)(?:block|body|body_statement|compound_statement|do_group|statements|then)$")
_IMPORT = re.compile(r"^(?:import|use_declaration|using_directive|namespace_use)")
_CHAIN = re.compile(r"call|invocation|attribute|member|selector|navigation|field_expression|scoped_|index_expression")
_LINK = re.compile(r"\s*(?:\?\.|::|->|\.|\()")
_REQUIRED = re.compile(r"\b(\w+)[ \t]*=[ \t]*require\b")
_QUALIFIERS = frozenset({"module_name", "scope", "source", "prefix", "qualifier"})  # fields: where a name comes from
_OPENING, _CLOSING = "([{", ")]}"


# ---- where holes are ----


def is_code(language: str) -> bool:
    """Whether it has a grammar, and more to complete than data."""
    return language not in _DATA and syntax.parser(language) is not None


@dataclass(frozen=True)
class _Text:
    """A text and where in it comments and strings are, in characters."""

    text: str
    starts: frozenset[int]
    """Where a hole may begin."""
    prose: Bool[np.ndarray, " C"]
    comments: Bool[np.ndarray, " C"]
    words: Int64[np.ndarray, " C_and_1"]
    """How many letters and digits of code are before each character."""


def find(text: str, language: str) -> dict[Kind, list[Span]]:
    """Every hole that may be chosen, by kind, in order; none of a text that does not parse."""
    lines = candidates(text, language)
    found: dict[Kind, list[Span]] = {kind: [] for kind in KINDS}
    root: Node | None = None
    content = shingles.to_bytes(text)
    if (reader := syntax.parser(language)) is not None:
        if isinstance(syntax.nodes(text, language), NoSpan):  # or what parsing it takes has no bound
            return found
        root = reader.parse(content).root_node
    offsets = characters_before(content)
    nodes = list(_walk(root)) if root else []
    about = _about(text, frozenset(start for start, _ in lines), nodes, offsets)
    found["line"] = _kept("line", lines, about)
    for kind, spans in (("block", _blocks), ("function", _functions), ("api", _uses)):
        found[kind] = _kept(kind, [(int(offsets[start]), int(offsets[end])) for start, end in spans(nodes)], about)
    return found


def _about(text: str, starts: frozenset[int], nodes: list[Node], offsets: Int64[np.ndarray, " B_and_1"]) -> _Text:
    prose, comments = np.zeros(len(text), np.bool_), np.zeros(len(text), np.bool_)
    for node in nodes:
        if node.is_named and _PROSE.search(node.type):
            inside = slice(int(offsets[node.start_byte]), int(offsets[node.end_byte]))
            prose[inside] = True
            comments[inside] |= "comment" in node.type
    letters = np.fromiter(map(str.isalnum, text), np.bool_, len(text))
    return _Text(text, starts, prose, comments, np.append(0, np.cumsum(letters & ~prose)))


def _kept(kind: Kind, spans: list[Span], about: _Text) -> list[Span]:
    found: dict[Span, None] = {}
    for start, stop in spans:
        middle = about.text[start:stop].rstrip()
        end = start + len(middle)
        if (
            start in about.starts
            and not about.prose[start]
            and about.words[end] - about.words[start] >= _LEAST_WORDS
            and len(middle) <= _MOST[kind]
            and not (kind in ("line", "api") and about.comments[start:end].any())
            and cut(kind, about.text[:start], middle) == middle
        ):
            found[start, end] = None
    return list(found)


def _walk(root: Node) -> Iterator[Node]:
    """Every node, each before those inside it."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        todo += reversed(node.children)


# Offsets are in bytes from here on.


def _functions(nodes: list[Node]) -> Iterator[Span]:
    for node in nodes:
        if (body := _body(node)) is not None:
            yield from _inside(body)


def _blocks(nodes: list[Node]) -> Iterator[Span]:
    bodies = {body.id for node in nodes if (body := _body(node)) is not None}
    for node in nodes:
        if node.is_named and _BLOCK.search(node.type) and (block := _innermost(node)).id not in bodies:
            yield from _inside(block)


def _body(node: Node) -> Node | None:
    """A function's, where it is a block."""
    if not node.is_named or not _FUNCTION.search(node.type) or _BLOCK.search(node.type):
        return None
    body = node.child_by_field_name("body")
    if body is None:
        body = next((child for child in node.named_children if _BLOCK.search(child.type)), None)
    return _innermost(body) if body is not None and _BLOCK.search(body.type) else None


def _innermost(block: Node) -> Node:
    """In some grammars a block is all that is in a node called a body."""
    while len(block.named_children) == 1 and _BLOCK.search(block.named_children[0].type):
        block = block.named_children[0]
    return block


def _inside(block: Node) -> Iterator[Span]:
    """What is between a block's brackets, without a docstring."""
    children = block.children
    if children and not children[0].is_named:
        children = children[1:]
    if children and not children[-1].is_named:
        children = children[:-1]
    if children and children[0].type == "expression_statement" and children[0].children[0].type == "string":
        children = children[1:]
    if children:
        yield children[0].start_byte, children[-1].end_byte


def _uses(nodes: list[Node]) -> Iterator[Span]:
    """Of names that are imported: what is called or taken of them, and what they are called with."""
    statements = [node for node in nodes if node.is_named and _IMPORT.search(node.type)]
    names = {name for statement in statements for name in _bound(statement)}
    names |= set(_REQUIRED.findall((nodes[0].text or b"").decode(errors="replace"))) if nodes else set()
    for node in nodes:
        is_leaf = node.is_named and not node.child_count
        if is_leaf and _text(node) in names and not any(_is_in(node, statement) for statement in statements):
            yield from _use(node)


def _is_in(node: Node, outer: Node) -> bool:
    return outer.start_byte <= node.start_byte < outer.end_byte


def _bound(node: Node) -> Iterator[str]:
    """The names by which a file knows what it imports; with the parts of a path that say where it comes from, where a
    grammar does not tell them apart."""
    if (alias := node.child_by_field_name("alias")) is not None:
        yield _text(alias)
    elif not node.child_count or _PROSE.search(node.type):
        yield from re.findall(r"\w+", _text(node))[-1:] if node.is_named else ()
    elif node.type in ("dotted_name", "qualified_identifier"):
        parts = node.named_children  # `import os.path` binds os; `import a.b.C` of Kotlin binds C
        yield _text(parts[0] if node.type == "dotted_name" else parts[-1])
    else:
        for number, child in enumerate(node.children):
            if node.field_name_for_child(number) not in _QUALIFIERS:
                yield from _bound(child)


def _use(name: Node) -> Iterator[Span]:
    outer = name
    while (parent := outer.parent) is not None and parent.start_byte == name.start_byte and _CHAIN.search(parent.type):
        outer = parent
        link = _LINK.match(_text(outer)[len(_text(name)) :])
        if link and link[0].endswith("("):  # a call of the name itself: what is between its brackets
            lead = len(link[0].encode())
            yield name.end_byte + lead, outer.end_byte - 1
            return
    link = _LINK.match(_text(outer)[len(_text(name)) :])
    if link:
        yield name.end_byte + len(link[0].encode()), outer.end_byte


def _text(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


# ---- where a completion ends ----


def cut(kind: Kind, prefix: str, written: str) -> str:
    """What counts of what was written after a prefix; see CUTS."""
    return _CUT[kind](prefix, written).rstrip()


def _line(prefix: str, written: str) -> str:
    return written.split("\n", 1)[0]


def _expression(prefix: str, written: str) -> str:
    depth = 0
    for at, letter in enumerate(written):
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if depth < 0 or (letter == "\n" and not depth):
            return written[:at]
    return written


def _indented(prefix: str, written: str) -> str:
    begun = prefix.rpartition("\n")[2]
    least = len(begun) - len(begun.lstrip())
    lines = written.split("\n")
    outside = (n for n, line in enumerate(lines) if n and line.strip() and len(line) - len(line.lstrip()) < least)
    return "\n".join(lines[: next(outside, len(lines))])


_CUT: dict[Kind, Callable[[str, str], str]] = {
    "line": _line,
    "block": _indented,
    "function": _indented,
    "api": _expression,
}
CUTS = (
    "a line ends with the line, a block or function before the first line that is indented less, the use of an API "
    "before a bracket that it does not open or with a line outside of brackets; white space at the end is left out"
)
