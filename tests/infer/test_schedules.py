"""Whatever else the engine does, a request gets the text it gets alone.

Schedules are drawn at random: requests of every kind arrive, are cancelled, run out of time, give way for want of rows
and pages, find each other's beginnings in the cache; drafts of what comes next are right for a while, or not at all, by
looking back or by a draft model. Each text that is whole must be the reference's, token for token; each that was ended
early a beginning of it. A schedule that fails is made as small as it can be and printed, to be pasted into a test.

    .venv/bin/python -m pytest -m slow tests/infer/test_schedules.py     # a hundred times as many
"""

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from jaxtyping import config

from codelm.lm import LM
from infer.constraints import Grammar
from infer.engine import Engine, Options
from infer.healing import Healing
from infer.request import Drafts, Request, Text
from infer.sampling import Sampling
from tests.infer import reference
from tests.infer.models import like, tiny_lm, tokenizer

SCHEDULES = 100
REQUESTS = 48


class Op(NamedTuple):
    """What happens next: a request of the pool comes, an earlier one is cancelled, the engine takes a turn."""

    kind: str
    number: int
    deadline: float = math.inf


def pool() -> list[Request]:
    rng = random.Random(7)
    code = tokenizer().encode("def mean(values):\n    total = sum(values)\n    return total / len(values)\n")
    beginnings = [code, code[5:] + code, code[:9] + code[3:]]
    samplings = [
        *[Sampling()] * 3,
        Sampling(1.0),
        Sampling(0.7, top_k=5),
        Sampling(1.3, top_p=0.8, min_p=0.01),
        Sampling(0.9, repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2),
        Sampling(1.0, logit_bias={70: 4.0, 71: -100.0}),
        Sampling(repetition_penalty=2.0, frequency_penalty=1.5),
    ]
    requests = []
    for seed in range(REQUESTS):
        ids = rng.choice(beginnings)[: rng.randrange(1, 28)] + [rng.randrange(64, 500) for _ in range(rng.randrange(3))]
        restriction = rng.choice(
            [None] * 5 + [Grammar("regex", "[a-z]{2,6}( [0-9]+)?"), Healing(b"return tot"), Healing(b"", b"n")]
        )
        requests.append(
            Request(
                ids,
                rng.randrange(1, 11),
                rng.choice(samplings),
                seed,
                stop_ids=(1,) if isinstance(restriction, Grammar) else rng.choice([(), (1,), tuple(range(64, 94))]),
                stop=rng.choice([(), (), ("e",), ("zz", "re")]) if restriction is None else (),
                logprobs=True,
                n=rng.choice([1, 1, 1, 3]),
                priority=rng.choice(["interactive", "batch"]),
                restriction=restriction,
                share=rng.random() < 0.9,
            )
        )
    return requests


def drawn(seed: int) -> list[Op]:
    rng = random.Random(seed)
    ops: list[Op] = []
    for number in range(rng.randrange(3, 9)):
        ops.append(Op("submit", rng.randrange(REQUESTS), rng.choice([math.inf] * 5 + [rng.random() * 4])))
        ops += [Op("step", 0)] * rng.randrange(5)
        if rng.random() < 0.25:
            ops.append(Op("cancel", rng.randrange(number + 1)))
        if rng.random() < 0.05:
            ops.append(Op("forget", 0))
    return ops


class World:
    """An engine that has too little of everything, a clock that goes with its steps, and what is expected."""

    def __init__(self, lm: LM, draft: LM | None = None, warm: bool = True, **options: object) -> None:
        self.lm, self.now = lm, 0.0
        given = {
            "rows": 3,
            "page": 4,
            "chunk": 8,
            "steps": 3,
            "memory": 20 * 4 * 2 * lm.config.depth * 16 * 4,
            "speculate": "always",
            "widths": (3, 6),
            **options,
        }
        self.engine = Engine(lm, Options(**given), draft=draft, clock=lambda: self.now)  # type: ignore[arg-type]
        if warm:
            self.engine.warm_up()
        self.requests = [self.with_drafts(number, request) for number, request in enumerate(pool())]
        self.ties = 0
        self.kept: set[int] = set()  # the groups of pages that beginnings stayed in

    def with_drafts(self, number: int, request: Request) -> Request:
        """What it will write, in part, or something else, or no drafts at all."""
        rng = random.Random(number)
        will = list(expected(self.lm, number, 0)[0].ids)
        if rng.random() < 0.7:
            start, end = sorted(rng.randrange(len(will) + 1) for _ in range(2))
            will[start:end] = [rng.randrange(64, 500)]
        drafts = rng.choice([None, *[Drafts(expected=will)] * 3, Drafts([will[1:]])])
        return dataclasses.replace(request, drafts=drafts)

    def play(self, ops: list[Op]) -> str:
        """What went wrong, if anything did."""
        streams = []
        for op in ops:
            if op.kind == "submit":
                request = dataclasses.replace(self.requests[op.number], deadline=op.deadline)
                streams.append((op.number, self.engine.submit(request)))
            elif op.kind == "cancel" and op.number < len(streams):
                streams[op.number][1].cancel()
            elif op.kind == "forget":
                self.engine.pages.forget()
            elif op.kind == "step":
                self.turn()
        for _ in range(2000):
            if all(stream.finished for _, stream in streams):
                break
            self.turn()
        else:
            return "it does not end"
        wrong = [self.differs(number, i, text) for number, s in streams for i, text in enumerate(s.texts())]
        counts = self.engine.pages.counts()
        self.kept |= {group for group, count in enumerate(counts) if count.cached}
        wrong += [f"pages are lost: {c}" for c in counts if c.held or c.free + c.cached != c.total]
        return next((each for each in wrong if each), "")

    def turn(self) -> None:
        self.engine.step()
        self.now += 0.25

    def differs(self, number: int, sample: int, text: Text) -> str:
        expected, margins = self.expected(number, sample)
        if text.finish in ("cancelled", "deadline"):
            same = text.ids == expected.ids[: len(text.ids)] and expected.text.startswith(text.text.rstrip("\ufffd"))
        else:
            same = (text.ids, text.text, text.finish) == (expected.ids, expected.text, expected.finish)
            same = same and all(abs(a - b) < 1e-3 for a, b in zip(text.logprobs, expected.logprobs, strict=True))
        if same:
            return ""
        at = next((i for i, (a, b) in enumerate(zip(text.ids, expected.ids, strict=False)) if a != b), len(text.ids))
        if margins[min(at, len(margins) - 1)] < reference.MARGIN:
            self.ties += 1
            return ""
        return f"request {number}, text {sample}: {text} is not {expected}"

    def expected(self, number: int, sample: int) -> tuple[Text, list[float]]:
        return expected(self.lm, number, sample)


