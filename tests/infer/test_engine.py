"""What an engine promises, one by one. That all of it holds at once is test_schedules.py's."""

import dataclasses
import gc
import random
import threading

import jax
import numpy as np
import pytest

from codelm.config import MoEConfig
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from infer.device import Device
from infer.engine import Engine, Options
from infer.request import Request
from infer.run import Run
from infer.sampling import Sampling
from tests.infer.models import tiny_lm

SMALL = Options(rows=3, page=4, chunk=8, steps=3)


@pytest.fixture(scope="module")
def lm() -> LM:
    return tiny_lm()


@pytest.fixture
def engine(lm: LM) -> Engine:
    return Engine(lm, SMALL)


def prompt(seed: int, tokens: int = 10) -> list[int]:
    return np.random.default_rng(seed).integers(64, 500, tokens).tolist()


def held(engine: Engine) -> int:
    return sum(count.held for count in engine.stats().pages)


# ---- what a reader gets ----


def test_a_text_comes_in_pieces_and_ends_with_a_reason(engine: Engine) -> None:
    stream = engine.submit(Request(prompt(1), 9, logprobs=True))
    events = list(stream)
    assert len(events) > 2
    assert [event.finish for event in events] == [None] * (len(events) - 1) + ["length"]
    whole = engine.submit(Request(prompt(1), 9)).text()
    assert [i for event in events for i in event.ids] == whole.ids
    assert "".join(event.text for event in events) == whole.text
    assert all(event.logprobs is not None and len(event.logprobs) == len(event.ids) for event in events)


def test_a_stop_string_is_never_given_out_not_even_its_beginning(lm: LM, engine: Engine) -> None:
    for seed in range(30):
        free = engine.submit(Request(prompt(seed), 12)).text().text
        for at in range(len(free) - 3):
            stop = free[at : at + 3]
            if "\ufffd" in stop:
                continue
            given = ""
            for event in engine.submit(Request(prompt(seed), 12, stop=(stop,))):
                given += event.text
                assert free[: free.index(stop)].startswith(given)
            assert given == free[: free.index(stop)]
            break


def test_the_best_of_several_come_first(engine: Engine) -> None:
    asked = Request(prompt(3), 6, Sampling(1.5), seed=10, logprobs=True)
    best = engine.submit(dataclasses.replace(asked, n=2, best_of=5)).texts()
    alone = [engine.submit(dataclasses.replace(asked, seed=10 + i)).text() for i in range(5)]
    assert [text.ids for text in best] == [t.ids for t in sorted(alone, key=lambda t: -t.mean_logprob)[:2]]


def test_texts_of_one_request_read_their_prompt_once(engine: Engine) -> None:
    engine.submit(Request(prompt(4, 30), 4, Sampling(1.0), n=3)).texts()
    assert engine.stats().read_tokens == 30


def test_a_deadline_ends_a_text_with_what_there_is(lm: LM) -> None:
    now = [0.0]
    engine = Engine(lm, SMALL, clock=lambda: now[0])
    stream = engine.submit(Request(prompt(5), 20, deadline=1.0))
    for _ in range(3):
        engine.step()
    now[0] = 2.0
    text = stream.text()
    assert text.finish == "deadline"
    assert 0 < len(text.ids) < 20
    assert held(engine) == 0


# ---- ending early ----


def test_a_cancelled_request_costs_nothing_more_and_gives_its_pages_back(engine: Engine) -> None:
    stream = engine.submit(Request(prompt(6), 30))
    for _ in range(4):
        engine.step()
    assert held(engine) > 0
    stream.cancel()
    before = engine.stats().new_tokens, sum(len(run.ids) for run in stream.runs)
    engine.step()
    assert held(engine) == 0
    assert (engine.stats().new_tokens - before[0], sum(len(run.ids) for run in stream.runs)) == (
        before[1] - 10,
        before[1],
    )
    assert stream.text().finish == "cancelled"


