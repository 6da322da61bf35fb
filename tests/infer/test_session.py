"""A buffer that is typed in: the same completions as from nothing, and hardly anything read for a keystroke."""

import dataclasses
import random
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codelm import formats
from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.formats import File
from codelm.lm import LM
from codelm.model import create
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer_training import train
from infer.engine import Engine, Options
from infer.request import Request
from infer.session import Session, Sessions
from tests.infer.models import tiny_lm

SOURCE = Path(formats.__file__).read_text()
MODES: list[Mode] = ["psm", "spm"]


@pytest.fixture(scope="module")
def lm() -> LM:
    """It reads 2,400 tokens; random weights."""
    plain = tiny_lm()
    config = dataclasses.replace(plain.config, max_seq_len=2400, depth=1)
    tokenizer = from_proto(train(iter(SOURCE.splitlines(keepends=True)), 512))
    return LM(config, create(config, 0), tokenizer, "codelm")


@pytest.fixture(scope="module")
def engine(lm: LM) -> Engine:
    return Engine(lm, Options(rows=2))


@pytest.fixture
def seen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What is asked of the engine."""
    requests: list[Request] = []
    submit = engine.submit
    monkeypatch.setattr(engine, "submit", lambda request: (requests.append(request), submit(request))[1])
    return requests


@pytest.mark.parametrize("mode", [pytest.param(mode, marks=[pytest.mark.slow] * (mode == "psm")) for mode in MODES])
def test_steady_typing_reads_a_few_tokens_for_a_keystroke(engine: Engine, mode: Mode, seen: list[Request]) -> None:
    """In 2,000 tokens of context; and what is suggested is what an engine without a cache suggests."""
    text, typed = SOURCE[2000:6500], "def window(before, after):\n    return before + after\n"
    session = Session(engine, text, mode=mode)
    cursor, read, asked = text.index("\n\n", 2500) + 1, [], []
    for letter in typed:
        session.edit(cursor, cursor, letter)
        cursor += 1
        answer = session.complete(cursor, 4)
        asked += [(seen[-1], answer.text())] if answer.called else []
        read.append(answer.timing.prompt_tokens - answer.timing.cached_tokens if answer.called else 0)
    assert median(read[1:]) <= 4
    assert max(read[1:]) < 64  # a new line in a prefix-first prompt goes on in the middle as well
    assert len(seen[-1].ids) > 1000
    alone = Engine(engine.lm, Options(rows=1, share=False, speculate="never"))
    assert len(asked) > 20
    for request, text in asked:
        assert alone.submit(request).text().text == text


@pytest.mark.parametrize("mode", MODES)
def test_without_an_anchor_it_asks_what_infill_asks(engine: Engine, mode: Mode) -> None:
    prefix, suffix = SOURCE[:300], SOURCE[400:700]
    session = Session(engine, prefix + suffix, mode=mode, anchored=False)
    assert session.complete(len(prefix), 12).text() == engine.lm.infill(prefix, suffix, 12, mode=mode).text


def test_a_prefix_first_prompt_has_what_was_typed_in_the_middle(engine: Engine, seen: list[Request]) -> None:
    tokenizer = engine.lm.tokenizer
    session = Session(engine, "a = 1\nb\nc = 3\n", mode="psm", healed=False)
    session.edit(7, 7, " = 2")
    session.complete(11, 2).text()
    expected = formats.fim(session.family, tokenizer, "a = 1\n", "\nc = 3\n", mode="psm").ids
    assert seen[-1].ids == expected + tokenizer.encode("b = 2")
    session.edit(11, 11, "\nbb")  # the anchor stays, on another line too
    session.complete(14, 2).text()
    assert seen[-1].ids == expected + tokenizer.encode("b = 2\nbb")
    session.complete(4, 2).text()  # the cursor went to another line, and came back
    assert seen[-1].ids == formats.fim(session.family, tokenizer, "", "1\nb = 2\nbb\nc = 3\n", mode="psm").ids + (
        tokenizer.encode("a = ")
    )
    session.complete(14, 2).text()
    parted = formats.fim(session.family, tokenizer, "a = 1\nb = 2\n", "\nc = 3\n", mode="psm").ids
    assert seen[-1].ids == parted + tokenizer.encode("bb")
    session.edit(3, 5, "")  # what is before the anchor changed
    session.complete(12, 2).text()
    assert seen[-1].ids[: len(expected)] != expected
    session.rest(12)  # and the cursor rested: this line is where the middle begins
    rested = formats.fim(session.family, tokenizer, "a =\nb = 2\n", "\nc = 3\n", mode="psm").ids
    assert seen[-1].ids == rested + tokenizer.encode("bb")


def test_typing_what_is_suggested_calls_no_model(engine: Engine, seen: list[Request]) -> None:
    at, session = 200, Session(engine, SOURCE[:400])
    endless = {"logit_bias": dict.fromkeys(session.ends, -100.0)}
    whole = Session(engine, SOURCE[:400]).complete(at, 40, sampling=endless).text()
    del seen[:]
    beginning = next(iter(session.complete(at, 40, sampling=endless)))  # the rest is still to be written
    assert len(beginning) < len(whole)
    for i, letter in enumerate(beginning):
        session.edit(at + i, at + i, letter)
        answer = session.complete(at + i + 1, 40)
        assert not answer.called
    assert answer.text() == whole[len(beginning) :]
    assert len(seen) == 1
    session.edit(at + len(beginning), at + len(beginning), "\x00")  # another letter
    assert session.complete(at + len(beginning) + 1, 40).called
    assert len(seen) == 2


def test_a_new_request_cancels_the_one_before(engine: Engine) -> None:
    session = Session(engine, SOURCE[:400])
    first = session.complete(200, 40, sampling={"logit_bias": dict.fromkeys(session.ends, -100.0)})
    next(iter(first))
    session.complete(50, 4).text()
    for _ in first:
        pass
    assert first.finish == "cancelled"


def test_what_follows_an_accepted_suggestion_is_begun_at_once(engine: Engine, seen: list[Request]) -> None:
    session = Session(engine, SOURCE[:200])
    text = session.complete(100, 6).text()
    cursor = session.accept(100, text, ahead=6)
    assert session.text == SOURCE[:100] + text + SOURCE[100:200]
    assert cursor == 100 + len(text)
    asked = len(seen)
    answer = session.complete(cursor, 6)
    assert not answer.called
    assert answer.text() == Session(engine, session.text).complete(cursor, 6).text()
    assert len(seen) == asked + 1


def test_resting_reads_ahead(engine: Engine) -> None:
    session = Session(engine, SOURCE[1000:4000], mode="psm")
    session.rest(1500)
    answer = session.complete(1500, 4)
    answer.text()
    assert answer.timing.prompt_tokens - answer.timing.cached_tokens <= 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODES), st.integers(0, 3))
def test_whatever_is_edited_the_prompt_is_of_the_buffer_around_the_cursor(seed: int, mode: Mode, files: int) -> None:
    """In a context too short for it: what is read is a stretch with the cursor in it, and fits."""
    rng, lm = random.Random(seed), tiny_lm()
    lm = dataclasses.replace(lm, config=dataclasses.replace(lm.config, max_seq_len=160))
    engine = ENGINES.setdefault("small", Engine(lm, Options(rows=1)))
    session = Session(engine, SOURCE[: rng.randrange(2000)], path="f.py", mode=mode)
    session.set_files([File(f"f{i}.py", "x = 1\n" * 4) for i in range(files)])
    text = session.text
    for _ in range(12):
        start = rng.randrange(len(text) + 1)
        end = min(start + rng.choice([0, 0, 0, 1, 40, 400]), len(text))
        added = "".join(rng.choices(["x", "\n", " = ", "\t"], k=rng.choice([0, 1, 1, 30])))
        session.edit(start, end, added)
        text = text[:start] + added + text[end:]
        assert session.text == text
        cursor = rng.choice([start + len(added), rng.randrange(len(text) + 1)])
        prompt = session._prompt(cursor, 10)
        assert len(prompt.ids) <= 150
        assert 0 <= session.start <= cursor <= session.end <= len(text)
        spelled = {
            role: lm.tokenizer.decode([i for i, of in zip(prompt.ids, prompt.roles, strict=True) if of is role])
            for role in (formats.Role.PREFIX, formats.Role.SUFFIX, formats.Role.TEXT)
        }
        prefix, suffix, typed = spelled.values()
        assert text[session.start : cursor] == prefix + typed
        assert text[cursor : session.end] == suffix
        if mode == "spm":
            assert not typed


ENGINES: dict[str, Engine] = {}


def test_a_window_stays_while_there_is_room_to_type(engine: Engine, seen: list[Request]) -> None:
    text = SOURCE * 3
    session = Session(engine, text, mode="spm")
    cursor, windows = len(text) // 2, set()
    for letter in "x = 'a text of sixty letters that is typed without a pause'\n":
        session.edit(cursor, cursor, letter)
        cursor += 1
        session._prompt(cursor, 20)
        windows.add(session.start)
    assert len(windows) == 1
    assert session.start


def test_other_files_keep_their_order(engine: Engine) -> None:
    session = Session(engine, "", path="f.py")
    for names in ("ab", "ba", "cba", "cb"):
        session.set_files([File(name, name) for name in names])
    assert [file.path for file in session.files] == ["b", "c"]
    with pytest.raises(UserError, match="give the session a path"):
        Session(engine, "").set_files([File("a", "a")])


# ---- bad input ----


def test_what_is_outside_the_buffer_is_refused_and_changes_nothing(engine: Engine) -> None:
    session = Session(engine, "abc")
    for start, end in ((-1, 0), (2, 1), (0, 4), (5, 5)):
        with pytest.raises(UserError, match="is outside the buffer of 3: send the whole text again"):
            session.edit(start, end, "x")
    for cursor in (-1, 4):
        with pytest.raises(UserError, match=r"a cursor at -?[0-9] is outside the buffer of 3 characters"):
            session.complete(cursor)
    assert session.text == "abc"
    with pytest.raises(UserError, match="none for text around the cursor"):
        session.complete(3, 2399)


def test_what_went_wrong_is_told_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """To who asked; the next key asks anew."""
    session = Session(engine, SOURCE[:400])
    with monkeypatch.context() as broken:
        broken.setattr(engine.device, "extend", None)
        broken.setattr(engine.device, "decode", None)
        first = session.complete(200, 4)
        with pytest.raises(UserError, match="not callable"):
            first.text()
    session.edit(200, 200, "a")
    assert session.complete(201, 4).text() == Session(engine, session.text).complete(201, 4).text()


def test_sessions_go_by_name(engine: Engine) -> None:
    sessions = Sessions(engine, most=2)
    with pytest.raises(UserError, match="unknown session 'a': open it with the whole text"):
        sessions.get("a")
    for name in "abc":
        sessions.open(name, name)
        sessions.get(min(sessions.open_))
    assert sorted(sessions.open_) == ["a", "c"]  # b was used longest ago
    sessions.close("a")
    with pytest.raises(UserError, match="unknown session 'a'"):
        sessions.close("a")
