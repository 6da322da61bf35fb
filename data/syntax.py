"""Whole syntax nodes as middles, found by tree-sitter: the larger the node, the likelier (AST-FIM, arXiv 2506.00204).

Grammars are whatever wheels are installed; a language without one is no error but a `NoSpan`. Parsing tolerates
mistakes, so a piece of a file still has nodes; those with a mistake inside are left out. What a parse may cost is
counted in steps, never in seconds: the same text gives the same nodes on every machine.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata

import numpy as np
from jaxtyping import Int64
from tree_sitter import Language, Parser, Tree

from data import shingles
from data.spans import NoSpan, Span, characters_before

# The module of each language's grammar and the function in it that gives the grammar.
_GRAMMARS: dict[str, tuple[str, str]] = {
    "C": ("tree_sitter_c", "language"),
    "C#": ("tree_sitter_c_sharp", "language"),
    "C++": ("tree_sitter_cpp", "language"),
    "CSS": ("tree_sitter_css", "language"),
    "Go": ("tree_sitter_go", "language"),
    "HTML": ("tree_sitter_html", "language"),
    "Java": ("tree_sitter_java", "language"),
    "JavaScript": ("tree_sitter_javascript", "language"),  # and JSX
    "JSON": ("tree_sitter_json", "language"),
    "JSON with Comments": ("tree_sitter_json", "language"),  # which has comments
    "Kotlin": ("tree_sitter_kotlin", "language"),
    "Lua": ("tree_sitter_lua", "language"),
    "PHP": ("tree_sitter_php", "language_php"),  # with HTML around it, as files have it
    "Python": ("tree_sitter_python", "language"),
    "Ruby": ("tree_sitter_ruby", "language"),
    "Rust": ("tree_sitter_rust", "language"),
    "Scala": ("tree_sitter_scala", "language"),
    "Shell": ("tree_sitter_bash", "language"),
    "SQL": ("tree_sitter_sql", "language"),
    "Starlark": ("tree_sitter_python", "language"),  # nearly a subset
    "Swift": ("tree_sitter_swift", "language"),
    "TSX": ("tree_sitter_typescript", "language_tsx"),
    "TypeScript": ("tree_sitter_typescript", "language_typescript"),
}
_PACK = "tree_sitter_language_pack"
# The pack's names that are not a language's own in small letters.
_NAMES_IN_PACK: dict[str, str] = {
    "C#": "csharp",
    "C++": "cpp",
    "Cap'n Proto": "capnp",
    "Emacs Lisp": "elisp",
    "F#": "fsharp",
    "Go Module": "gomod",
    "Java Properties": "properties",
    "Makefile": "make",
    "Objective-C": "objc",
    "Protocol Buffer": "proto",
    "QML": "qmljs",
    "reStructuredText": "rst",
    "Shell": "bash",
    "TeX": "latex",
    "Vim Script": "vim",
    "WebAssembly": "wat",
}

LONGEST = 262_144  # bytes
# HTML's scanner goes through all open tags at every token: 100 KB of tags that nothing closes take it 13 s.
_LONGEST: dict[str, int] = {"HTML": 65_536}
# A step is a hundred operations of the parser, or a chunk read: a lexer that looks for an end that is not there reads
# the rest of the text again at every token. Good code takes 0.005 to 0.025 steps a byte. Text that opens more and more
# that a grammar is in doubt about takes more, and what it costs at its end grows with its square, in one step that
# nothing can stop (30 KB of `a<b<c,` as TSX: 2.5 s and 1.3 GB; 60 KB: 10 s and 5 GB). So steps are allowed as the
# parser gets on, and few of them ahead: such text is given up before its 20th KB. So are three of the 608 files of
# Python's standard library that are below 200 KB.
_CHUNK = 1024
_STEPS_PER_BYTE = 0.03
_STEPS_AHEAD = 400


@dataclass(frozen=True, slots=True)
class Nodes:
    """Named nodes without a mistake in them, in the order in which they start; in characters, not bytes."""

    starts: Int64[np.ndarray, " N"]
    ends: Int64[np.ndarray, " N"]


def syntax(text: str, rng: np.random.Generator, language: str) -> Span | NoSpan:
    """A whole named node, as likely as it is large.

    >>> syntax("def f(x):\\n    return x\\n\\ny = f(1)\\n", np.random.default_rng(0), "Python")
    """
    found = nodes(text, language)
    if isinstance(found, NoSpan):
        return found
    upto = np.cumsum(found.ends - found.starts)
    chosen = int(np.searchsorted(upto, rng.integers(upto[-1]), side="right"))
    return int(found.starts[chosen]), int(found.ends[chosen])


def nodes(text: str, language: str) -> Nodes | NoSpan:
    """Every node that may be chosen: at least one, none with all of the text that is not blank."""
    if not text:
        return NoSpan("empty")
    if (reader := parser(language)) is None:
        return NoSpan("no_grammar")
    content = shingles.to_bytes(text)
    if len(content) > _LONGEST.get(language, LONGEST):
        return NoSpan("too_slow")
    tree = _parse(reader, content)
    if tree is None:
        return NoSpan("too_slow")
    wrong = sum(child.end_byte - child.start_byte for child in tree.root_node.children if child.is_error)
    if 2 * wrong > len(content):
        return NoSpan("does_not_parse")
    starts, ends = _good_nodes(tree)
    offsets = characters_before(content)  # of a byte inside a lone surrogate, which is read byte by byte: after it
    starts, ends = offsets[starts], offsets[ends]
    first = len(text) - len(text.lstrip())
    kept = (starts < ends) & ((starts > first) | (ends < len(text.rstrip())))
    return Nodes(starts[kept], ends[kept]) if kept.any() else NoSpan("does_not_parse")


def parser(language: str) -> Parser | None:
    """A new parser: one that is shared would be in the middle of another thread's text."""
    grammar = _grammar(language)
    return None if grammar is None else Parser(grammar)


