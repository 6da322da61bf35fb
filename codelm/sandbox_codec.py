"""Plain values as text, between processes of which one is hostile. Neither pickle nor eval: what is read is data.

A value is words with spaces between: a letter says the type, the rest is a number or hexadecimal bytes, and a
container is followed by what it holds: [1, "a"] is `l2 i1 s61`. Types are exact: an object that only says that it
is a list is refused. Nothing is imported that costs time, since every candidate's process starts with it.
"""

import collections
import itertools
import os
from collections.abc import Callable, Iterator

TYPE_CHECKING = False  # typing itself takes as long to import as all else that a candidate's process starts with
if TYPE_CHECKING:
    from typing import Any

MOST_DEPTH = 64
MOST_WORDS = 2_000_000
MOST_BYTES = 32 << 20
MOST_ITEMS = 100_000  # that are taken of an iterator

# Bound now: what runs later in the same process may replace them.
_read_some, _write_some = os.read, os.write

_SEQUENCES: dict[type, str] = {list: "l", tuple: "t", set: "e", frozenset: "z", collections.deque: "q"}
_MAPPINGS: dict[type, str] = {
    dict: "d",
    collections.OrderedDict: "o",
    collections.Counter: "k",
    collections.defaultdict: "v",  # without its factory, which is code
}
_ITERATORS: frozenset[type] = frozenset(
    [map, filter, zip, enumerate, reversed]
    + [type(iter(empty)) for empty in ([], (), "", {}, set(), range(0), {}.values(), {}.items(), reversed([]))]
    + [type(_ for _ in ())]
)
_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (object, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
}
_VIEWS: dict[type, str] = {type({}.keys()): "K", type({}.values()): "V", type({}.items()): "I"}
_OF_LETTER: dict[str, Callable[[list], object]] = {
    "l": list,
    "t": tuple,
    "e": set,
    "z": frozenset,
    "q": collections.deque,
    "g": iter,
    "d": dict,
    "o": collections.OrderedDict,
    "k": lambda pairs: collections.Counter(dict(pairs)),
    "v": lambda pairs: collections.defaultdict(None, pairs),
    "K": lambda items: dict.fromkeys(items).keys(),
    "V": lambda items: dict(enumerate(items)).values(),
    "I": lambda items: dict(items).items(),
}


class NotPlain(Exception):
    """The value is no plain data, or too much of it."""


class Malformed(Exception):
    """The text is no value of ours."""


def encode(value: object, reference: Callable[[object], str | None] | None = None) -> str:
    """`reference`: names an object that stays where it is, so that only its name is sent."""
    words: list[str] = []
    _write(value, words, reference, 0)
    text = " ".join(words)
    if len(text) > MOST_BYTES:
        raise NotPlain("too large")
    return text


def _write(value: "Any", words: list[str], reference: Callable[[object], str | None] | None, depth: int) -> None:
    kind = type(value)
    if kind is int:
        words.append(f"i{value:x}")
    elif kind is str:
        words.append("s" + value.encode("utf-8", "surrogatepass").hex())
    elif kind is float:
        words.append("f" + value.hex())
    elif value is None or kind is bool:
        words.append("N" if value is None else "T" if value else "F")
    elif kind in _SEQUENCES or kind in _VIEWS:
        _write_all(list(value), _SEQUENCES.get(kind) or _VIEWS[kind], words, reference, depth)
    elif kind in _MAPPINGS:
        _write_all(list(dict.items(value)), _MAPPINGS[kind], words, reference, depth)
    elif kind in _ITERATORS:
        _write_all(_taken(value), "g", words, reference, depth)
    else:
        _write_seldom(value, words, reference, depth)


def _write_all(
    items: list, letter: str, words: list[str], reference: Callable[[object], str | None] | None, depth: int
) -> None:
    if depth >= MOST_DEPTH:
        raise NotPlain("nested too deeply")
    if len(words) + len(items) > MOST_WORDS:
        raise NotPlain("too large")
    words.append(f"{letter}{len(items)}")
    for item in items:
        kind = type(item)  # numbers here rather than by a call, since a list may hold a million
        if kind is int:
            words.append(f"i{item:x}")
        elif kind is float:
            words.append("f" + item.hex())
        else:
            _write(item, words, reference, depth + 1)


def _taken(iterator: Iterator[object]) -> list[object]:
    items = []
    for item in iterator:
        items.append(item)
        if len(items) > MOST_ITEMS:
            raise NotPlain("an iterator without an end")
    return items


