"""Hugging Face `tokenizer.json` behind `Tokenizer`, so that imported models use their own vocabulary.

The file is edited before it is loaded: what adds to the text (templates, a leading space) and what turns text into
special tokens is taken out, because `Tokenizer.encode` promises neither happens.
"""

import json
import re
from typing import Any

import tokenizers

from codelm.errors import UserError
from codelm.tokenizer import Tokenizer, byte_table, is_control_name

_SURROGATES = re.compile("([\ud800-\udfff]+)")
_SPACE = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class HuggingFaceEncoder:
    """Plain text to ids; pickles as its JSON."""

    awkward = _SURROGATES

    def __init__(self, content: str) -> None:
        self.content = content
        self.tokenizer = tokenizers.Tokenizer.from_str(content)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def __reduce__(self):
        return HuggingFaceEncoder, (self.content,)


def from_json(content: bytes, name: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer of a `tokenizer.json`."""
    try:
        spec = json.loads(content)
        vocabulary = _vocabulary(spec["model"])
        added = {token["content"]: token for token in spec.get("added_tokens") or []}
        special = {text: token["id"] for text, token in added.items() if _is_special(token)}
        encoder = HuggingFaceEncoder(json.dumps(_exact(spec, special)))
        start = tokenizers.Tokenizer.from_str(content.decode()).encode("").ids
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} is not a Hugging Face tokenizer.json, or is damaged: {reason}") from error
    by_id = {i: piece for piece, i in vocabulary.items()} | {token["id"]: text for text, token in added.items()}
    byte_level = "ByteLevel" in _types(spec.get("pre_tokenizer")) | _types(spec.get("decoder"))
    to_bytes = _byte_level_bytes if byte_level else _metaspace_bytes
    pieces = [b""] * (max(by_id) + 1)
    for i, piece in by_id.items():
        if piece not in special:
            pieces[i] = piece.encode() if piece in added else to_bytes(piece)
    singles = [i for i, piece in by_id.items() if byte_level or _BYTE_PIECE.fullmatch(piece)]
    return Tokenizer(
        pieces=tuple(pieces),
        special=special,
        byte_ids=byte_table(pieces, singles),
        encoder=encoder,
        start=tuple(i for i in start if i in special.values()),
        leading_space=_puts_space_in_front(spec.get("normalizer")) or _puts_space_in_front(spec.get("pre_tokenizer")),
    )


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    if isinstance(model["vocab"], dict):
        return model["vocab"]
    return {piece: i for i, (piece, _score) in enumerate(model["vocab"])}  # Unigram


def _is_special(token: dict[str, Any]) -> bool:
    return token["special"] or is_control_name(token["content"])


def _exact(spec: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """The file without special tokens in text, templates, truncation, padding, and implicit leading space."""
    plain = [token for token in spec.get("added_tokens") or [] if token["content"] not in special]
    return _without_leading_space(
        spec | {"added_tokens": plain, "post_processor": None, "truncation": None, "padding": None}
    )


def _without_leading_space(node: Any) -> Any:
    """Drop `Prepend` normalizers; tell Metaspace and ByteLevel not to put a space in front."""
    if isinstance(node, list):
        return [_without_leading_space(item) for item in node if not _is_prepend(item)]
    if not isinstance(node, dict):
        return node
    node = {
        key: None if _is_prepend(value) else value if key == "model" else _without_leading_space(value)
        for key, value in node.items()
    }
    if node.get("type") == "Metaspace":
        node["prepend_scheme"] = "never"
        node.pop("add_prefix_space", None)
    if node.get("type") == "ByteLevel":
        node["add_prefix_space"] = False
    return node


def _puts_space_in_front(node: Any) -> bool:
    if isinstance(node, list):
        return any(map(_puts_space_in_front, node))
    if not isinstance(node, dict):
        return False
    metaspace = node.get("type") == "Metaspace" and node.get("prepend_scheme", "always") != "never"
    byte_level = node.get("type") == "ByteLevel" and node.get("add_prefix_space", False)
    return _is_prepend(node) or metaspace or byte_level or any(map(_puts_space_in_front, node.values()))


def _is_prepend(node: Any) -> bool:
    return isinstance(node, dict) and node.get("type") == "Prepend"


def _types(node: Any) -> set[str]:
    """Names of every component under a node of the file."""
    if isinstance(node, list):
        return set().union(*map(_types, node))
    if isinstance(node, dict):
        return {str(node.get("type"))}.union(*map(_types, node.values()))
    return set()


def _printable_bytes() -> dict[str, int]:
    """The byte-level alphabet: bytes that print stand for themselves, the rest for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _printable_bytes()


def _byte_level_bytes(piece: str) -> bytes:
    return b"".join(bytes([_ALPHABET[c]]) if c in _ALPHABET else c.encode() for c in piece)


def _metaspace_bytes(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(_SPACE, " ").encode()
