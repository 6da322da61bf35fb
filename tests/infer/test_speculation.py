"""Drafts change how soon a text is there, never what it is. That this holds beside everything else an engine does is
test_schedules.py's; here are distributions, thousands of prompts, and whether drafting pays."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from jaxtyping import config as shapes

from codelm.config import ModelConfig
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from infer.constraints import Grammar
from infer.device import Costs, Device
from infer.engine import Engine, Options
from infer.healing import Healing
from infer.request import Drafts, Request
from infer.run import Run
from infer.sampling import Sampling
from tests.infer import reference, vocabularies
from tests.infer.models import SCALES, like, tiny_lm, tokenizer

SMALL = Options(rows=3, page=4, chunk=8, steps=3, speculate="always", widths=(3, 6))


@pytest.fixture(autouse=True)
def unchecked_shapes():
    """Checking every call's shapes takes four fifths of the time; the schedules do."""
    shapes.update("jaxtyping_disable", True)
    yield
    shapes.update("jaxtyping_disable", False)


def prompt(seed: int, tokens: int = 10) -> list[int]:
    return np.random.default_rng(seed).integers(64, 500, tokens).tolist()


# ---- the distribution of whole texts ----

VOCAB, LENGTH, DRAWS = 5, 3, 2500
SAMPLING = Sampling(0.8, top_p=0.95, repetition_penalty=1.2, presence_penalty=0.3, logit_bias={2: 0.5})


def five_tokens() -> LM:
    """A model of five tokens, no two equally likely; three of them are text."""
    given = {"depth": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 32, "max_seq_len": 8}
    config = ModelConfig(**given, vocab_size=VOCAB, tied_embeddings=False, compute_dtype="float32", remat="none")
    values = create(config, 3).arrays()
    larger = {name: value * SCALES.get(name.removeprefix("blocks."), 1.0) for name, value in values.items()}
    model = Transformer(config, larger | {"head": larger["head"] / 4})
    return LM(config, model, vocabularies.tiny("a", "b", "ab"), "codelm")


Outcome = tuple[tuple[int, ...], str]  # the tokens of a text, and why it ended


def probabilities(lm: LM, request: Request) -> dict[Outcome, float]:
    """Of everything that can come of a request, by enumeration, in float64."""
    found: Counter[Outcome] = Counter()
    assert lm.tokenizer is not None

    def walk(written: list[int], odds: float) -> None:
        constraint = request.restriction.start(lm.tokenizer, request.stop_ids) if request.restriction else None
        for token in written if constraint else ():
            constraint.advance(token)
        scores = reference._scores(lm, (*request.ids, *written))
        allowed = constraint.allowed() if constraint else None
        values = reference.adjusted(scores, request.sampling, list(request.ids), written, allowed)
        weights = np.exp(values - values.max())
        for token in np.flatnonzero(weights):
            then, longer = odds * weights[token] / weights.sum(), [*written, int(token)]
            cut = reference._up_to_a_stop(lm.tokenizer.decode_bytes(longer), request.stop)
            if token in request.stop_ids:
                found[tuple(written), "stop"] += then
            elif cut is not None:
                sizes = np.cumsum([len(lm.tokenizer.pieces[i]) for i in longer])
                found[tuple(longer[: int(np.searchsorted(sizes, len(cut), side="right"))]), "stop"] += then
            elif len(longer) == request.max_new_tokens:
                found[tuple(longer), "length"] += then
            else:
                walk(longer, then)

    walk([], 1.0)
    return found


PLAIN = Request([1, 4], LENGTH, SAMPLING)
HEALED = Request([3, 4], 4, SAMPLING, stop_ids=(0,), stop=("ba",), restriction=Healing(b"ab"))
GRAMMAR = Request([3, 4], 4, SAMPLING, stop_ids=(0,), stop=("aa",), restriction=Grammar("regex", "(ab|b|aab)*b?"))


