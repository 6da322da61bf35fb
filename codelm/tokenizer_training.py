"""Training a SentencePiece BPE tokenizer for code, and adding pieces to one.

What makes it one for code: text is taken as it is (no normalization, no space put in front), bytes stand in for rare
characters, digits are single, and white space has pieces of its own: a line end is always one piece, so that a cursor
at the start or end of a line is at a piece boundary; runs of spaces and of tabs are one piece each.
"""

import io
import random
import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece
from jaxtyping import Float

from codelm.errors import UserError
from codelm.sentencepiece_tokenizer import SPACE, parse_proto
from codelm.tokenizer import END_OF_TEXT, OWN_SPECIALS, PAD, UNKNOWN, Tokenizer

VOCAB_RANGE = (512, 262_144)
DEFAULT_MAX_BYTES = 128 * 2**20

_WHITESPACE_PIECES = [
    "\n",
    "\r\n",
    *("\t" * n for n in range(1, 9)),
    *(SPACE * n for n in [*range(2, 17), 20, 24, 28, 32]),
]
_PRINTABLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))
# NUL, surrogates and the space symbol itself are always bytes, so there is nothing to learn about them.
_NOT_LEARNT = re.compile(f"[\0{SPACE}\ud800-\udfff]+")


def train(lines: Iterable[str], vocab_size: int, threads: int = 2) -> bytes:
    """A serialized SentencePiece model learnt from lines of text (each with its line end)."""
    low, high = VOCAB_RANGE
    if not low <= vocab_size <= high:
        raise UserError(f"vocabulary size {vocab_size} is outside {low} to {high}")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_learnable(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            character_coverage=0.9999,
            required_chars=_PRINTABLE_ASCII,
            user_defined_symbols=_WHITESPACE_PIECES,
            control_symbols=list(OWN_SPECIALS[3:]),
            unk_id=0,
            unk_piece=UNKNOWN,
            eos_id=1,
            eos_piece=END_OF_TEXT,
            pad_id=2,
            pad_piece=PAD,
            bos_id=-1,
            max_sentence_length=1 << 20,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    return model.getvalue()


def _learnable(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line := _NOT_LEARNT.sub("", line):
            yield line


def _explain(message: str, vocab_size: int) -> str:
    too_high = re.search(r"value <= (\d+)", message)
    if too_high:
        return f"the text is too little for {vocab_size} pieces; it gives at most {too_high[1]}"
    if "sentences_" in message or "empty" in message:
        return "no text to learn a tokenizer from: every file is empty or binary"
    return f"SentencePiece could not learn a tokenizer: {message.splitlines()[0]}"


def sample(lines: Iterable[str], total_bytes: int, max_bytes: int, seed: int = 0) -> Iterator[str]:
    """An even sample of about max_bytes, the same for the same seed: what keeps training within memory."""
    keep = min(1.0, max_bytes / max(total_bytes, 1))
    rng = random.Random(seed)
    return (line for line in lines if keep == 1.0 or rng.random() < keep)


def extend(proto: bytes, texts: Iterable[str] = (), specials: Iterable[str] = ()) -> bytes:
    """The model with new pieces at its end: texts are always cut out whole, specials never come from text."""
    model = parse_proto(proto, "tokenizer")
    known = {piece.piece for piece in model.pieces}
    new = [(text.replace(" ", SPACE), model.SentencePiece.USER_DEFINED) for text in texts]
    new += [(name, model.SentencePiece.CONTROL) for name in specials]
    for text, kind in new:
        if not text or text in known or re.search("[\0\ud800-\udfff]", text):
            reason = "is empty" if not text else "is already there" if text in known else "is not text"
            raise UserError(f"cannot add the piece {text.replace(SPACE, ' ')!r}: it {reason}")
        known.add(text)
        model.pieces.add(piece=text, score=0.0, type=kind)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model.SerializeToString()


def extend_embedding(table: Float[np.ndarray, "V D"], before: Tokenizer, after: Tokenizer) -> Float[np.ndarray, "V2 D"]:
    """The embedding for an extended vocabulary: each new row is the mean of the rows of the pieces it replaces."""
    if table.shape[0] < before.vocab_size:
        raise UserError(f"the embedding has {table.shape[0]} rows, the tokenizer {before.vocab_size} pieces")
    names = {i: name for name, i in after.special.items()}
    rows = []
    for i in range(before.vocab_size, after.vocab_size):
        text = names[i] if i in names else after.pieces[i].decode()
        rows.append(table[before.encode(text)].astype(np.float64).mean(axis=0))
    new = np.stack(rows).astype(table.dtype) if rows else table[:0]
    return np.concatenate([table[: before.vocab_size], new])
