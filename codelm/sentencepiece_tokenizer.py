"""SentencePiece behind `Tokenizer`: our own models and imported `tokenizer.model` files."""

import re
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError

from codelm.errors import UserError
from codelm.sentencepiece_proto import ModelProto
from codelm.tokenizer import Tokenizer, byte_table, is_control_name

SPACE = "\u2581"  # SentencePiece writes a space this way, so the character itself has to go round it as bytes
_AWKWARD = re.compile(f"([{SPACE}\ud800-\udfff]+)")


class SentencePieceEncoder:
    """Plain text to ids; pickles as its model bytes."""

    awkward = _AWKWARD

    def __init__(self, proto: bytes) -> None:
        self.proto = proto
        self.processor = sentencepiece.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(proto)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def __reduce__(self):
        return SentencePieceEncoder, (self.proto,)


def parse_proto(proto: bytes, name: str) -> Any:
    model = ModelProto()
    try:
        model.ParseFromString(proto)
    except DecodeError as error:
        raise UserError(f"{name} is not a SentencePiece model, or is damaged") from error
    if not model.pieces:
        raise UserError(f"{name} is not a SentencePiece model, or is damaged: it holds no pieces")
    return model


def from_proto(proto: bytes, name: str = "tokenizer.model") -> Tokenizer:
    """The tokenizer of a serialized SentencePiece model, without the space some models put before every text."""
    model = parse_proto(proto, name)
    leading_space = model.normalizer_spec.add_dummy_prefix
    model.normalizer_spec.add_dummy_prefix = False
    special = {p.piece: i for i, p in enumerate(model.pieces) if _is_special(p)}
    byte_pieces = [i for i, p in enumerate(model.pieces) if p.type == p.BYTE]
    pieces = tuple(_piece_bytes(p) for p in model.pieces)
    try:
        encoder = SentencePieceEncoder(model.SerializeToString())
    except RuntimeError as error:
        raise UserError(f"{name} is a damaged SentencePiece model: {str(error).splitlines()[0]}") from error
    return Tokenizer(
        pieces=pieces,
        special=special,
        byte_ids=byte_table(pieces, byte_pieces),
        encoder=encoder,
        start=(special["<s>"],) if "<s>" in special else (),  # Llama's; ours has no such token
        leading_space=leading_space,
    )


def _is_special(piece: Any) -> bool:
    """Control pieces, and user-defined ones that are named like them (CodeLlama's `▁<PRE>`)."""
    if piece.type == piece.USER_DEFINED:
        return is_control_name(piece.piece)
    return piece.type in (piece.CONTROL, piece.UNKNOWN)


def _piece_bytes(piece: Any) -> bytes:
    if _is_special(piece):
        return b""
    if piece.type == piece.BYTE:  # spelled <0xE2>
        return bytes([int(piece.piece[3:5], 16)])
    return piece.piece.replace(SPACE, " ").encode()
