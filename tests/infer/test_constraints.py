"""Grammars against Python's own `re` and `json`, and against the list of all short texts."""

import itertools
import json
import re
import sys
from typing import Any

import numpy as np
import pytest

from codelm import tokenizer_training
from codelm.errors import UserError
from codelm.huggingface_tokenizer import from_json
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer
from infer import constraints
from infer.constraints import Constraint, Grammar
from tests.codelm.test_tokenizer import CODE, byte_level
from tests.infer.vocabularies import END, OTHER, tiny


@pytest.fixture(scope="module", params=["ours", "byte level"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "ours":
        return from_proto(tokenizer_training.train(CODE.splitlines(keepends=True), 1024))
    return from_json(byte_level())


def end_of(tokenizer: Tokenizer) -> int:
    return tokenizer.special["<|endoftext|>"]


def write(run: Constraint, ids: list[int]) -> None:
    for token in ids:
        run.advance(token)
        run.allowed()


def allowed(run: Constraint) -> list[int]:
    mask = run.allowed()
    assert mask is not None
    return np.flatnonzero(mask).tolist()


# ---- every short text ----

PIECES = tiny("a", "b", "c", "ab", "ba", "abb", "bc")


@pytest.mark.parametrize("pattern", ["(ab|ba)*a?b{2}", "abba", "a*(bc|c)+", "[^a]b?|abab", "a|ab|abb", "(b|)c?", ""])
def test_a_token_is_allowed_if_and_only_if_a_match_goes_on_with_it(pattern: str) -> None:
    """Over all texts of up to 9 characters, and from places where that is enough for any match to end."""
    texts = ["".join(letters) for length in range(10) for letters in itertools.product("abc", repeat=length)]
    matches = [text for text in texts if re.fullmatch(pattern, text)]
    beginnings = {match[:n] for match in matches for n in range(len(match) + 1)}
    states: list[tuple[str, list[int]]] = [("", [])]
    seen = 0
    while states:
        text, ids = states.pop()
        run = Grammar("regex", pattern).start(PIECES, {END})
        for token in ids:
            run.advance(token)
        pieces = {i: text + piece.decode() for i, piece in enumerate(PIECES.pieces) if piece}
        expected = {i for i, longer in pieces.items() if longer in beginnings}
        expected |= {END} if re.fullmatch(pattern, text) else set()
        assert set(allowed(run)) == expected, text
        seen += 1
        states += [(pieces[i], [*ids, i]) for i in expected - {END} if len(pieces[i]) <= 3]
    assert seen > 0


# ---- whole texts ----


def walk(run: Constraint, tokenizer: Tokenizer, rng: np.random.Generator, steps: int = 400) -> bytes | None:
    """A text of allowed tokens; None if it has not come to its end. Ends when it may, and prefers short ways."""
    written: list[int] = []
    for _ in range(steps):
        choices = allowed(run)
        assert all(tokenizer.pieces[i] or i == end_of(tokenizer) for i in choices)
        if end_of(tokenizer) in choices and rng.random() < 0.5:
            run.advance(end_of(tokenizer))
            return tokenizer.decode_bytes(written)
        closing = [i for i in choices if tokenizer.pieces[i][-1:] in (b'"', b"}", b"]", b",", b":", b")")]
        token = int(rng.choice(closing if closing and rng.random() < 0.5 else choices))
        run.advance(token)
        written.append(token)
    return None


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-z_]+ = (\d+|None)",
        r"def [a-z_]{1,12}\((self(, [a-z]+)*)?\):\n(    return [^\n]{0,20}\n)+",
        r"(import|from) [a-z.]+( as [a-z]+)?",
        r"/\*.{0,8}\*/|// é[漢字]{2}\"",
    ],
)
def test_what_is_written_matches_the_regular_expression(pattern: str, tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    texts = [walk(Grammar("regex", pattern).start(tokenizer, {end_of(tokenizer)}), tokenizer, rng) for _ in range(8)]
    whole = [text.decode() for text in texts if text is not None]
    assert len(whole) >= 4
    assert all(re.fullmatch(pattern, text) for text in whole), whole


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"type": "integer", "minimum": 3, "maximum": 120},
        "kind": {"enum": ["file", "folder"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "size", "kind"],
    "additionalProperties": False,
}


def fits(value: Any) -> bool:
    """SCHEMA by hand."""
    assert isinstance(value, dict)
    tags = value.get("tags", [])
    return (
        {"name", "size", "kind"} <= set(value) <= {"name", "size", "kind", "tags"}
        and (isinstance(value["name"], str) and len(value["name"]) <= 12)
        and (isinstance(value["size"], int) and 3 <= value["size"] <= 120)
        and value["kind"] in ("file", "folder")
        and (len(tags) <= 3 and all(isinstance(tag, bool) for tag in tags))
    )


