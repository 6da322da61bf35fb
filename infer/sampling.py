"""From scores to the next token, on device, for a batch of rows that know nothing of each other.

What happens to a row's scores, in this order: logit bias is added; penalties (repetition, then frequency and presence);
tokens that the mask forbids are removed; temperature; top-k; top-p of what is left, renormalised; min-p, relative to
the likeliest. Then one token is drawn; at temperature 0 the likeliest is taken, the lower id of equals, and no filter
matters. Top-k and top-p cut at a score, so tokens that tie with the last one kept are kept too.

A row's token depends on its own scores, settings, seed and index, bit for bit, wherever it stands and whatever stands
beside it. So sums of floats run in an order that only the vocabulary's size decides (XLA's own order may depend on the
batch), and a token's noise is a function of (seed, index, token id). The vocabulary is never sorted, which XLA does
slowly: a cut is found by bisection.

Knows nothing of requests, text, tokenizers or meshes: scores come whole on every device.

>>> rows = settings([Sampling(), Sampling(temperature=0.8, top_p=0.95)], seeds=[0, 7])
>>> choose(scores, rows, index, sampled=True, filtered=True).token  # Int[Array, "2"]  # doctest: +SKIP
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Bool, Float, Int, UInt32

from codelm.errors import UserError

NOTHING = -1  # the token of a row that has none to take
MAX_BIAS = 100.0  # as OpenAI has it
# What fields may be, both ends included: frequency and presence as OpenAI has them, the rest far from float32's ends.
RANGES = {
    "temperature": (0.0, 1000.0),
    "top_k": (0.0, 2.0**31 - 1),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}
TINY = float(np.finfo(np.float32).tiny)  # a temperature below is 0: devices may flush it to that, or not
PARTS, LANES = 32, 128  # how many columns a sum adds at a time, and what vector units like columns to be multiples of
LOWEST = -(2**31)


# --- What a request asks for ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How a request's tokens are chosen; by default the likeliest."""

    temperature: int | float = 0.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest; 0 keeps all."""
    top_p: int | float = 1.0
    """Keep the fewest likeliest whose probabilities sum to at least this; 1 keeps all."""
    min_p: int | float = 0.0
    """Keep what is at least this times as likely as the likeliest."""
    repetition_penalty: int | float = 1.0
    """Scores of tokens in prompt or output are divided by it where positive, else multiplied (CTRL, Hugging Face)."""
    frequency_penalty: int | float = 0.0
    """Taken off a token's score for each time it was generated (OpenAI)."""
    presence_penalty: int | float = 0.0
    """Taken off a token's score if it was generated (OpenAI)."""
    logit_bias: Mapping[int, int | float] = field(default_factory=dict)
    """Token id to what is added to its score."""

    @property
    def sampled(self) -> bool:
        return self.temperature >= TINY

    @property
    def filtered(self) -> bool:
        return self.sampled and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def penalised(self) -> bool:
        """Whether counts of generated tokens matter."""
        return self.reads_prompt or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def reads_prompt(self) -> bool:
        """Whether it matters which tokens the prompt has."""
        return self.repetition_penalty != 1

    def checked(self, vocab_size: int) -> "Sampling":
        """The same, if every value is one that this vocabulary's rows can be chosen with."""
        for name, (low, high) in RANGES.items():
            _check(name, getattr(self, name), low, high, whole=name == "top_k")
        for token, bias in self.logit_bias.items():
            _check("a token id in logit_bias", token, 0.0, vocab_size - 1.0, whole=True)
            _check(f"logit_bias of token {token}", bias, -MAX_BIAS, MAX_BIAS)
        return self


def _check(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    kind, described = (int, "a whole number") if whole else (int | float, "a number")
    # A NaN is in no range.
    if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"{name} must be {described} from {low:g} to {high:.10g}, not {value!r}")


class Settings(NamedTuple):
    """What rows are chosen with: the numbers of their Sampling, and seeds."""

    temperature: Float[Array | np.ndarray, " B"]
    top_k: Int[Array | np.ndarray, " B"]
    top_p: Float[Array | np.ndarray, " B"]
    min_p: Float[Array | np.ndarray, " B"]
    repetition: Float[Array | np.ndarray, " B"]
    frequency: Float[Array | np.ndarray, " B"]
    presence: Float[Array | np.ndarray, " B"]
    seed: UInt32[Array | np.ndarray, " B"]


def settings(samplings: Sequence[Sampling], seeds: Sequence[int]) -> Settings:
    """A row for each; of a seed, the lower 32 bits count."""

    def column(name: str) -> np.ndarray:
        return np.array([getattr(s, name) for s in samplings], np.int32 if name == "top_k" else np.float32)

    return Settings(*map(column, RANGES), seed=np.array([seed % 2**32 for seed in seeds], np.uint32))


