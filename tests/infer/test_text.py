"""What the writer gives out piece by piece, against the whole text: found and cut at once, decoded at once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from infer.text import Piece, Writer
from tests.infer.vocabularies import tiny

# Few letters, so that stop strings are met, begun and broken off; halves and thirds of characters.
TOKENIZER = tiny("a", "b", "ab", "ba", "aab", "é", "é".encode()[:1], "é".encode()[1:], "€".encode()[:2], b"\xff")
PIECES = TOKENIZER.pieces
TOKENS = st.lists(st.integers(0, len(PIECES) - 1), max_size=24)
STOPS = st.lists(st.text("abé", min_size=1, max_size=3), max_size=3)
MANY = settings(max_examples=1000)


def written(writer: Writer, tokens: list[int], by_stop: bool) -> list[Piece]:
    pieces = []
    for i, token in enumerate(tokens):
        pieces.append(writer.write(token, float(i)))
        if writer.stopped:
            break
    return [*pieces, writer.end(by_stop)]


def whole(tokens: list[int], stops: list[str]) -> tuple[bytes, bool]:
    """All that is written up to the first stop string, as soon as a token completes one; whether there was one."""
    spelled = b""
    for token in tokens:
        spelled += PIECES[token]
        found = [at for at in (spelled.find(stop.encode()) for stop in stops) if at >= 0]
        if found:
            return spelled[: min(found)], True
    return spelled, False


def text_of(spelled: bytes) -> str:
    return spelled.decode("utf-8", errors="codelm_lenient")


@MANY
@given(TOKENS, STOPS)
def test_the_pieces_are_the_text_up_to_the_first_stop_string(tokens: list[int], stops: list[str]) -> None:
    writer = Writer(TOKENIZER, stops)
    pieces = written(writer, tokens, by_stop=False)
    spelled, stopped = whole(tokens, stops)
    assert ("".join(piece.text for piece in pieces), writer.stopped) == (text_of(spelled), stopped)
    ids = [i for piece in pieces for i in piece.ids]
    assert ids == tokens[: len(ids)]
    size = len(b"".join(PIECES[i] for i in ids))
    assert size <= len(spelled)  # no token of which a stop string took a part
    assert len(ids) == len(tokens) or size + len(PIECES[tokens[len(ids)]]) > len(spelled)  # and no other is missing
    assert [value for piece in pieces for value in piece.logprobs] == [float(i) for i in range(len(ids))]


@MANY
@given(TOKENS, STOPS)
def test_nothing_is_given_out_that_could_be_taken_back(tokens: list[int], stops: list[str]) -> None:
    """At any moment what was given is a beginning of what there will be, whatever follows: a stop string at the end of
    all that was written, or the other half of a character."""
    writer, given_out = Writer(TOKENIZER, stops), ""
    for i, token in enumerate(tokens):
        given_out += writer.write(token, 0.0).text
        for next_ in range(len(PIECES)):
            assert text_of(whole([*tokens[: i + 1], next_], stops)[0]).startswith(given_out)
        if writer.stopped:
            break


@MANY
@given(TOKENS, st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_what_healing_had_typed_and_its_tail_are_left_out(tokens: list[int], skip: int, tail: int, ended: bool) -> None:
    pieces = written(Writer(TOKENIZER, (), skip, tail), tokens, by_stop=ended)
    spelled = b"".join(PIECES[i] for i in tokens)
    kept = spelled[skip : max(len(spelled) - tail, 0) if ended else None]
    assert "".join(piece.text for piece in pieces) == text_of(kept)


def test_a_token_that_no_piece_belongs_to_is_no_text() -> None:
    writer = Writer(TOKENIZER)
    assert writer.write(len(PIECES) + 5, 0.0) == Piece([len(PIECES) + 5], "", [0.0])