@pytest.mark.parametrize("blanks", [True, False])
def test_what_is_written_fits_the_json_schema(blanks: bool, tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    grammar = Grammar("json_schema", json.dumps({**SCHEMA, "x-guidance": {"whitespace_flexible": blanks}}))
    texts = [walk(grammar.start(tokenizer, {end_of(tokenizer)}), tokenizer, rng) for _ in range(8)]
    whole = [text.decode() for text in texts if text is not None]
    assert len(whole) >= 4
    assert all(fits(json.loads(text)) for text in whole), whole
    tight = [json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) for text in whole]
    assert ([len(text) for text in whole] == [len(text) for text in tight]) != blanks


def test_lark_counts_what_no_regular_expression_does() -> None:
    run = Grammar("lark", 'start: "c" | "a" start "b"').start(PIECES, {END})
    names = {name: i + 2 for i, name in enumerate(["a", "b", "c", "ab", "ba", "abb", "bc"])}
    for letter in "aac":
        run.advance(names[letter])
    assert allowed(run) == [names["b"]]
    run.advance(names["b"])
    run.advance(names["b"])
    assert allowed(run) == [END]


# ---- ends and special tokens ----


@pytest.mark.parametrize("rule", ["<[*]>", "<[0-1]> | /[ab]/"])
def test_no_grammar_reaches_special_tokens(rule: str) -> None:
    run = Grammar("lark", f"start: {rule}").start(PIECES, {END})
    found = allowed(run)
    assert found
    assert not {END, OTHER} & set(found)


def test_any_end_token_may_end_a_match_even_one_that_has_text() -> None:
    a, b = 2, 3
    run = Grammar("regex", "ab?a").start(PIECES, {END, OTHER, b})
    assert b not in allowed(run)
    run.advance(a)
    assert allowed(run) == [a, 6]  # a and ba; the b alone would end it
    run.advance(6)
    assert allowed(run) == [END, OTHER, b]


def test_runs_of_one_grammar_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when one of them is too much for the lexer."""
    monkeypatch.setattr(constraints, "MAX_LEXER_STATES", 200)
    grammar = Grammar("regex", "x(a|b)*a(a|b){12}|c+")
    pieces = tiny("a", "b", "c", "x")
    a, b, c, x = 2, 3, 4, 5
    rng = np.random.default_rng(0)
    one, other = grammar.start(pieces, {END}), grammar.start(pieces, {END})
    one.advance(x)
    with pytest.raises(UserError, match=r"the regex grammar cannot go on: lexer error: too many states: 200 >= 200$"):
        write(one, rng.choice([a, b], 400).tolist())
    assert allowed(other) == [c, x]
    assert allowed(grammar.start(pieces, {END})) == [c, x]


# ---- bad input ----


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("regex", "(ab", r"^the regex grammar does not parse: at 1\(8\): invalid regex .*unclosed group$"),
        ("regex", "(?=a)b", r"look-ahead.*is not supported$"),
        ("lark", "start: foo", r"^the lark grammar does not parse: at 1\(8\): unknown name: \"foo\"$"),
        ("lark", "start: " + "(" * 10_000, r"^the lark grammar does not parse: .*too deeply nested"),
        ("json_schema", "{", r"^the json_schema grammar is not JSON: Expecting property name"),
        ("json_schema", "[" * 100_000, r"^the json_schema grammar is not JSON: "),
        ("json_schema", '{} "more rules"', r"^the json_schema grammar is not JSON: Extra data"),
        ("json_schema", '{"type": "strin"}', r"^the json_schema grammar does not parse: .*Invalid type: strin$"),
        ("json_schema", '{"if": {}}', r'^the json_schema grammar does not parse: .*Unimplemented keys: \["if"\]$'),
    ],
)
def test_a_grammar_that_does_not_parse_is_one_line(kind: Any, text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        Grammar(kind, text).start(PIECES, {END})
    assert "\n" not in str(caught.value)


def test_a_match_that_this_vocabulary_cannot_spell_is_an_error_not_an_end() -> None:
    run = Grammar("regex", "ax").start(PIECES, {END})
    run.advance(2)
    with pytest.raises(UserError, match="the regex grammar cannot go on: no token that this vocabulary"):
        run.allowed()


def test_a_grammar_needs_a_way_to_end() -> None:
    with pytest.raises(UserError, match="give the request stop tokens"):
        Grammar("regex", "a").start(PIECES, set())


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r'^grammars need llguidance: make install EXTRAS="constrain"$'):
        Grammar("regex", "a").start(tiny("a"), {END})