# --- The choice -------------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    token: Int[Array, " *B"]
    """NOTHING where no token may be taken: the mask allows none, or scores are NaN or infinite."""
    logprob: Float[Array, " *B"]
    """Under the model's own distribution, before anything was done to it; -inf for NOTHING."""


def choose(
    scores: Float[Array, "B V"],
    rows: Settings,
    index: Int[Array, " B"],
    *,
    sampled: bool,
    filtered: bool,
    prompt: Bool[Array, "B V"] | None = None,
    counts: Int[Array, "B V"] | None = None,
    bias: Float[Array, "B V"] | None = None,
    mask: Bool[Array, "B V"] | None = None,
) -> Choice:
    """The next token of each row, the `index`-th of its request's output.

    `sampled` and `filtered` say whether any row has a temperature, and a filter: without, that work is left out, and
    every row's token is the same. So with what is None: tokens in the prompt (repetition penalty), how often tokens
    were generated (all penalties), what to add to scores, and which tokens are allowed.
    """
    adjusted = _adjusted(scores, rows, prompt, counts, bias, mask)
    likeliest = jnp.max(adjusted, -1)
    values, best = adjusted, likeliest
    if sampled:
        drawn = _scaled(adjusted, likeliest, rows, filtered) + _noise(rows.seed, index, scores.shape[1])
        values = jnp.where(_drawn(rows)[:, None], drawn, adjusted)
        best = jnp.max(values, -1)
    token = _first(values, best)
    lse = _log_sum_exp(scores)
    usable = jnp.isfinite(likeliest) & jnp.isfinite(lse)
    at_token = jnp.take_along_axis(scores, token[:, None], -1, mode="clip")[:, 0]
    return Choice(jnp.where(usable, token, NOTHING), jnp.where(usable, at_token - lse, -jnp.inf))


def processed(
    scores: Float[Array, "B V"],
    rows: Settings,
    *,
    filtered: bool,
    prompt: Bool[Array, "B V"] | None = None,
    counts: Int[Array, "B V"] | None = None,
    bias: Float[Array, "B V"] | None = None,
    mask: Bool[Array, "B V"] | None = None,
) -> Float[Array, "B V"]:
    """Log-probabilities that `choose` draws from, -inf for what it never takes; of NOTHING, -inf throughout."""
    adjusted = _adjusted(scores, rows, prompt, counts, bias, mask)
    likeliest = jnp.max(adjusted, -1)
    scaled = _scaled(adjusted, likeliest, rows, filtered)
    one = jnp.arange(scores.shape[1]) == _first(adjusted, likeliest)[:, None]
    drawn = scaled - _log_sum_exp(scaled)[:, None]
    logprobs = jnp.where(_drawn(rows)[:, None], drawn, jnp.where(one, 0.0, -jnp.inf))
    usable = jnp.isfinite(likeliest) & jnp.isfinite(jnp.max(scores, -1))
    return jnp.where(usable[:, None], logprobs, -jnp.inf)


def _drawn(rows: Settings) -> Bool[Array, " B"]:
    return jnp.asarray(rows.temperature) >= TINY


def _adjusted(
    scores: Float[Array, "B V"],
    rows: Settings,
    prompt: Bool[Array, "B V"] | None,
    counts: Int[Array, "B V"] | None,
    bias: Float[Array, "B V"] | None,
    mask: Bool[Array, "B V"] | None,
) -> Float[Array, "B V"]:
    """Everything before temperature."""
    if bias is not None:
        scores = scores + bias
    if prompt is not None or counts is not None:
        generated = False if counts is None else counts > 0
        seen = generated if prompt is None else prompt | generated
        # XLA may divide by multiplying with the reciprocal, or not: here it has no choice.
        factor = jnp.where(scores > 0, (1 / rows.repetition)[:, None], rows.repetition[:, None])
        scores = jnp.where(seen, scores * factor, scores)
    if counts is not None:
        scores = scores - rows.frequency[:, None] * counts - rows.presence[:, None] * (counts > 0)
    return scores if mask is None else jnp.where(mask, scores, -jnp.inf)


def _scaled(
    adjusted: Float[Array, "B V"], likeliest: Float[Array, " B"], rows: Settings, filtered: bool
) -> Float[Array, "B V"]:
    """Scores over temperature, the likeliest at 0 (so that no temperature overflows), -inf where a filter removes."""
    coldness = 1 / jnp.where(_drawn(rows), rows.temperature, 1.0)
    scaled = (adjusted - likeliest[:, None]) * coldness[:, None]
    return jnp.where(_kept(adjusted, scaled, rows), scaled, -jnp.inf) if filtered else scaled


# --- Filters ----------------------------------------------------------------------------------------------------------


