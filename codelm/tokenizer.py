"""Text to token ids and back without loss.

`encode` takes plain text: no beginning-of-text token, no implicit leading space, and never a special token, whatever
the text spells. Prompt formats put special tokens around it by id. `decode` joins the bytes of the pieces, so
`decode(encode(s)) == s` for every string, lone surrogates included, wherever the vocabulary has all 256 bytes.

The encoders behind it (SentencePiece, Hugging Face) are small picklable objects: they know their library and no more.
"""

import codecs
import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from codelm.errors import UserError

UNKNOWN, END_OF_TEXT, PAD = "<|unknown|>", "<|endoftext|>", "<|pad|>"

# Special tokens of our own tokenizers, in id order: they are the first ids.
OWN_SPECIALS: tuple[str, ...] = (
    UNKNOWN,
    END_OF_TEXT,
    PAD,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<|tool_result|>",
    "<|/tool_result|>",
    *(f"<|mask_{i}|>" for i in range(16)),
    "<|mask_end|>",
    *(f"<|spare_{i}|>" for i in range(28)),
)


# How a piece looks that steers the model rather than spelling text, for files that do not mark it as special (Qwen's
# `<|fim_prefix|>` and `<tool_call>`, CodeLlama's `▁<PRE>`). Gemma's HTML tags (`<table>`) are text and stay text.
_CONTROL_NAME = re.compile(
    "\u2581?<[A-Z_]+>|<[|｜\\[].+[|｜\\]]>|\\[[A-Z_/]+\\]"
    "|</?(s|pad|unk|bos|eos|mask|think|tool_[a-z]+)>|<(fim|repo|file|gh|jupyter)[a-z_]*>"
)


def is_control_name(piece: str) -> bool:
    return bool(_CONTROL_NAME.fullmatch(piece))


class Encoder(Protocol):
    """Plain text to ids, for text without any character matched by `awkward`."""

    awkward: re.Pattern[str]

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, eq=False)  # one object is one tokenizer, so that what is made from it can be cached under it
class Tokenizer:
    """A vocabulary and the encoder that cuts text into it."""

    pieces: tuple[bytes, ...]
    """Bytes of each id; empty for special tokens."""
    special: Mapping[str, int]
    """Special tokens by name."""
    byte_ids: tuple[int | None, ...]
    """The id that stands for each single byte, where there is one."""
    encoder: Encoder
    start: tuple[int, ...] = ()
    """What its own library puts before a text (a beginning-of-text token)."""
    leading_space: bool = False
    """Its own library puts a space before a text (Llama 2's descendants)."""

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that decides how text is cut."""
        parts = (pickle.dumps(self.encoder, protocol=4), repr(self.pieces), repr(sorted(self.special.items())))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Ids of plain text; with `allow_special`, names of special tokens in it become those tokens.

        >>> tokenizer.encode("<|fim_prefix|>")                      # several ordinary pieces
        >>> tokenizer.encode("<|fim_prefix|>", allow_special=True)  # one special token
        """
        if not allow_special:
            return self._encode_plain(text)
        ids: list[int] = []
        for part in self._special_names.split(text):
            special = self._special_by_text.get(part)
            ids += self._encode_plain(part) if special is None else [special]
        return ids

    def encode_document(self, text: str) -> list[int]:
        """Ids of a text that begins here, as an imported tokenizer's own library gives them."""
        return [*self.start, *self.encode(" " + text if self.leading_space and text else text)]

    def decode(self, ids: Iterable[int], show_special: bool = False) -> str:
        """Text of the ids. Special tokens are left out unless shown by name; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids, show_special).decode("utf-8", errors=LENIENT)

    def decode_bytes(self, ids: Iterable[int], show_special: bool = False) -> bytes:
        listed = [int(i) for i in ids]
        if show_special or (listed and not 0 <= min(listed) <= max(listed) < len(self.pieces)):
            return b"".join(self.piece_bytes(i, show_special) for i in listed)
        return b"".join([self.pieces[i] for i in listed])

    def piece_bytes(self, i: int, show_special: bool = False) -> bytes:
        """Bytes of one id, so that a stream of ids can be turned into text as it comes."""
        if not 0 <= i < len(self.pieces):
            raise UserError(f"token id {i} is outside the vocabulary of {len(self.pieces)}")
        name = self._special_by_id.get(i) if show_special else None
        return self.pieces[i] if name is None else name.encode()

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self.encoder.awkward.split(text):
            if part and self.encoder.awkward.fullmatch(part):
                ids += self._encode_bytes(part)
            elif part:
                ids += self._without_specials(part)
        return ids

    def _without_specials(self, text: str) -> list[int]:
        """An encoder whose own table has a special token as a piece may match it in text: then cut its name in two."""
        ids = self.encoder.encode(text)
        if self._special_by_id.keys().isdisjoint(ids):
            return ids
        cut = self._special_names.sub(lambda name: name[0][:1] + _CUT + name[0][1:], text)
        return [i for part in cut.split(_CUT) for i in self.encoder.encode(part)]

    def _encode_bytes(self, text: str) -> list[int]:
        missing = self.special.get("<unk>", 0)
        ids = (self.byte_ids[byte] for byte in text.encode("utf-8", errors="surrogatepass"))
        return [missing if i is None else i for i in ids]

    @cached_property
    def _special_by_id(self) -> dict[int, str]:
        return {i: name for name, i in self.special.items()}

    @cached_property
    def _special_by_text(self) -> dict[str, int]:
        """Ids by how a user would type the name: SentencePiece spells a space U+2581."""
        return {name.replace("\u2581", " "): i for name, i in self.special.items()} | dict(self.special)

    @cached_property
    def _special_names(self) -> re.Pattern[str]:
        """Matches any special token's name as text, longest first."""
        names = sorted(self._special_by_text, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else re.compile("(?!)")


_CUT = "\udfff"  # a lone surrogate: awkward to every encoder, so it is never inside the text being cut


def load(path: str | Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.model`, a `tokenizer.json`, or a folder with one of them."""
    path = file_of(path)
    if path.suffix == ".json":
        from codelm.huggingface_tokenizer import from_json

        return from_json(path.read_bytes(), str(path))
    from codelm.sentencepiece_tokenizer import from_proto

    return from_proto(path.read_bytes(), str(path))


def file_of(path: str | Path) -> Path:
    """The tokenizer.model or tokenizer.json itself, where a folder may be given."""
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("tokenizer.json", "tokenizer.model") if (path / name).is_file()]
        if not found:
            raise UserError(f"no tokenizer in {path}: neither tokenizer.json nor tokenizer.model")
        path = found[0]
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}")
    return path


def byte_table(pieces: Sequence[bytes], candidates: Iterable[int]) -> tuple[int | None, ...]:
    """The id of each single byte among the candidate ids."""
    table: list[int | None] = [None] * 256
    for i in candidates:
        if len(pieces[i]) == 1:
            table[pieces[i][0]] = i
    return tuple(table)


def _lenient(error: UnicodeError) -> tuple[str | bytes, int]:
    """Keep surrogates that were encoded as such; replace what is not text at all."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


LENIENT = "codelm_lenient"
codecs.register_error(LENIENT, _lenient)
