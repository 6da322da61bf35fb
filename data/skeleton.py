"""Code with its names taken out: what stays the same when it is reformatted, commented and its names are changed.

Comments, strings (docstrings with them), brackets of calls, commas, colons and semicolons are left out. Of the rest,
keywords, operators, numbers, attributes (`.append`) and calls of built-in functions (`len(`) stand for themselves; any
other name stands for where it was first used. So `total = total + x` and `s = s + item` are the same skeleton, and
`a = b + c` is another. The lexing is rough and about the same for every language; it has only to be consistent.
"""

import builtins
import keyword
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from data import shingles

_HASH_COMMENTS = {
    *("Awk", "CMake", "CoffeeScript", "Crystal", "Cython", "Dockerfile", "Elixir", "GDScript", "Julia", "Makefile"),
    *("Meson", "Mojo", "Nim", "Nix", "Perl", "PowerShell", "Python", "R", "Raku", "Ruby", "Shell", "Starlark", "TOML"),
    *("Tcl", "YAML", "fish"),
}
# Possessive, and a string that is not closed ends with its line: no text, however odd, takes more than linear time.
_STRING = (
    rb'"""[^"\\]*+(?:(?:\\[\s\S]|"(?!""))[^"\\]*+)*+"""'
    rb"|'''[^'\\]*+(?:(?:\\[\s\S]|'(?!''))[^'\\]*+)*+'''"
    rb'|"[^"\\\n]*+(?:\\[\s\S][^"\\\n]*+)*+"?'
    rb"|'[^'\\\n]*+(?:\\[\s\S][^'\\\n]*+)*+'?"
)
_LINE_COMMENT = {mark: re.compile(_STRING + b"|" + mark.encode() + rb"[^\n]*") for mark in ("#", "//")}
_BLOCK_COMMENT = re.compile(_LINE_COMMENT["//"].pattern + rb"|/\*[^*]*+(?:\*(?!/)[^*]*+)*+\*/")
COMMENTS = tuple(_LINE_COMMENT)
_IS_OPERATOR = bytes(byte in b"!$%&*+-./<=>?@[]^{|}~" for byte in range(256))  # for bytes.translate
_HASHES = shingles.mixed(np.arange(256, dtype=np.uint64))  # of operators
_KEYWORDS = {
    "#": " ".join(keyword.kwlist),
    "//": """
        as async await break case catch class const continue default do else enum extends false final finally fn for
        foreach from func function goto if impl implements import in instanceof int interface let long match mut new
        nil null of package private protected pub public return static struct super switch this throw throws true try
        type typeof use using var void while
    """,
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    shape: UInt64[np.ndarray, " T"]
    """A hash for each token that stands for itself, zero for each name."""
    names: UInt64[np.ndarray, " T"]
    """A hash for each name, zero for each token that stands for itself."""


def of(text: str, comment: str) -> Skeleton:
    """Of a text in which comments begin with `#` or `//`."""
    # With the spaces, every token has a byte before it and two after it.
    content = b" " + _without_prose(shingles.to_bytes(text), comment) + b"  "
    byte = np.frombuffer(content, np.uint8)
    in_word = np.frombuffer(content.translate(shingles.IN_WORD), np.bool_)
    first = np.frombuffer(content.translate(_IS_OPERATOR), np.bool_).copy()
    first[1:] |= in_word[1:] & ~in_word[:-1]
    tokens = np.flatnonzero(first)
    is_word = in_word[tokens]
    starts, ends = shingles.word_spans(content)
    hashes = shingles.span_hashes(content, starts, ends)
    kind = _KINDS[comment][(hashes >> _TO_KIND).view(np.int64)]
    called = (byte[ends] == ord("(")) | (byte[ends] == ord(" ")) & (byte[ends + 1] == ord("("))
    stands = (kind == _KEYWORD) | (kind == _BUILT_IN) & called
    stands |= (byte[starts] <= ord("9")) | (byte[starts - 1] == ord("."))
    shape = _HASHES[byte[tokens]]
    shape[is_word] = np.where(stands, hashes, np.uint64(0))
    names = np.zeros(len(tokens), np.uint64)
    names[is_word] = np.where(stands, np.uint64(0), hashes)
    kept = np.ones(len(tokens), np.bool_)
    kept[is_word] = (byte[ends] != ord('"')) | (ends - starts > 2)  # the r of r"…" goes with the string
    return Skeleton(shape[kept], names[kept])


def _without_prose(content: bytes, comment: str) -> bytes:
    """A quote in place of each string and comment."""
    blocks = comment == "//" and b"*/" in content
    closed = content.rindex(b"*/") + 2 if blocks else 0  # after it, no search for an end that is not there
    return _BLOCK_COMMENT.sub(b'"', content[:closed]) + _LINE_COMMENT[comment].sub(b'"', content[closed:])


def runs(skeleton: Skeleton, starts: Int64[np.ndarray, " R"], n: int) -> UInt64[np.ndarray, " R"]:
    """One hash for the n tokens from each start on: equal if one becomes the other by changing names one for one."""
    at = starts[:, None] + np.arange(n)
    names = skeleton.names[at]
    used = shingles.mixed(shingles.first_uses(names).astype(np.uint64) + np.uint64(256))
    codes = np.where(names == 0, skeleton.shape[at], used)
    return shingles.polynomials(codes)


def telling(skeleton: Skeleton, n: int) -> Int64[np.ndarray, " R"]:
    """Where the runs of n tokens begin in which enough different tokens stand for themselves: not in prose."""
    at = np.arange(len(skeleton.shape) - n + 1)[:, None] + np.arange(n)
    shape = skeleton.shape[at]
    new = (shingles.first_uses(shape) == np.arange(n)) & (shape != 0)
    return np.flatnonzero(new.sum(axis=1) >= _STANDING)


def comments(language: str) -> str:
    """How comments begin in a language: `#` or `//`."""
    return "#" if language in _HASH_COMMENTS else "//"


_STANDING = 4
_KEYWORD, _BUILT_IN = 1, 2
_TO_KIND = np.uint64(48)  # 65,536 kinds: that a name has a keyword's is rare, and the same wherever it is used


def _kinds(keywords: str) -> UInt8[np.ndarray, " K"]:
    kinds = np.zeros(2**16, np.uint8)
    built_in = " ".join(name for name in dir(builtins) if name.islower() and not name.startswith("_"))
    for kind, words in (_BUILT_IN, built_in), (_KEYWORD, keywords):
        kinds[(shingles.words(words) >> _TO_KIND).view(np.int64)] = kind
    return kinds


_KINDS = {comment: _kinds(keywords) for comment, keywords in _KEYWORDS.items()}