def surprise(
    lm: LM, request: Request, draft: LM | None, drafts: Sequence[Sequence[int]]
) -> tuple[float, float, list[int]]:
    """Chi-square of what an engine draws against what it should, its degrees of freedom, and what was accepted."""
    engine = Engine(lm, dataclasses.replace(SMALL, rows=32, context=8, widths=(3,)), draft=draft)
    streams = [
        engine.submit(dataclasses.replace(request, seed=seed, drafts=Drafts(expected=drafts[seed % len(drafts)])))
        for seed in range(DRAWS)
    ]
    drawn = Counter((tuple(text.ids), text.finish) for text in (stream.text() for stream in streams))
    expected = {outcome: DRAWS * odds for outcome, odds in probabilities(lm, request).items()}
    assert drawn.keys() <= expected.keys()
    cells = [outcome for outcome, count in expected.items() if count >= 8]
    counts = [(drawn[cell], expected[cell]) for cell in cells]
    counts.append((DRAWS - sum(n for n, _ in counts), DRAWS - sum(e for _, e in counts)))
    return sum((n - e) ** 2 / e for n, e in counts if e > 0), len(counts) - 1, list(engine.stats().accepted)


def limit(freedom: float) -> float:
    """What chi-square exceeds once in a hundred thousand (Wilson and Hilferty)."""
    return freedom * (1 - 2 / (9 * freedom) + 4.26 * np.sqrt(2 / (9 * freedom))) ** 3


DRAFTS = [[2, 2, 0], [2, 3, 3], [4, 3, 2], [4, 1, 2]]


ODDS = [
    *((PLAIN, kind) for kind in ("looking back", "a draft model", "no drafts")),
    (HEALED, "a draft model"),
    (GRAMMAR, "looking back"),
    *(pytest.param(HEALED, kind, marks=pytest.mark.slow) for kind in ("looking back", "no drafts")),
    *(pytest.param(GRAMMAR, kind, marks=pytest.mark.slow) for kind in ("a draft model", "no drafts")),
]


@pytest.mark.parametrize(("request_", "kind"), ODDS)
def test_texts_are_distributed_as_the_model_has_them(request_: Request, kind: str) -> None:
    """With filters and penalties; healed or under a grammar, up to stop tokens and stop strings."""
    lm = five_tokens()
    draft = like(lm, 0.3) if kind == "a draft model" else None
    found, freedom, accepted = surprise(lm, request_, draft, DRAFTS if kind == "looking back" else [[]])
    assert freedom > 8
    assert found < limit(freedom)
    if kind != "no drafts":
        assert min(accepted) > DRAWS / 60


