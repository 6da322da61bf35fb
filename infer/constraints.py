"""What a completion may say next: constraints on it, and grammars (regular expression, JSON schema, Lark) among them.

Runs on the host, one mask over the vocabulary a step, and only for requests that ask for it. llguidance reads the
grammars; it is told the bytes of every piece, so a token is allowed if and only if its text can be part of a match
(llguidance would rather force its own spelling of what is certain: that is off). Special tokens are never allowed,
whatever a grammar says, but the ends of the request: alone once nothing may follow, beside others while something may.

Grammars are in llguidance's dialects: regular expressions of Rust's crate (no look-around, no back-references), Lark
with its extensions, and JSON schemas with properties in the order in which they are written, which may hold
`"x-guidance": {"whitespace_flexible": false}` for JSON without blanks. Knows tokens and bytes, no model and no engine.

>>> constraint = Grammar("regex", "[a-z]+ = [0-9]+").start(tokenizer, stop_ids)  # doctest: +SKIP
>>> mask = constraint.allowed(); constraint.advance(token)  # doctest: +SKIP
"""

import functools
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from codelm.errors import UserError
from codelm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Kind = Literal["regex", "json_schema", "lark"]

MAX_LEXER_STATES = 25_000  # of one completion, at 1 to 2 kB each; llguidance's own 250 000 would be half a gigabyte


@runtime_checkable
class Constraint(Protocol):
    """The state of one completion under a rule."""

    def allowed(self) -> Bool[np.ndarray, " V"] | None:
        """Which token may come next; None: any, from here to the end."""
        ...

    def advance(self, token: int) -> None:
        """This token was chosen."""
        ...

    def rewind(self, tokens: int) -> None:
        """The last so many were not, after all; what was allowed after them was only a question."""
        ...


@dataclass(frozen=True)
class Grammar:
    """What a completion has to match from its beginning to its end."""

    kind: Kind
    text: str

    def start(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> Constraint:
        """A completion's own state. `end_ids` end it, also where their text would be part of the match."""
        if not end_ids:
            raise UserError("a grammar needs a token to end with: give the request stop tokens")
        return _GrammarRun(self, tokenizer, sorted(end_ids))


class _GrammarRun:
    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, end_ids: list[int]) -> None:
        self._kind = grammar.kind
        self._matcher = _matcher(grammar, tokenizer)
        self._text = _text_tokens(tokenizer)
        self._end_ids = end_ids

    def allowed(self) -> Bool[np.ndarray, " V"]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.unpackbits(bits, count=len(self._text), bitorder="little").astype(bool) & self._text
        mask[self._end_ids] = self._matcher.is_accepting()
        if not mask.any():  # also after any error
            raise UserError(f"the {self._kind} grammar cannot go on: {self._problem()}")
        return mask

    def advance(self, token: int) -> None:
        if token not in self._end_ids:
            self._matcher.consume_token(token)

    def rewind(self, tokens: int) -> None:
        self._matcher.rollback(tokens)

    def _problem(self) -> str:
        reason = _one_line(self._matcher.get_error())
        dead_end = reason in ("", "NoExtensionBias")
        return "no token that this vocabulary has for text continues the match" if dead_end else reason


def _matcher(grammar: Grammar, tokenizer: Tokenizer) -> "LLMatcher":
    """Each completion parses its own: copies of one would share a lexer, and its limits when one of them grows it."""
    vocabulary = _vocabulary(tokenizer)
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(vocabulary, _as_lark(grammar), log_level=0, limits=limits)
    if matcher.is_error():
        raise UserError(f"the {grammar.kind} grammar does not parse: {_one_line(matcher.get_error())}")
    return matcher


@functools.lru_cache(maxsize=4)
def _vocabulary(tokenizer: Tokenizer) -> "LLTokenizer":
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as error:
        raise UserError('grammars need llguidance: make install EXTRAS="constrain"') from error
    return LLTokenizer(TokenizerWrapper(_Pieces(tokenizer)))


class _Pieces:
    """The bytes of every token under the names llguidance reads, and after them one more token: here a match may end.

    A piece without bytes, as special tokens have it, is one that no grammar allows.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.eos_token_id = tokenizer.vocab_size
        self.bos_token_id = None
        self.tokens = [*tokenizer.pieces, b"<|the match may end|>"]
        self.special_token_ids = [self.eos_token_id]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


@functools.lru_cache(maxsize=4)
def _text_tokens(tokenizer: Tokenizer) -> Bool[np.ndarray, " V"]:
    return np.array([bool(piece) for piece in tokenizer.pieces])


def _as_lark(grammar: Grammar) -> str:
    from llguidance import regex_to_lark

    match grammar.kind:
        case "regex":
            rules = f"start: /{regex_to_lark(grammar.text)}/"
        case "json_schema":
            try:
                json.loads(grammar.text)
            except (ValueError, RecursionError) as error:
                raise UserError(f"the json_schema grammar is not JSON: {error}") from error
            rules = f"start: %json {grammar.text}"
        case "lark":
            rules = grammar.text
    return f'{rules}\n%llguidance {{"no_forcing": true}}\n'


def _one_line(message: str) -> str:
    """llguidance's reason without the drawings of where in the grammar it is."""
    lines = [line for line in message.splitlines() if not re.fullmatch(r"\s*(\d+ \|.*|\^*)\s*", line)]
    return " ".join(" ".join(lines).replace("<non-verbose/>", "").split())