EXPECTED: dict[tuple[int, int, int], tuple[Text, list[float]]] = {}


def expected(lm: LM, number: int, sample: int) -> tuple[Text, list[float]]:
    key = (id(lm), number, sample)
    if key not in EXPECTED:
        EXPECTED[key] = reference.decoded(lm, pool()[number], sample)
    return EXPECTED[key]


def smallest(ops: list[Op], fails: Callable[[list[Op]], bool]) -> list[Op]:
    """Fewer and fewer of what happens, for as long as it fails: halves first, then one by one."""
    size = len(ops) // 2
    while size:
        at = 0
        while at < len(ops):
            fewer = ops[:at] + ops[at + size :]
            if fails(fewer):
                ops = fewer
            else:
                at += size
        size //= 2
    return ops


def check(make: Callable[[], World], first: int, count: int) -> World:
    world = make()
    for seed in range(first, first + count):
        with unchecked_shapes(seed >= first + 8):
            wrong = world.play(drawn(seed))
        if wrong:
            least = smallest(drawn(seed), lambda ops: bool(make().play(ops)))
            pytest.fail(f"schedule {seed}: {wrong}\nthe least that fails: {least!r}: {make().play(least)}")
    return world


WORLDS: dict[str, Callable[[], World]] = {
    "no drafts": lambda: World(tiny_lm(), speculate="never"),
    "drafts": lambda: World(tiny_lm()),
    "drafts, layers that slide": lambda: World(tiny_lm(6)),
    "a draft model, layers that slide": lambda: World(tiny_lm(6), like(tiny_lm(6), 0.05)),
}


@contextmanager
def unchecked_shapes(unchecked: bool) -> Iterator[None]:
    """Checking every call's shapes takes four fifths of the time: enough of them have been seen."""
    config.update("jaxtyping_disable", unchecked)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "drafts")) for kind in WORLDS])
def test_every_text_is_what_it_is_alone(kind: str) -> None:
    count = SCHEDULES // 2 if "model" in kind else SCHEDULES
    world = check(WORLDS[kind], 0, count)
    stats = world.engine.stats()
    assert stats.compilations == 0  # since it was warm
    assert stats.broken_steps == 0  # which trying again would hide
    assert world.ties <= 3
    # What the schedules are for did happen.
    assert min(stats.preempted, stats.cancelled, stats.expired) > count / 20
    assert stats.cached_tokens > count
    assert len(world.kept) == len(stats.pages)
    if kind != "no drafts":
        assert min(stats.accepted[0], stats.drafted[0] - stats.accepted[0], stats.accepted[1]) > count / 10


def test_keys_and_values_in_eight_bits_are_what_they_are_alone() -> None:
    """Here the reference is the engine by itself: eight bits are not what the plain forward pass has."""
    lm = tiny_lm()
    alone = Engine(lm, Options(rows=1, page=4, chunk=8, steps=3, cache="int8", share=False))
    found = [alone.submit(request).texts() for request in pool()]

    class Eight(World):
        def expected(self, number: int, sample: int) -> tuple[Text, list[float]]:
            return found[number][sample], [math.inf]

    world = check(lambda: Eight(lm, cache="int8", memory=0), 0, SCHEDULES // 4)
    assert world.engine.stats().compilations == 0
    plain = [expected(lm, number, 0)[0].logprobs for number in range(REQUESTS)]
    assert [texts[0].logprobs for texts in found] != plain  # it was in eight bits


def test_a_planted_error_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts that are written at once spoil each other: two submits and a turn show it."""
    from infer.device import Device

    whole = Device.decode

    def spoiled(self: Device, most):  # type: ignore[no-untyped-def]
        written = whole(self, most)
        numbers = {run.request.seed % 2 for run in written}
        return {
            run: [((t + 1) % 500, p) for t, p in tokens] if len(numbers) == 2 else tokens
            for run, tokens in written.items()
        }

    monkeypatch.setattr(Device, "decode", spoiled)

    def fails(ops: list[Op]) -> bool:
        return bool(World(tiny_lm(), warm=False).play(ops))

    least = smallest(next(ops for ops in map(drawn, range(50)) if fails(ops)), fails)
    assert sorted(op.kind for op in least)[-2:] == ["submit", "submit"]
    assert sum(op.kind == "submit" for op in least) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORLDS)
def test_a_hundred_times_as_many(kind: str) -> None:
    world = check(WORLDS[kind], SCHEDULES, 100 * SCHEDULES)
    assert world.ties < SCHEDULES