def test_a_rule_that_accepts_too_often_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draft in five that was wrong is kept nevertheless."""
    rng, verify = random.Random(0), Device.verify

    def generous(self: Device, drafts: Mapping[Run, Sequence[int]]) -> dict[Run, list[tuple[int, float]]]:
        written = verify(self, drafts)
        for run, draft in drafts.items():
            if draft and written[run][0][0] != draft[0] and rng.random() < 0.2:
                written[run] = [(draft[0], -1.0)]
        return written

    monkeypatch.setattr(Device, "verify", generous)
    found, freedom, _ = surprise(five_tokens(), PLAIN, None, DRAFTS)
    assert found > limit(freedom)


def test_a_draft_model_that_is_the_model_is_always_right() -> None:
    """Also where tokens are drawn: both draw with the same noise."""
    lm = tiny_lm()
    engine = Engine(lm, SMALL, draft=lm)
    for seed in range(20):
        engine.submit(Request(prompt(seed, 7), 20, Sampling(1.0, top_p=0.9), seed)).text()
    stats = engine.stats()
    assert stats.drafted == stats.accepted
    assert stats.passes < 20 * 20 / 4


def test_a_draft_model_that_fails_spoils_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    expected = Engine(lm, SMALL).submit(Request(prompt(1, 7), 36)).text()
    engine, decode = Engine(lm, SMALL, draft=like(lm, 0.03)), Device.decode
    failures = iter([False, True, False, True])

    def failing(self: Device, most: Mapping[Run, int]) -> dict[Run, list[tuple[int, float]]]:
        if self is engine.drafter.device and next(failures, False):
            raise RuntimeError("out of memory")
        return decode(self, most)

    monkeypatch.setattr(Device, "decode", failing)
    assert engine.submit(Request(prompt(1, 7), 36)).text() == expected
    stats = engine.stats()
    assert (stats.failed, stats.broken_steps) == (0, 0)
    assert stats.accepted[0]
    assert next(failures, None) is None  # all of them were met
    assert all(count.held == 0 for count in engine.drafter.pages.counts())


# ---- thousands of prompts ----


@pytest.mark.parametrize(
    "kind",
    ["looking back", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("a draft model", "further heads"))],
)
def test_greedy_texts_are_those_of_the_simple_decoder(kind: str) -> None:
    lm = with_heads(tiny_lm()) if kind == "further heads" else tiny_lm()
    engine = Engine(lm, SMALL, draft=like(lm, 0.03) if kind == "a draft model" else None)
    prompts = [prompt(seed, 3 + seed % 9) for seed in range(500)]
    streams = [engine.submit(Request(ids, 12, share=i % 3 > 0)) for i, ids in enumerate(prompts)]
    found = [stream.text().ids for stream in streams]
    expected = [ids for i in range(0, 500, 250) for ids in lm.complete(prompts[i : i + 250], 12)]
    for ids, ours, theirs in zip(prompts, found, expected, strict=True):
        if ours != theirs:
            at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
            best, second = np.sort(reference._scores(lm, (*ids, *theirs[:at])))[::-1][:2]
            assert best - second < reference.MARGIN
    assert engine.stats().accepted[0] > 15


def test_penalties_count_what_a_draft_has_before() -> None:
    """The drafts repeat themselves, as the text does where nothing is penalised."""
    lm, penalties = tiny_lm(), Sampling(repetition_penalty=1.5, frequency_penalty=1.0)
    engine = Engine(lm, SMALL)
    repeating = 0
    for seed in range(30):
        free = engine.submit(Request(prompt(seed), 16, drafts=None)).text().ids
        repeating += len(set(free)) < 12
        request = Request(prompt(seed), 16, penalties, drafts=Drafts(expected=free))
        assert engine.submit(request).text().ids == reference.decoded(lm, request)[0].ids
    assert repeating >= 3


def with_heads(lm: LM) -> LM:
    config = dataclasses.replace(lm.config, mtp_heads=2)
    heads = {name: value for name, value in create(config, 0).arrays().items() if name.startswith("mtp")}
    # The first does nothing to the stream, so that it expects what came last once more; that is often right here.
    values = lm.model.arrays() | {name: value * np.array([[[0.0]], [[1.0]]]) for name, value in heads.items()}
    return dataclasses.replace(lm, config=config, model=Transformer(config, values))


def test_the_further_heads_draft_what_they_expect() -> None:
    lm = with_heads(tiny_lm())
    engine, seen = Engine(lm, dataclasses.replace(SMALL, rows=1)), []
    stream = engine.submit(Request(prompt(1), 12))
    while not stream.finished:
        engine.step()
        seen += [(list(run.ids), list(run.ahead)) for run in stream.runs if run.ahead]
    assert len(seen) > 3
    for ids, ahead in seen:
        hidden = lm.model.hidden(np.array([ids[:-1]]))[0][:, -1:]
        expected = [int(np.argmax(lm.model.logits(lm.model.ahead(hidden, head)))) for head in range(2)]
        assert ahead == expected
    assert [stream.text().ids] == lm.complete([prompt(1)], 12)


# ---- whether it pays ----

CHEAP = Costs(step=1.0, widths={3: 1.2, 6: 1.5})


def steady(monkeypatch: pytest.MonkeyPatch, drafts: Drafts, costs: Costs = CHEAP) -> Engine:
    """An engine that has written one text with these drafts, where calls cost what they are said to."""
    monkeypatch.setattr(Device, "costs_of", lambda self, runs: costs)
    engine = Engine(tiny_lm(), dataclasses.replace(SMALL, speculate="auto"))
    engine.submit(Request(prompt(2), 36, Sampling(1.0), drafts=drafts)).text()
    return engine


def will_be() -> list[int]:
    return Engine(tiny_lm(), SMALL).submit(Request(prompt(2), 36, Sampling(1.0), drafts=None)).text().ids


def test_drafts_that_are_right_are_verified_as_many_at_once_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = steady(monkeypatch, Drafts(expected=will_be())).stats()
    assert stats.passes <= 9
    assert stats.accepted == stats.drafted


def test_drafts_that_are_wrong_are_soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them begin well, with tokens in front that are there, and go on wrongly."""
    ids = will_be()
    wrong = [token for i, each in enumerate(ids[:-1]) for token in (*ids[max(i - 3, 0) : i + 1], (each + 1) % 64, 65)]
    stats = steady(monkeypatch, Drafts([wrong])).stats()
    assert 0 < stats.drafted[0] <= 12
    assert stats.passes >= 30