def test_a_thousand_readers_that_leave_leave_nothing(engine: Engine) -> None:
    rng = random.Random(0)

    def come_and_go(times: int) -> int:
        for _ in range(times):
            stream = engine.submit(Request(prompt(rng.randrange(50), rng.randrange(1, 20)), 8))
            for _ in range(rng.randrange(4)):
                engine.step()
            stream.cancel()
        while engine.step():
            pass
        gc.collect()
        return sum(isinstance(thing, Run) for thing in gc.get_objects())

    come_and_go(100)
    arrays = len(jax.live_arrays())
    assert come_and_go(1000) <= 4
    assert len(jax.live_arrays()) <= arrays + 4  # a view more or less
    assert held(engine) == 0


# ---- what goes wrong ----


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> int:
    """A token at which every call to the device fails, as donated arrays do: used up and nothing returned."""
    token, whole = 499, Device._decode

    def failing(self: Device, resident, most):  # type: ignore[no-untyped-def]
        if any(token in run.ids for run in most):
            jax.tree.map(lambda x: x.delete(), self.pages)
            raise RuntimeError("the device is on fire")
        return whole(self, resident, most)

    monkeypatch.setattr(Device, "_decode", failing)
    return token


def test_a_request_that_breaks_a_step_ends_alone(lm: LM, engine: Engine, poisoned: int) -> None:
    expected = [Engine(lm, SMALL).submit(Request(prompt(seed), 8)).text() for seed in (1, 2)]
    for _ in range(2):  # and again: it cannot take the engine down twice
        good = [engine.submit(Request(prompt(seed), 8)) for seed in (1, 2)]
        bad = engine.submit(Request([*prompt(3), poisoned], 8))
        assert [stream.text() for stream in good] == expected
        assert bad.text().finish == "error"
        assert "the device is on fire" in bad.text().error
        assert held(engine) == 0
    assert engine.stats().failed == 2


def test_scores_that_are_no_numbers_are_an_error(lm: LM) -> None:
    arrays = lm.model.arrays()
    broken = dataclasses.replace(lm, model=Transformer(lm.config, arrays | {"head": arrays["head"] * np.nan}))
    text = Engine(broken, SMALL).submit(Request(prompt(1), 4)).text()
    assert (text.finish, text.ids) == ("error", [])
    assert "not numbers" in text.error


