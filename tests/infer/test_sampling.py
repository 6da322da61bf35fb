"""Tokens are those that sorting in float64 would keep, drawn with their exact probabilities, each row for itself."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy import stats

from codelm.errors import UserError
from infer import sampling
from infer.sampling import NOTHING, Sampling, choose, processed, settings

OFF = {"prompt": None, "counts": None, "bias": None, "mask": None}
NEUTRAL = Sampling(temperature=1.0)


# --- The reference: sort, add up, cut --------------------------------------------------------------------------------


def adjusted(scores: np.ndarray, s: Sampling, prompt, counts, bias, mask) -> np.ndarray:
    """One row, in the float32 that scores are in, so that ties are the same ties."""
    scores = (scores + bias).astype(np.float32)
    for i in np.flatnonzero(prompt | (counts > 0)):
        factor = np.float32(s.repetition_penalty)
        scores[i] = scores[i] / factor if scores[i] > 0 else scores[i] * factor
    for i in np.flatnonzero(counts):
        scores[i] -= np.float32(s.frequency_penalty * counts[i])
        scores[i] -= np.float32(s.presence_penalty)
    return np.where(mask, scores, -np.inf)


def softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max())
    return scores / scores.sum()


def kept(scores: np.ndarray, s: Sampling, slack: float = 0.0) -> set[int]:
    """The ids that the filters leave of one adjusted row; `slack` asks for that much more (or less) probability."""
    probabilities = softmax(scores.astype(np.float64) / s.temperature)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if probabilities[i] > 0]
    if s.top_k:
        order = [i for i in order if scores[i] >= scores[order[: s.top_k][-1]]]
    if s.top_p < 1:
        share = probabilities[order] / probabilities[order].sum()
        enough = 1 + int(np.searchsorted(np.cumsum(share), s.top_p + slack))
        order = [i for i in order if scores[i] >= scores[order[:enough][-1]]]
    share, first = probabilities / probabilities[order[0]], scores[order[0]]
    return {i for i in order if share[i] >= s.min_p - slack or scores[i] == first}


def expected(scores: np.ndarray, s: Sampling, ids: set[int]) -> np.ndarray:
    """Probabilities once only `ids` are left of an adjusted row."""
    return softmax(
        np.where(np.isin(np.arange(len(scores)), list(ids)), scores.astype(np.float64), -np.inf) / s.temperature
    )


# --- What is kept, and with which probabilities ----------------------------------------------------------------------

SIZE, ROWS = 37, 3
# Sixteenths, so that products and sums are exact in float32 and a tie is a tie everywhere; few, so that there are ties.
ordinary = st.integers(-64, 64).map(lambda n: n / 16)
extreme = st.sampled_from([1e4, 9999.0, -1e4, -1e30, 0.0, -0.0, 1e-30, -1e-30, 1.0, 1.0 + 2**-23])
row_of_scores = st.one_of(
    st.lists(ordinary, min_size=SIZE, max_size=SIZE),
    st.lists(st.one_of(ordinary, extreme), min_size=SIZE, max_size=SIZE),
    st.integers(0, 2**31).map(lambda n: (np.random.default_rng(n).normal(size=SIZE) * 4).tolist()),
)
anything = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.25, 0.7, 1.0, 1.5, 4.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 36, 37, 1000]),
    top_p=st.one_of(st.sampled_from([1.0, 0.0]), st.floats(0.0, 1.0)),
    min_p=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0)),
    repetition_penalty=st.sampled_from([1.0, 0.5, 2.0, 4.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -1.5, 2.0]),
    presence_penalty=st.sampled_from([0.0, 0.5, -2.0]),
)


@functools.cache
def compiled(sampled: bool, filtered: bool) -> Callable:
    return jax.jit(functools.partial(choose, sampled=sampled, filtered=filtered))


@functools.cache
def compiled_processed(filtered: bool) -> Callable:
    return jax.jit(functools.partial(processed, filtered=filtered))


@st.composite
def problems(draw):
    scores = np.array(draw(st.lists(row_of_scores, min_size=ROWS, max_size=ROWS)), np.float32)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    context = {
        "prompt": rng.random((ROWS, SIZE)) < 0.3,
        "counts": rng.choice([0, 0, 1, 3], size=(ROWS, SIZE)).astype(np.int32),
        "bias": rng.choice([0, 0, 0, 2.5, -8], size=(ROWS, SIZE)).astype(np.float32),
        "mask": rng.random((ROWS, SIZE)) < draw(st.sampled_from([0.1, 0.9, 1.0])),
    }
    context["mask"][np.arange(ROWS), rng.integers(SIZE, size=ROWS)] = True
    return scores, draw(st.lists(anything, min_size=ROWS, max_size=ROWS)), context


@effort(max_examples=300, deadline=None)
@given(problems())
def test_what_is_left_and_its_probabilities_are_those_of_sorting_in_float64(problem):
    scores, samplings, context = problem
    found = np.asarray(compiled_processed(True)(scores, settings(samplings, range(ROWS)), **context))
    for row, s in enumerate(samplings):
        reference = adjusted(scores[row], s, **{name: value[row] for name, value in context.items()})
        left = {int(i) for i in np.flatnonzero(found[row] > -np.inf)}
        if not s.temperature:
            assert left == {int(np.argmax(reference))}
            assert found[row].max() == 0
            continue
        # Tokens of no probability in float64 may have none here either; at a cut, float32 may be off by its precision.
        possible = {i for i in left if softmax(reference.astype(np.float64) / s.temperature)[i] > 0}
        assert kept(reference, s, -2e-6) <= possible <= kept(reference, s, 2e-6)
        with np.errstate(divide="ignore"):
            logprobs = np.log(expected(reference, s, left))
        likely = logprobs > -80
        np.testing.assert_allclose(found[row][likely], logprobs[likely], rtol=2e-5, atol=2e-5)


def test_top_k_keeps_k_or_more_only_for_ties():
    """Also where temperature would round different scores to the same number; zeros of either sign tie."""
    scores = np.full((1, SIZE), -50, np.float32)
    scores[0, 5:11] = [1000, 2**-24, 2**-23, 2**-23, -0.0, 0.0]
    for k, left in [(1, {5}), (2, {5, 7, 8}), (3, {5, 7, 8}), (4, {5, 6, 7, 8}), (5, {5, 6, 7, 8, 9, 10})]:
        s = Sampling(temperature=1000.0, top_k=k)
        found = compiled_processed(True)(scores, settings([s], [0]), **OFF)
        assert set(np.flatnonzero(np.asarray(found)[0] > -np.inf)) == left


def test_top_p_counts_only_what_top_k_left():
    """Halves of four: 0.4 of what top-k leaves is 0.4, of all 0.32."""
    scores = np.log(np.array([[0.32, 0.24, 0.24, 0.2] + [1e-30] * (SIZE - 4)], np.float32))
    s = Sampling(temperature=1.0, top_k=3, top_p=0.39)
    found = np.asarray(compiled_processed(True)(scores, settings([s], [0]), **OFF))
    assert set(np.flatnonzero(found[0] > -np.inf)) == {0}
    alone = np.asarray(compiled_processed(True)(scores, settings([Sampling(1.0, top_p=0.39)], [0]), **OFF))
    assert set(np.flatnonzero(alone[0] > -np.inf)) == {0, 1, 2}  # 1 and 2 tie


# --- Draws have these probabilities ----------------------------------------------------------------------------------

DRAWS = 4096
BASE = np.random.default_rng(1).normal(size=SIZE).astype(np.float32) * 2


def draws(s: Sampling, steps: int = 5) -> np.ndarray:
    """Tokens [steps, DRAWS] of rows with the same scores, told apart by their seeds and, down the steps, the index."""
    scores, rows = np.tile(BASE, (DRAWS, 1)), settings([s] * DRAWS, range(DRAWS))
    one = compiled_draws(s.sampled, s.filtered)
    return np.stack([one(scores, rows, np.full(DRAWS, step, np.int32)).token for step in range(steps)])


noise_of = jax.jit(sampling._noise, static_argnums=2)


@functools.cache
def compiled_draws(sampled: bool, filtered: bool) -> Callable:
    # Not compiled(): a patched module must not leave what it compiled behind.
    return jax.jit(lambda *arguments: choose(*arguments, sampled=sampled, filtered=filtered))


def chance(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    """How often draws from these probabilities are at least that far from them (chi-square, rare tokens pooled)."""
    seen, wanted = np.bincount(tokens.ravel(), minlength=SIZE), probabilities * tokens.size
    if seen[probabilities == 0].any():
        return 0.0
    rare = wanted < 10
    pool = lambda values: np.append(values[~rare], values[rare].sum())  # noqa: E731
    seen, wanted = pool(seen), pool(wanted)
    return float(stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue)


SAMPLED = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.6),
    Sampling(temperature=1.4, top_k=6),
    Sampling(temperature=1.0, top_p=0.8),
    Sampling(temperature=1.2, top_k=20, top_p=0.9, min_p=0.1),
]


@pytest.mark.parametrize("s", SAMPLED, ids=str)
def test_tokens_are_drawn_with_their_exact_probabilities(s):
    assert chance(draws(s), expected(BASE, s, kept(BASE, s))) > 1e-3


def test_the_same_test_sees_a_temperature_that_is_off_by_a_twentieth():
    off = Sampling(temperature=1.05)
    assert chance(draws(NEUTRAL), expected(BASE, off, kept(BASE, off))) < 1e-6


def test_the_same_test_sees_noise_of_another_shape(monkeypatch):
    right = sampling._noise
    monkeypatch.setattr(sampling, "_noise", lambda *of: jnp.sign(right(*of)) * jnp.abs(right(*of)) ** 1.05)
    compiled_draws.cache_clear()
    assert chance(draws(NEUTRAL), expected(BASE, NEUTRAL, kept(BASE, NEUTRAL))) < 1e-6
    compiled_draws.cache_clear()


@pytest.mark.parametrize("axis", ["one index and the next", "one seed and the next"])
def test_draws_know_nothing_of_each_other(axis):
    tokens = np.minimum(draws(Sampling(temperature=1.4, top_k=6), steps=8), SIZE)
    one, other = (tokens[:-1], tokens[1:]) if "index" in axis else (tokens[:, :-1], tokens[:, 1:])
    ids = np.unique(tokens)
    pairs = np.array([[np.sum((one == a) & (other == b)) for b in ids] for a in ids])
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_noise_has_the_tail_that_unlikely_tokens_are_drawn_by():
    noise = np.asarray(noise_of(np.arange(64, dtype=np.uint32), np.zeros(64, np.int32), 2**17))
    assert np.isfinite(noise).all()
    for bound in (-1.0, 0.0, 5.0, 10.0, 13.0):
        wanted = noise.size * -np.expm1(-np.exp(-bound))
        assert abs(np.sum(noise > bound) - wanted) < 4 * np.sqrt(wanted)


# --- Rows are alone --------------------------------------------------------------------------------------------------

WIDE = 1000  # at which XLA on a CPU sums rows in another order when there are fewer than eight
MANY = [
    Sampling(),
    Sampling(temperature=0.8),
    Sampling(temperature=1.3, top_k=40),
    Sampling(temperature=0.9, top_p=0.9),
    Sampling(temperature=2.0, min_p=0.02),
    Sampling(temperature=1.0, top_k=300, top_p=0.5, min_p=0.01),
    Sampling(temperature=0.7, repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.1, top_p=0.99),
    Sampling(repetition_penalty=1.2, presence_penalty=1.1),
]


def batch(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    shape = (len(MANY), WIDE)
    return {
        "scores": (rng.normal(size=shape) * 2).astype(np.float32),
        "index": rng.integers(0, 1000, size=len(MANY)).astype(np.int32),
        "prompt": rng.random(shape) < 0.1,
        "counts": rng.poisson(0.05, size=shape).astype(np.int32),
        "bias": (rng.normal(size=shape) * (rng.random(shape) < 0.01)).astype(np.float32),
        "mask": rng.random(shape) < 0.95,
    }


def of_rows(rows: list[int], **arrays: np.ndarray) -> dict:
    chosen = settings([MANY[row] for row in rows], [1000 + row for row in rows])
    return dict({name: value[rows] for name, value in arrays.items()}, rows=chosen)


def run(call: dict, sampled: bool = True, filtered: bool = True) -> list[tuple[int, float]]:
    found = compiled(sampled, filtered)(**call)
    return list(zip(found.token.tolist(), found.logprob.tolist(), strict=True))


@jax.jit
def compiled_both(index, **call):
    return choose(index=index, sampled=True, filtered=True, **call), processed(filtered=True, **call)


def bits(call: dict) -> list[tuple[int, float, bytes]]:
    """Token, log-probability and all processed log-probabilities of each row."""
    (token, logprob), left = compiled_both(**call)
    return list(zip(token.tolist(), logprob.tolist(), map(bytes, np.asarray(left)), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_row_gets_the_same_bits_wherever_it_is_and_however_many_are_beside_it(seed):
    arrays, everyone = batch(seed), list(range(len(MANY)))
    together = bits(of_rows(everyone, **arrays))
    shuffled = [int(row) for row in np.random.default_rng(seed).permutation(everyone)]
    assert bits(of_rows(shuffled, **arrays)) == [together[row] for row in shuffled]
    assert [bits(of_rows([row], **arrays))[0] for row in everyone] == together
    assert bits(of_rows([5, 2, 6], **arrays)) == [together[row] for row in (5, 2, 6)]


@pytest.mark.parametrize("row", range(len(MANY)))
def test_a_row_gets_the_same_bits_whatever_the_others_are(row):
    """Other scores, NaN and nothing allowed among them, with other settings and other seeds."""
    arrays, others = batch(0), batch(1)
    others["scores"][(row + 1) % len(MANY)] = np.nan
    others["mask"][(row + 2) % len(MANY)] = False
    for name, value in others.items():
        value[row] = arrays[name][row]
    places = [row if place == row else (place * 3 + 1) % len(MANY) for place in range(len(MANY))]
    chosen = settings([MANY[place] for place in places], [1000 + place for place in places])
    assert bits(others | {"rows": chosen})[row] == bits(of_rows(list(range(len(MANY))), **arrays))[row]


def test_a_seed_gives_the_same_tokens_again_and_another_seed_or_index_others():
    scores = np.zeros((4, SIZE), np.float32)
    chosen = settings([NEUTRAL] * 4, [7, 7, 7, 8])
    tokens = lambda index: compiled(True, False)(scores, chosen, np.array(index, np.int32), **OFF).token  # noqa: E731
    lines = np.stack([tokens([i, i, i + 100, i]) for i in range(20)])
    assert (lines[:, 0] == lines[:, 1]).all()
    assert (lines[:, 0] != lines[:, 2]).sum() > 15
    assert (lines[:, 0] != lines[:, 3]).sum() > 15


def test_noise_of_a_token_does_not_depend_on_the_size_of_the_vocabulary():
    seeds, index = np.array([3], np.uint32), np.array([4], np.int32)
    long, short = (np.asarray(noise_of(seeds, index, size)) for size in (WIDE, SIZE))
    np.testing.assert_array_equal(long[:, :SIZE], short)


# --- Whichever variant -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_variant_that_a_row_permits_gives_it_the_same_token(seed):
    arrays, everyone = batch(seed), list(range(len(MANY)))
    call = of_rows(everyone, **arrays)
    full, unfiltered, greedy = run(call), run(call, filtered=False), run(call, sampled=False, filtered=False)
    for row, s in enumerate(MANY):
        if not s.filtered:
            assert unfiltered[row] == full[row]
        if not s.sampled:
            assert greedy[row] == full[row]
    # And what is not needed may be left out: neutral context is no context.
    plain = call | {
        "prompt": np.zeros_like(call["prompt"]),
        "counts": np.zeros_like(call["counts"]),
        "bias": np.zeros_like(call["bias"]),
        "mask": np.ones_like(call["mask"]),
    }
    assert run(plain) == run(call | OFF)


def test_greedy_takes_the_first_of_the_likeliest():
    scores = np.array([[0, 3, 3, 1], [5, 5, 5, 5], [-2, -1, -3, -1]], np.float32)
    rows = settings([Sampling()] * 3, [0] * 3)
    found = compiled(False, False)(scores, rows, np.zeros(3, np.int32), **OFF)
    assert found.token.tolist() == [1, 0, 1]


def test_processed_is_what_choose_draws_from():
    """Greatest of log-probabilities plus the noise of that seed and index."""
    call = of_rows(list(range(len(MANY))), **batch(9))
    index = call["index"]
    logprobs = compiled_processed(True)(**{name: value for name, value in call.items() if name != "index"})
    noise = np.where(np.array([[s.sampled] for s in MANY]), noise_of(call["rows"].seed, index, WIDE), 0)
    assert np.argmax(logprobs + noise, -1).tolist() == [token for token, _ in run(call)]


# --- Log-probabilities, and rows with nothing to take ----------------------------------------------------------------


def test_logprobs_are_the_models_own_before_any_processing():
    call = of_rows(list(range(len(MANY))), **batch(3))
    for row, (token, logprob) in enumerate(run(call)):
        assert logprob == pytest.approx(np.log(softmax(call["scores"][row].astype(np.float64))[token]), abs=2e-5)


@pytest.mark.parametrize("sampled", [False, True])
def test_a_row_with_nothing_to_take_says_so_without_nan(sampled):
    """Also when the mask forbids the very token whose score is NaN: a model that makes one is not to be trusted."""
    scores, mask = np.zeros((5, SIZE), np.float32), np.ones((5, SIZE), bool)
    mask[0] = False
    scores[1, 5], scores[2, 6], scores[3, 7] = np.nan, np.inf, np.nan
    mask[3, 7] = False
    rows = settings([Sampling(temperature=1.0, top_k=5, top_p=0.9)] * 5, range(5))
    context = OFF | {"mask": mask}
    found = compiled(sampled, sampled)(scores, rows, np.zeros(5, np.int32), **context)
    assert found.token[:4].tolist() == [NOTHING] * 4
    assert found.logprob[:4].tolist() == [-np.inf] * 4
    assert 0 <= found.token[4] < SIZE
    left = np.asarray(compiled_processed(True)(scores, rows, **context))
    assert (left[:4] == -np.inf).all()
    assert np.isfinite(left[4].max())


def test_temperatures_far_from_one_do_no_harm():
    scores = np.array([[1e4, 9999, -1e30, -np.inf]] * 4, np.float32)
    coldest = [Sampling(temperature=t, top_p=0.999) for t in (1e-45, 1e-30, 0.01, 1000)]
    rows = settings(coldest, range(4))
    tokens = np.stack([compiled(True, True)(scores, rows, np.full(4, i, np.int32), **OFF).token for i in range(10)])
    assert (tokens[:, :3] == 0).all()
    assert set(tokens[:, 3].tolist()) == {0, 1}


# --- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"temperature": -0.1}, "temperature must be a number from 0 to 1000, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 to 1000, not nan"),
        ({"temperature": float("inf")}, "temperature must be a number from 0 to 1000, not inf"),
        ({"top_k": -1}, "top_k must be a whole number from 0 to 2147483647, not -1"),
        ({"top_p": 1.5}, "top_p must be a number from 0 to 1, not 1.5"),
        ({"top_p": float("nan")}, "top_p must be a number from 0 to 1, not nan"),
        ({"min_p": -0.5}, "min_p must be a number from 0 to 1, not -0.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number from 0.01 to 100, not 0.0"),
        ({"frequency_penalty": 2.5}, "frequency_penalty must be a number from -2 to 2, not 2.5"),
        ({"presence_penalty": -3.0}, "presence_penalty must be a number from -2 to 2, not -3.0"),
        ({"logit_bias": {100: 1.0}}, "a token id in logit_bias must be a whole number from 0 to 99, not 100"),
        ({"logit_bias": {-1: 1.0}}, "a token id in logit_bias must be a whole number from 0 to 99, not -1"),
        ({"logit_bias": {7: float("inf")}}, "logit_bias of token 7 must be a number from -100 to 100, not inf"),
    ],
    ids=str,
)
def test_a_bad_setting_is_named_with_its_value_and_what_is_valid(bad, said):
    with pytest.raises(UserError) as error:
        Sampling(**bad).checked(100)
    assert str(error.value) == said


def test_the_ends_of_the_ranges_are_valid():
    ends = Sampling(temperature=1000.0, top_k=2**31 - 1, top_p=0.0, min_p=1.0, logit_bias={99: -100.0, 0: 100.0})
    assert ends.checked(100) is ends
    chosen = settings([ends], [2**40 + 5])
    assert chosen.top_k[0] == 2**31 - 1
    assert chosen.seed[0] == 5


def test_properties_say_what_a_request_needs():
    needs = lambda s: (s.sampled, s.filtered, s.penalised, s.reads_prompt)  # noqa: E731
    assert needs(Sampling(top_k=5)) == (False, False, False, False)
    assert needs(Sampling(temperature=1.0)) == (True, False, False, False)
    assert needs(Sampling(temperature=1.0, min_p=0.1)) == (True, True, False, False)
    assert needs(Sampling(presence_penalty=1.0)) == (False, False, True, False)
    assert needs(Sampling(repetition_penalty=1.1)) == (False, False, True, True)