def _kept(adjusted: Float[Array, "B V"], scaled: Float[Array, "B V"], rows: Settings) -> Bool[Array, "B V"]:
    """What top-k, top-p and min-p leave. Cuts are made in scores before temperature, which could round them equal."""
    ordered, drawn = _ordered(adjusted), _drawn(rows)
    by_k = drawn & (rows.top_k > 0) & (rows.top_k < adjusted.shape[1])
    kept = _cut(ordered, by_k, lambda kept: jnp.sum(kept, -1, dtype=jnp.int32) >= rows.top_k)
    weights = jnp.where(kept, jnp.exp(scaled), 0.0)
    by_p, mass = drawn & (rows.top_p < 1), rows.top_p * _total(weights)
    kept &= _cut(ordered, by_p, lambda kept: _total(jnp.where(kept, weights, 0.0)) >= mass)
    return kept & (scaled >= jnp.log(rows.min_p)[:, None])


def _ordered(scores: Float[Array, "B V"]) -> Int[Array, "B V"]:
    """Integers in the order of the floats; the two zeros are one."""
    bits = lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.int32)
    return bits ^ ((bits >> 31) & (2**31 - 1))


class _Search(NamedTuple):
    """The cut is in low..high: keeping what is at least low is enough, keeping only what is above high is not."""

    low: Int[Array, " B"]
    high: Int[Array, " B"]
    from_low: Int[Array, " B"]
    """How many tokens are at least low."""
    above_high: Int[Array, " B"]


def _cut(ordered: Int[Array, "B V"], wanted: Bool[Array, " B"], enough: Callable[[Array], Array]) -> Bool[Array, "B V"]:
    """The fewest tokens, cut at a score, that are `enough`: all in rows not `wanted`, and the likeliest always.

    Exact after 32 halvings; a row is done sooner once a single token is left between the two ends. What a row that is
    done goes through while others are not changes nothing in it.
    """

    def halve(search: _Search) -> _Search:
        low, high, from_low, above_high = search
        middle = (low | high) - ((low ^ high) >> 1)  # of two, rounded up, without overflow
        kept = ordered >= middle[:, None]
        count, fits, open_ = jnp.sum(kept, -1, dtype=jnp.int32), enough(kept), low < high
        up, down = open_ & fits, open_ & ~fits
        low, from_low = jnp.where(up, middle, low), jnp.where(up, count, from_low)
        high, above_high = jnp.where(down, middle - 1, high), jnp.where(down, count, above_high)
        return _Search(low, jnp.where(from_low - above_high == 1, low, high), from_low, above_high)

    none = jnp.zeros_like(ordered[:, 0])
    start = _Search(none + LOWEST, jnp.where(wanted, jnp.max(ordered, -1), LOWEST), none + ordered.shape[1], none)
    found = lax.while_loop(lambda search: jnp.any(search.low < search.high), halve, start)
    return ordered >= found.low[:, None]


# --- Noise, and reductions whose order is fixed -----------------------------------------------------------------------


def _noise(seeds: UInt32[Array | np.ndarray, " B"], index: Int[Array, " B"], vocab_size: int) -> Float[Array, "B V"]:
    """Gumbel noise, with which the greatest of log-probabilities is a draw from them.

    It is -log of an exponential variate, here -log(1 - u): u is finest near 0, where the noise is large and decides
    about unlikely tokens. Noise up to 22.9 comes with its probability; 23-bit uniforms would end at 15.9.
    """

    def bits(seed: UInt32[Array, ""], index: Int[Array, ""]) -> UInt32[Array, " V"]:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), index)
        return jax.random.bits(key, (vocab_size,), jnp.uint32)

    uniform = (jax.vmap(bits)(jnp.asarray(seeds), index).astype(jnp.float32) + 0.5) * 2.0**-32
    return -jnp.log(-jnp.log1p(-jnp.minimum(uniform, 1 - 2.0**-24)))


def _first(values: Float[Array, "B V"], best: Float[Array, " B"]) -> Int[Array, " B"]:
    """The lowest id of the best value. jnp.argmax does the same, several times slower on a CPU."""
    size = values.shape[1]
    return jnp.min(jnp.where(values == best[:, None], jnp.arange(size, dtype=jnp.int32), size), -1)


def _log_sum_exp(values: Float[Array, "B V"]) -> Float[Array, " B"]:
    greatest = jnp.max(values, -1)
    return greatest + jnp.log(_total(jnp.exp(values - greatest[:, None])))


def _total(values: Float[Array, "B V"]) -> Float[Array, " B"]:
    """The sum of each row, added element by element in an order that the width decides, so never by the batch."""
    # Otherwise a TPU's compiler lays rows out side by side and pads few of them to 128.
    values = with_layout_constraint(values, Layout((0, 1)))
    while (width := values.shape[1]) > 1:
        each = math.ceil(width / PARTS)
        each = math.ceil(each / LANES) * LANES if width > PARTS * LANES else each
        columns = [values[:, i : i + each] for i in range(0, width, each)]
        columns[-1] = jnp.pad(columns[-1], ((0, 0), (0, each - columns[-1].shape[1])))
        values = functools.reduce(jnp.add, columns)
    return values[:, 0]