def _write_seldom(value: "Any", words: list[str], reference: Callable[[object], str | None] | None, depth: int) -> None:
    kind = type(value)
    if kind is bytes or kind is bytearray:
        words.append(("b" if kind is bytes else "y") + value.hex())
    elif kind is complex:
        words += ["c", value.real.hex(), value.imag.hex()]
    elif kind is range:
        words += ["r", f"{value.start:x}", f"{value.stop:x}", f"{value.step:x}"]
    elif kind is type and value in _TYPES.values():
        words.append(f"u{value.__name__}")
    elif reference and (name := reference(value)) is not None:
        words.append("h" + name.encode().hex())
    elif kind.__module__ == "numpy" and not getattr(value, "shape", True):  # a number, as numpy computes them
        plain = value.item()
        if type(plain) is kind:
            raise NotPlain(kind.__name__)
        _write(plain, words, reference, depth + 1)
    elif kind.__module__ in ("datetime", "decimal", "fractions") and kind.__name__ in _NAMED:
        words.append(f"n{kind.__name__}:{str(value).encode().hex()}")
    else:
        raise NotPlain(kind.__name__)


def _reader(module: str, name: str, make: str = "") -> Callable[[str], object]:
    """Imported only where one occurs."""

    def read(text: str) -> object:
        kind = getattr(__import__(module), name)
        return getattr(kind, make)(text) if make else kind(text)

    return read


# Written by str().
_NAMED: dict[str, Callable[[str], object]] = {
    "date": _reader("datetime", "date", "fromisoformat"),
    "time": _reader("datetime", "time", "fromisoformat"),
    "datetime": _reader("datetime", "datetime", "fromisoformat"),
    "Decimal": _reader("decimal", "Decimal"),
    "Fraction": lambda text: __import__("fractions").Fraction(*map(int, text.split("/"))),
}


def decode(text: str, resolve: Callable[[str], object] | None = None) -> object:
    """`resolve`: finds what a reference names."""
    if text.count(" ") > 2 * MOST_WORDS:
        raise Malformed("too large")
    words = iter(text.split(" "))
    try:
        value = _read(next(words, ""), words, resolve, 0)
    except Malformed:
        raise
    except Exception as error:  # whatever hostile text may provoke
        raise Malformed(type(error).__name__) from error
    if next(words, None) is not None:
        raise Malformed("more than a value")
    return value


def decode_strings(text: str) -> tuple[str, ...]:
    """A tuple of nothing but strings; in time linear in its length whatever the text is, for a reader that no deadline
    protects. (A set of numbers with one hash takes hours.)"""
    head, *words = text.split(" ")
    if head != f"t{len(words)}" or any(word[:1] != "s" for word in words):
        raise Malformed("not strings alone")
    try:
        return tuple(bytes.fromhex(word[1:]).decode("utf-8", "surrogatepass") for word in words)
    except ValueError as error:
        raise Malformed(type(error).__name__) from error


def _read(word: str, words: Iterator[str], resolve: Callable[[str], object] | None, depth: int) -> object:
    letter, rest = word[:1], word[1:]
    if letter == "i":
        return int(rest, 16)
    if letter == "f":
        return float.fromhex(rest)
    if letter == "s":
        return bytes.fromhex(rest).decode("utf-8", "surrogatepass")
    if letter in ("N", "T", "F"):
        return {"N": None, "T": True, "F": False}[letter]
    if letter in _OF_LETTER:
        if depth >= MOST_DEPTH:
            raise Malformed("nested too deeply")
        size = int(rest)
        items = [_read(word, words, resolve, depth + 1) for word in itertools.islice(words, size)]
        if len(items) != size:
            raise Malformed("cut short")
        return _OF_LETTER[letter](items)
    return _read_seldom(letter, rest, words, resolve)


def _read_seldom(letter: str, rest: str, words: Iterator[str], resolve: Callable[[str], object] | None) -> object:
    if letter == "b":
        return bytes.fromhex(rest)
    if letter == "y":
        return bytearray.fromhex(rest)
    if letter == "c":
        return complex(float.fromhex(next(words)), float.fromhex(next(words)))
    if letter == "r":
        return range(*(int(next(words), 16) for _ in range(3)))
    if letter == "n":
        name, _, written = rest.partition(":")
        return _NAMED[name](bytes.fromhex(written).decode())
    if letter == "u":
        return _TYPES[rest]
    if letter == "h" and resolve:
        return resolve(bytes.fromhex(rest).decode())
    raise Malformed(f"unknown {letter!r}")


def frame(text: str) -> bytes:
    """A message with its length before it."""
    data = text.encode("ascii")
    return len(data).to_bytes(4, "big") + data


def send(channel: int, text: str) -> None:
    data = memoryview(frame(text))
    while data:
        data = data[_write_some(channel, data) :]


def receive(channel: int) -> str | None:
    """The next message; None at the end."""
    head = _exactly(channel, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > MOST_BYTES:
        raise Malformed("too large")
    data = _exactly(channel, size)
    return None if data is None else text_of(data)


def text_of(data: bytes | bytearray) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise Malformed("not ASCII") from error


def _exactly(channel: int, size: int) -> bytes | None:
    data = _read_some(channel, size)
    if len(data) == size:
        return data
    parts = bytearray(data)
    while len(parts) < size:
        piece = _read_some(channel, min(size - len(parts), 1 << 20))
        if not piece:
            return None
        parts += piece
    return bytes(parts)
