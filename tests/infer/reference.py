"""A decoder with no cache, no pages and no batch: what a request should come to.

The whole text is read for every token, by the plain forward pass; what is done to scores is written out in float64.
Only the noise that tokens are drawn with is the engine's own function of seed, index and token.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from codelm.lm import LM
from infer.healing import Healing
from infer.request import Request, Text
from infer.sampling import Sampling, _noise

MARGIN = 1e-4  # of scores: closer than that, another order of the same sums may choose another token


@functools.cache
def _scores(lm: LM, ids: tuple[int, ...]) -> Float[np.ndarray, " V"]:
    """After the last token; padded to one length, which a causal model does not see."""
    padded = [*ids, *[0] * (lm.config.max_seq_len - len(ids))]
    return lm.logits([padded])[0, len(ids) - 1].astype(np.float64)


def adjusted(
    scores: Float[np.ndarray, " V"],
    sampling: Sampling,
    prompt: list[int],
    written: list[int],
    allowed: np.ndarray | None,
) -> Float[np.ndarray, " V"]:
    """Scores over temperature, -inf for what cannot be."""
    scores = scores.copy()
    for token, bias in sampling.logit_bias.items():
        scores[token] += bias
    for token in {*prompt, *written}:
        by = sampling.repetition_penalty
        scores[token] = scores[token] / by if scores[token] > 0 else scores[token] * by
    for token in set(written):
        scores[token] -= sampling.frequency_penalty * written.count(token) + sampling.presence_penalty
    if allowed is not None:
        scores[: len(allowed)][~allowed] = -np.inf
        scores[len(allowed) :] = -np.inf
    if sampling.temperature == 0:
        return scores
    scores /= sampling.temperature
    if sampling.top_k:
        scores[scores < np.sort(scores)[::-1][min(sampling.top_k, len(scores)) - 1]] = -np.inf
    weights = np.exp(scores - scores.max())
    if sampling.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        enough = np.argmax(np.cumsum(weights[order]) >= sampling.top_p * weights.sum())
        scores[weights < weights[order][enough]] = -np.inf
    if sampling.min_p:
        scores[weights < sampling.min_p * weights.max()] = -np.inf
    return scores


@jax.jit
def _gumbel(seed: jax.Array, index: jax.Array, like: jax.Array) -> jax.Array:
    return _noise(seed[None], index[None], like.shape[0])[0]


def decoded(lm: LM, request: Request, sample: int = 0) -> tuple[Text, list[float]]:
    """One of a request's texts, and how far the best token was before the next best, each time."""
    tokenizer = lm.tokenizer
    assert tokenizer is not None
    prompt, written, logprobs, margins = list(request.ids), [], [], []
    constraint = request.restriction.start(tokenizer, request.stop_ids) if request.restriction else None
    finish, text = "length", None
    while len(written) < request.max_new_tokens:
        raw = _scores(lm, (*prompt, *written))
        values = adjusted(raw, request.sampling, prompt, written, constraint.allowed() if constraint else None)
        if request.sampling.temperature:
            seed = jnp.uint32((request.seed + sample) % 2**32)
            values = values + np.asarray(_gumbel(seed, jnp.int32(len(written)), jnp.zeros(len(raw)))).astype(np.float64)
        token = int(np.argmax(values))
        best, second = np.sort(values)[::-1][:2]
        margins.append(float(best - second))
        if token in request.stop_ids:
            finish = "stop"
            break
        written.append(token)
        logprobs.append(float(raw[token] - raw.max() - np.log(np.exp(raw - raw.max()).sum())))
        if constraint:
            constraint.advance(token)
        text = _up_to_a_stop(tokenizer.decode_bytes(written), request.stop)
        if text is not None:
            finish = "stop"
            break
    spelled = tokenizer.decode_bytes(written) if text is None else text
    if isinstance(request.restriction, Healing):
        ended = finish == "stop" and text is None
        spelled = request.restriction.middle(spelled, ended=ended)
    if text is not None:  # the tokens that are wholly before the stop string
        sizes = np.cumsum([len(tokenizer.pieces[i]) for i in written])
        written = written[: int(np.searchsorted(sizes, len(text), side="right"))]
    shown = spelled.decode("utf-8", errors="codelm_lenient")
    return Text(written, shown, finish, logprobs[: len(written)]), margins


def _up_to_a_stop(spelled: bytes, stops: object) -> bytes | None:
    found = [spelled.find(stop.encode()) for stop in stops]  # type: ignore[attr-defined]
    return spelled[: min(at for at in found if at >= 0)] if max(found, default=-1) >= 0 else None
