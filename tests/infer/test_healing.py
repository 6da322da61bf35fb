"""Token healing against enumeration on tiny vocabularies, and against texts that a model knows by heart."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from codelm import formats, tokenizer_training
from codelm.errors import UserError
from codelm.formats import FAMILIES, File, Mode, Rendered, Repository, Role, Text
from codelm.huggingface_tokenizer import from_json
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer
from infer.healing import Healing, heal
from tests.codelm.test_formats import FIM_MODES, SPECIALS
from tests.codelm.test_tokenizer import CODE, byte_level
from tests.infer.vocabularies import END, OTHER, tiny

FULL = tiny("a", "b", "ab", "ba", "abb")
NO_B = tiny("a", "ab", "aab", "ca", "c")  # behind "a" nothing spells "b"
ONE_COVER = tiny("ab", "abb", "abab", "b", "ba")  # no piece is a part of "ab"
LENGTH = 4


def everything(tokenizer: Tokenizer, length: int = LENGTH) -> list[tuple[int, ...]]:
    """Every way to write: ended, or as long as looked at."""
    done: list[tuple[int, ...]] = []
    growing: list[tuple[int, ...]] = [()]
    for _ in range(length):
        grown = [(*ids, i) for ids in growing for i in range(tokenizer.vocab_size)]
        done += [ids for ids in grown if ids[-1] == END]
        growing = [ids for ids in grown if ids[-1] != END]
    return done + growing


def heals(tokenizer: Tokenizer, ids: tuple[int, ...], typed: bytes, tail: bytes) -> bool:
    """The rule itself: the text begins with what was typed, and whatever ended has then gone on to the tail."""
    at_first_special = next((i for i, token in enumerate(ids) if not tokenizer.pieces[token]), len(ids))
    text = tokenizer.decode_bytes(ids)
    spelled = tokenizer.decode_bytes(ids[:at_first_special]).startswith(typed)
    return spelled and (ids[-1] != END or text[len(typed) :].endswith(tail))


def generated(tokenizer: Tokenizer, healing: Healing, length: int = LENGTH) -> Iterator[tuple[int, ...]]:
    """What the constraint lets be written."""
    growing: list[tuple[int, ...]] = [()]
    while growing:
        ids = growing.pop()
        if len(ids) == length or ids[-1:] == (END,):
            yield ids
            continue
        allowed = masks(tokenizer, healing, ids)[-1]
        assert allowed.any(), ids
        growing += [(*ids, int(i)) for i in np.flatnonzero(allowed)]


def masks(tokenizer: Tokenizer, healing: Healing, ids: tuple[int, ...]) -> list[np.ndarray]:
    """What is allowed before each of the ids, and after the last."""
    run = healing.start(tokenizer, {END})
    found = []
    for token in (*ids, None):
        allowed = run.allowed()
        found.append(np.ones(tokenizer.vocab_size, bool) if allowed is None else allowed.copy())
        if token is not None:
            run.advance(token)
    return found


@pytest.mark.parametrize(
    ("tokenizer", "typed", "tail"),
    [
        *((FULL, typed, tail) for typed in (b"a", b"ab", b"ba", b"abba") for tail in (b"", b"b", b"ab")),
        *((NO_B, typed, tail) for typed in (b"ab", b"aab", b"ca") for tail in (b"", b"a", b"ab")),
        *((ONE_COVER, typed, tail) for typed in (b"ab", b"b", b"") for tail in (b"", b"b", b"ba")),
    ],
)
def test_all_that_heals_can_be_written_and_nothing_else(tokenizer: Tokenizer, typed: bytes, tail: bytes) -> None:
    expected = {ids for ids in everything(tokenizer) if heals(tokenizer, ids, typed, tail)}
    assert set(generated(tokenizer, Healing(typed, tail))) == expected
    assert len(expected) > 5


def test_typed_text_and_the_tail_do_not_overlap() -> None:
    """Between `x b` and `b y` there are two b's, though one would both begin and end the completion."""
    a, b = 2, 3
    healing = Healing(b"b", b"b")
    assert [mask[END] for mask in masks(FULL, healing, (b, a, b))] == [False, False, False, True]
    assert healing.middle(b"bab", ended=True) == b"a"
    assert healing.middle(b"bb", ended=True) == b""
    assert healing.middle(b"baa", ended=False) == b"aa"


# ---- probabilities ----


def chances(tokenizer: Tokenizer) -> np.ndarray:
    """An arbitrary model: chances of the next token by the one before; the last row is for the first token."""
    raw = np.random.default_rng(1).dirichlet(np.ones(tokenizer.vocab_size), tokenizer.vocab_size + 1)
    raw[:, OTHER] = 0.0
    return raw / raw.sum(axis=1, keepdims=True)