def test_an_error_of_a_constraint_is_its_requests(engine: Engine) -> None:
    class Failing:
        def start(self, tokenizer, end_ids):  # type: ignore[no-untyped-def]
            return self

        def allowed(self):  # type: ignore[no-untyped-def]
            raise ValueError("no such rule")

        def advance(self, token):  # type: ignore[no-untyped-def]
            """Never called."""

        rewind = advance

    good = engine.submit(Request(prompt(1), 6))
    bad = Request(prompt(2), 6)
    object.__setattr__(bad, "restriction", Failing())
    assert "no such rule" in engine.submit(bad).text().error
    assert good.text().finish == "length"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"ids": []}, "ids are empty"),
        ({"ids": [512]}, "outside the vocabulary"),
        ({"ids": [-1]}, "outside the vocabulary"),
        ({"ids": [70] * 45}, "more than the context of 48"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"n": 0}, "n must"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"seed": -1}, "seed"),
        ({"deadline": 0.0}, "deadline"),
        ({"deadline": float("nan")}, "deadline"),
        ({"stop": ("",)}, "stop string is empty"),
        ({"stop_ids": tuple(range(64, 100))}, "stop_ids"),
        ({"sampling": Sampling(top_p=2.0)}, "top_p"),
        ({"sampling": Sampling(logit_bias={512: 1.0})}, "logit_bias"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(engine: Engine, asked: dict, said: str) -> None:
    other = engine.submit(Request(prompt(1), 6))
    engine.step()
    before = engine.stats()
    with pytest.raises(UserError, match=said):
        engine.submit(Request(**{"ids": prompt(2), "max_new_tokens": 4, **asked}))
    assert engine.stats() == before
    assert other.text().finish == "length"


def test_an_engine_needs_room_for_one_text(lm: LM) -> None:
    with pytest.raises(UserError, match="do not hold one text"):
        Engine(lm, dataclasses.replace(SMALL, memory=1000))


# ---- who goes first, and what it takes ----


@pytest.mark.parametrize("classes", [True, False])
def test_who_waits_at_a_cursor_goes_before_a_batch(lm: LM, classes: bool) -> None:
    engine = Engine(lm, dataclasses.replace(SMALL, classes=classes))
    for seed in range(9):
        engine.submit(Request(prompt(seed, 30), 10, priority="batch"))
    for _ in range(3):
        engine.step()
    urgent = engine.submit(Request(prompt(50, 20), 4, priority="interactive"))
    turns = 0
    while not urgent.finished:
        engine.step()
        turns += 1
    assert (turns <= 8) == classes


def test_a_long_prompt_does_not_hold_up_who_is_writing(engine: Engine) -> None:
    writing = engine.submit(Request(prompt(1), 20))
    while not writing.runs[0].written:
        engine.step()
    reading = engine.submit(Request(prompt(2, 40), 4))
    before = writing.runs[0].written
    turns = 0
    while not reading.runs[0].written:
        engine.step()
        turns += 1
    assert turns >= 5  # chunks of the prompt
    assert writing.runs[0].written - before >= turns - 1


def test_layers_that_slide_hold_their_window(lm: LM) -> None:
    engine = Engine(tiny_lm(window=6), SMALL)
    stream = engine.submit(Request(prompt(1, 8), 38))
    most = {0: 0, 6: 0}
    while not stream.finished:
        engine.step()
        for window, count in zip(sorted(most), engine.stats().pages, strict=True):
            most[window] = max(most[window], count.held)
    assert most[0] >= 11
    assert most[6] <= 5


def test_what_was_read_before_is_not_read_again(engine: Engine) -> None:
    engine.submit(Request(prompt(1, 30), 3)).text()
    read = engine.stats().read_tokens
    stream = engine.submit(Request([*prompt(1, 30), 77], 3))
    stream.text()
    assert (stream.timing.cached_tokens, engine.stats().read_tokens) == (30, read)


def test_readers_in_threads_of_their_own(lm: LM) -> None:
    alone = Engine(lm, SMALL)
    expected = [alone.submit(Request(prompt(seed), 8)).text() for seed in range(8)]
    engine = Engine(lm, SMALL)
    engine.start()
    found: dict[int, object] = {}

    def read(seed: int) -> None:
        found[seed] = engine.submit(Request(prompt(seed), 8)).text()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    engine.close()
    assert [found[seed] for seed in range(8)] == expected
    assert engine.submit(Request(prompt(1), 8)).text() == expected[1]  # and without the thread again
    engine.start()
    assert engine.submit(Request(prompt(2), 8)).text() == expected[2]  # and with another
    engine.close()


def test_nothing_is_compiled_for_weights_that_have_their_place(lm: LM) -> None:
    """As those of a checkpoint have, and new ones do not: programs are compiled for the one or the other."""
    model = Transformer(lm.config, jax.device_put(lm.model.arrays(), jax.devices()[0]))
    engine = Engine(dataclasses.replace(lm, model=model), SMALL)
    engine.warm_up()
    for seed in range(4):
        engine.submit(Request(prompt(seed, 5 + 8 * seed), 9, sampling=Sampling(logit_bias={seed: 1.0}))).text()
    assert engine.stats().compilations == 0


def test_experts_drop_nothing_however_a_prompt_is_cut() -> None:
    moe = MoEConfig(experts=4, top_k=2, expert_width=32, capacity_factor=0.5)
    plain = tiny_lm()
    config = dataclasses.replace(plain.config, moe=moe)
    lm = dataclasses.replace(plain, config=config, model=create(config, 0))
    found = [Engine(lm, dataclasses.replace(SMALL, chunk=chunk)).submit(Request(prompt(1, 30), 8)) for chunk in (4, 32)]
    assert len({tuple(stream.text().ids) for stream in found}) == 1
