"""Texts of models whose keys turn anew as a text grows (dynamic rope scaling): read whole for every token.

The engine does not serve those, for there is nothing to cache. One text after the other, by the same choice of tokens.
"""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from codelm.errors import UserError
from codelm.lm import LM
from infer.request import Finish, Request, Text, Timing
from infer.sampling import choose, settings
from infer.text import Writer


def written(lm: LM, request: Request) -> tuple[list[Text], Timing]:
    request.check(lm.config.vocab_size, has_text=lm.tokenizer is not None)
    if request.restriction:
        raise UserError("a model with dynamic rope scaling takes no grammar and no token healing: give heal=''")
    timing = Timing(time.perf_counter(), prompt_tokens=len(request.ids))
    timing.started = timing.arrived
    texts = [_text(lm, request, request.seed + sample, timing) for sample in range(request.best_of or request.n)]
    timing.finished = time.perf_counter()
    if request.best_of:
        texts.sort(key=lambda text: -text.mean_logprob)
    return texts[: request.n], timing


def _text(lm: LM, request: Request, seed: int, timing: Timing) -> Text:
    sampling, shape = request.sampling, (1, lm.config.vocab_size)
    rows = settings([sampling], [seed])
    prompt, counts, bias = np.zeros(shape, bool), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    prompt[0, list(request.ids)] = True
    bias[0, list(sampling.logit_bias)] = list(sampling.logit_bias.values())
    writer = Writer(lm.tokenizer, request.stop)
    ids, pieces = list(request.ids), []
    finish: Finish = "length"
    while len(ids) < len(request.ids) + request.max_new_tokens:
        scores, index = jnp.asarray(lm.next_scores(ids))[None], jnp.array([len(ids) - len(request.ids)])
        given: dict[str, Any] = {
            "prompt": jnp.asarray(prompt),
            "counts": jnp.asarray(counts),
            "bias": jnp.asarray(bias),
        }
        chosen = choose(scores, rows, index, sampled=True, filtered=True, **given)
        timing.first = timing.first or time.perf_counter()
        token = int(chosen.token[0])
        if token in request.stop_ids:
            finish = "stop"
            break
        ids.append(token)
        counts[0, token] += 1
        pieces.append(writer.write(token, float(chosen.logprob[0])))
        if writer.stopped:
            finish = "stop"
            break
    pieces.append(writer.end(by_stop=finish == "stop"))
    timing.new_tokens += len(ids) - len(request.ids)
    return Text(
        ids=[i for piece in pieces for i in piece.ids],
        text="".join(piece.text for piece in pieces),
        finish=finish,
        logprobs=[value for piece in pieces for value in piece.logprobs],
    )