def chance(tokenizer: Tokenizer, ids: tuple[int, ...], healing: Healing | None = None) -> float:
    """Of writing these ids: by the model alone, or step by step among what is allowed."""
    table, allowed = chances(tokenizer), masks(tokenizer, healing or Healing(), ids)
    rows = [table[before] * mask for before, mask in zip((tokenizer.vocab_size, *ids), allowed, strict=True)]
    return float(np.prod([row[token] / row.sum() for row, token in zip(rows, ids, strict=False)]))


def test_where_one_token_spells_what_was_typed_the_distribution_is_the_models_given_that_text() -> None:
    """P(ids | their text begins with `ab`), from the chances of everything that can be written."""
    healing = Healing(b"ab")
    healed = [ids for ids in everything(ONE_COVER) if heals(ONE_COVER, ids, b"ab", b"")]
    joint = np.array([chance(ONE_COVER, ids) for ids in healed])
    ours = np.array([chance(ONE_COVER, ids, healing) for ids in healed])
    np.testing.assert_allclose(ours, joint / joint.sum(), rtol=1e-9)
    assert len(healed) > 100


def test_tokens_that_reach_past_it_at_once_keep_the_models_odds_and_spellings_of_several_tokens_do_not() -> None:
    healing = Healing(b"ab")
    healed = [ids for ids in everything(FULL) if heals(FULL, ids, b"ab", b"")]
    at_once = np.array([FULL.pieces[ids[0]].startswith(b"ab") for ids in healed])
    joint = np.array([chance(FULL, ids) for ids in healed])
    ours = np.array([chance(FULL, ids, healing) for ids in healed])
    np.testing.assert_allclose(ours.sum(), 1.0)
    np.testing.assert_allclose(ours[at_once] / ours[at_once].sum(), joint[at_once] / joint[at_once].sum(), rtol=1e-9)
    assert abs(ours[at_once].sum() - joint[at_once].sum() / joint.sum()) > 0.01  # as the module says of itself


# ---- prompts ----