def test_nothing_is_verified_where_that_costs_more_than_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = steady(monkeypatch, Drafts(expected=will_be()), Costs(step=1.0, widths={3: 4.0, 6: 9.0})).stats()
    assert sum(stats.drafted) == 0


def test_before_it_is_warm_nothing_is_drafted() -> None:
    engine = Engine(tiny_lm(), dataclasses.replace(SMALL, speculate="auto"))
    engine.submit(Request(prompt(2), 12, drafts=Drafts(expected=prompt(3)))).text()
    assert sum(engine.stats().drafted) == 0


# ---- constraints ----


@pytest.mark.parametrize(
    "restriction", [Grammar("regex", "([a-z]{1,4} = [0-9]+,? ?){2,4}"), Healing(b"return tot"), Healing(b"re", b" n")]
)
def test_a_constraint_taken_back_is_as_if_it_had_never_gone_on(restriction: Grammar | Healing) -> None:
    rng = random.Random(0)
    for _ in range(20):
        plain, wandering = (restriction.start(tokenizer(), [1]) for _ in range(2))
        for _ in range(12):
            taken = 0
            for _ in range(rng.randrange(4)):
                there = allowed(wandering)
                if not there:
                    break
                wandering.advance(rng.choice(there))
                taken += 1
            wandering.rewind(taken)
            there = allowed(plain)
            assert allowed(wandering) == there
            if not there:
                break
            token = rng.choice(there)
            plain.advance(token)
            wandering.advance(token)


def allowed(run) -> list[int]:  # type: ignore[no-untyped-def]
    """But for its end."""
    try:
        mask = run.allowed()
    except UserError:
        return []
    return [int(i) for i in np.flatnonzero(mask) if i != 1] if mask is not None else list(range(64, 500))


# ---- bad input ----


def test_a_draft_model_must_fit() -> None:
    lm = tiny_lm()
    with pytest.raises(UserError, match="the draft model's vocabulary of 5 tokens is not the model's of 512"):
        Engine(lm, SMALL, draft=five_tokens())
    short = dataclasses.replace(lm, config=dataclasses.replace(lm.config, max_seq_len=16))
    with pytest.raises(UserError, match="the draft model reads 16 tokens at most, and the context is 48"):
        Engine(lm, SMALL, draft=short)
    with pytest.raises(UserError, match="leave one of the two out"):
        Engine(lm, dataclasses.replace(SMALL, speculate="never"), draft=lm)
    for widths in ((), (1, 4), (4, 4), (8, 4)):
        with pytest.raises(UserError, match="widths must be from 2 on and grow"):
            Engine(lm, dataclasses.replace(SMALL, widths=widths))