@cache
def _grammar(language: str) -> Language | None:
    if language in _GRAMMARS:
        module, function = _GRAMMARS[language]
        try:
            return Language(getattr(import_module(module), function)())
        except ImportError:
            pass
    name = _NAMES_IN_PACK.get(language, language.replace(" ", "").lower())
    if not re.fullmatch(r"\w+", name):
        return None
    try:
        # From version 1 on it has no grammars of its own and downloads them when asked.
        if metadata.version(_PACK).split(".")[0] != "0":
            return None
        return import_module(_PACK).get_language(name)
    except (ImportError, LookupError):  # PackageNotFoundError is an ImportError
        return None


class _Steps:
    """What a parse may still take: more with every byte it gets to, and never much ahead."""

    def __init__(self, end: int) -> None:
        self.left = float(_STEPS_AHEAD)
        self._end = end
        self._furthest = 0

    def take(self, at: int) -> bool:
        """Whether a step at this byte is one too many, or an earlier one was."""
        if self.left >= 0:
            if at > self._furthest:
                self.left = min(self.left + _STEPS_PER_BYTE * (at - self._furthest), _STEPS_AHEAD)
                self._furthest = at
                if at >= self._end:  # what is left to do is to balance the tree, in steps that get nowhere
                    self.left += _STEPS_PER_BYTE * self._end
            self.left -= 1
        return self.left < 0


def _parse(reader: Parser, content: bytes) -> Tree | None:
    """None where it takes too many steps."""
    steps = _Steps(len(content.rstrip()))

    def read(at: int, _point: object) -> bytes:
        # Too many or not, it gets its text: at what it takes for the end, the parser would do its most expensive work.
        steps.take(0)
        return content[at : at + _CHUNK]

    try:
        tree = reader.parse(read, progress_callback=lambda at, _has_error: steps.take(at))
    except ValueError:  # what stopping it is
        return None
    return None if steps.left < 0 else tree


def _good_nodes(tree: Tree) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Where named nodes below the root without mistakes start and end, in bytes."""
    starts: list[int] = []
    ends: list[int] = []
    cursor = tree.walk()
    down, onward, up = cursor.goto_first_child, cursor.goto_next_sibling, cursor.goto_parent
    if not down():
        return np.array(starts, np.int64), np.array(ends, np.int64)
    while True:
        node = cursor.node
        if node is not None and node.is_named and not node.has_error:
            starts.append(node.start_byte)
            ends.append(node.end_byte)
        if down() or onward():
            continue
        while up():
            if onward():
                break
        else:
            return np.array(starts, np.int64), np.array(ends, np.int64)