@pytest.fixture(scope="module", params=["ours", "byte level"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """With the special tokens of every family added."""
    ours = request.param == "ours"
    plain = (
        from_proto(tokenizer_training.train(CODE.splitlines(keepends=True), 1024)) if ours else from_json(byte_level())
    )
    names = {name for names in SPECIALS.values() for name in names} - set(plain.special)
    special = {name: plain.vocab_size + i for i, name in enumerate(sorted(names))}
    return replace(plain, pieces=(*plain.pieces, *[b""] * len(special)), special={**plain.special, **special})


def test_a_text_known_by_heart_is_completed_wherever_it_is_cut(tokenizer: Tokenizer) -> None:
    """Greedy, and with the tokens of the uncut text: the model knows how to go on from those alone."""
    text = CODE[CODE.index("def _set_new_attribute") :][:400]
    known = tokenizer.encode(text)
    unhealed = 0
    for cut in range(len(text)):
        prompt = formats.text(FAMILIES["codelm"], tokenizer, text[:cut])
        unhealed += known[: len(prompt.ids)] == prompt.ids
        ids, healing = heal(tokenizer, prompt)
        run = healing.start(tokenizer, {tokenizer.special["<|endoftext|>"]})
        written: list[int] = []
        while ids + written != known:
            allowed = run.allowed()
            assert known[: len(ids + written)] == ids + written, text[:cut]
            token = known[len(ids + written)]
            assert allowed is None or allowed[token], text[:cut]
            run.advance(token)
            written.append(token)
        assert run.allowed() is None
        assert healing.middle(tokenizer.decode_bytes(written), ended=True) == text[cut:].encode()
    assert unhealed < len(text) / 2  # without healing the model would mostly be lost


@pytest.mark.parametrize(("name", "mode"), FIM_MODES)
def test_a_healed_prompt_is_the_format_around_fewer_tokens(name: str, mode: Mode, tokenizer: Tokenizer) -> None:
    """What is taken out is text at the cursor and comes back as `typed` and `tail`; all else is as ever."""
    text = CODE[CODE.index("def _set_new_attribute") :][:80]
    lead = " " if name in ("codellama", "codestral") else ""
    typed_in_all = tail_in_all = 0
    for cut in range(0, len(text), 3):
        before, after = text[:cut], text[cut + 5 :]
        prefix, suffix = tokenizer.encode(lead * bool(before) + before), tokenizer.encode(after)
        ids, healing = heal(tokenizer, fim(name, tokenizer, before, after, mode))
        typed = how_many(tokenizer, prefix[::-1], len(healing.typed))
        tail = how_many(tokenizer, suffix, len(healing.tail))
        assert healing.typed == tokenizer.decode_bytes(prefix[len(prefix) - typed :])
        assert healing.tail == tokenizer.decode_bytes(suffix[:tail])
        assert ids == fim(name, tokenizer, prefix[: len(prefix) - typed], suffix[tail:], mode).ids
        prefix_only = heal(tokenizer, fim(name, tokenizer, before, after, mode), suffix=False)
        assert prefix_only == (
            fim(name, tokenizer, prefix[: len(prefix) - typed], suffix, mode).ids,
            Healing(healing.typed),
        )
        typed_in_all += typed
        tail_in_all += tail
    assert typed_in_all > 10
    assert tail_in_all > 10


def fim(name: str, tokenizer: Tokenizer, prefix: Text, suffix: Text, mode: Mode) -> Rendered:
    return formats.fim(FAMILIES[name], tokenizer, prefix, suffix, mode=mode)


def how_many(tokenizer: Tokenizer, ids: list[int], size: int) -> int:
    """Tokens that make up so many bytes."""
    sizes = np.cumsum([0, *(len(tokenizer.pieces[i]) for i in ids)]).tolist()
    return sizes.index(size)


def test_what_a_longer_piece_could_reach_is_taken_back_and_no_more(tokenizer: Tokenizer) -> None:
    """By trying every cut of every piece."""
    text = CODE[CODE.index("def _set_new_attribute") :][:60]
    cuts = [(piece[:k], piece[k:]) for piece in tokenizer.pieces for k in range(1, len(piece))]
    for cut in range(len(text) + 1):
        before, after = text[:cut].encode(), text[cut:].encode()
        prompt = fim("codelm", tokenizer, text[:cut], text[cut:], "psm")
        _, healing = heal(tokenizer, prompt)
        reached = max((len(left) for left, _ in cuts if before.endswith(left)), default=0)
        assert len(healing.typed) == at_least(tokenizer, tokenizer.encode(text[:cut])[::-1], reached), text[:cut]
        reached = max((len(right) for _, right in cuts if after.startswith(right)), default=0)
        assert len(healing.tail) == at_least(tokenizer, tokenizer.encode(text[cut:]), reached), text[cut:]


def at_least(tokenizer: Tokenizer, ids: list[int], size: int) -> int:
    """Bytes of as few whole tokens as have so many."""
    sizes = np.cumsum([0, *(len(tokenizer.pieces[i]) for i in ids)]).tolist()
    return min(each for each in sizes if each >= size)


def test_the_text_of_other_files_is_left_alone(tokenizer: Tokenizer) -> None:
    repo = Repository([File("q.py", "import o")], "name")
    prompt = formats.fim(FAMILIES["codelm"], tokenizer, "", "", path="p.py", repo=repo)
    assert heal(tokenizer, prompt) == (prompt.ids, Healing())
    files = [File("q.py", "import o"), File("p.py", "")]
    prompt = formats.repository(FAMILIES["codelm"], tokenizer, "name", files, end=False)
    assert heal(tokenizer, prompt) == (prompt.ids, Healing())
    asked = formats.fim(FAMILIES["codelm"], tokenizer, "import o", "", path="p.py", repo=repo)
    ids, healing = heal(tokenizer, asked)
    assert healing.typed
    assert ids[: len(ids) - 2] == asked.ids[: len(ids) - 2]


def test_a_path_right_before_the_prefix_is_left_alone(tokenizer: Tokenizer) -> None:
    """StarCoder2 ends it with a line end, and indentation of which a piece begins with one may follow."""
    prompt = formats.fim(FAMILIES["starcoder2"], tokenizer, "    ", "", path="p.py")
    header = [i for i, role in zip(prompt.ids, prompt.roles, strict=True) if role is Role.CONTEXT]
    ids, healing = heal(tokenizer, prompt)
    assert healing.typed == b"    "
    assert [i for i in ids if tokenizer.pieces[i]] == header


def test_nothing_to_take_back_is_no_constraint(tokenizer: Tokenizer) -> None:
    ends = {tokenizer.special["<|endoftext|>"]}
    for ids in ([], [min(ends)], [*tokenizer.encode("import o"), min(ends)]):
        prompt = formats.text(FAMILIES["codelm"], tokenizer, ids)
        assert heal(tokenizer, prompt) == (prompt.ids, Healing())
    assert Healing().start(tokenizer, ends).allowed() is None


def test_characters_cut_into_bytes_come_back(tokenizer: Tokenizer) -> None:
    text = "漢字 = '\u00e9\U0001f600'"
    for cut in range(len(text)):
        ids, healing = heal(tokenizer, formats.text(FAMILIES["codelm"], tokenizer, text[:cut]))
        assert tokenizer.decode_bytes(ids) + healing.typed == text[:cut].encode()


# ---- stop tokens ----


def test_a_stop_token_spells_nothing() -> None:
    a, ab, abb = 2, 4, 6
    run = Healing(b"ab").start(FULL, {END, ab})
    assert np.flatnonzero(run.allowed()).tolist() == [a, abb]
    with pytest.raises(UserError, match="only stop tokens spell"):
        Healing(b"c").start(NO_B, {END, 5, 6})


def test_runs_of_one_healing_do_not_know_of_each_other() -> None:
    healing = Healing(b"ab", b"b")
    one, other = healing.start(FULL, {END}), healing.start(FULL, {END})
    one.advance(6)
    assert one.allowed()[END]  # type: ignore[index]
    assert np.flatnonzero(other.allowed()).tolist() == [2, 4, 6]
