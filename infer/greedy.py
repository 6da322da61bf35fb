"""The simplest decoding there is: the whole forward for every token, no cache."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from codelm.model import Transformer


def greedy(model: Transformer, prompt: list[int], new_tokens: int) -> list[int]:
    """The most likely token, `new_tokens` times."""
    ids = np.zeros((1, len(prompt) + new_tokens), np.int32)
    ids[0, : len(prompt)] = prompt
    for end in range(len(prompt), ids.shape[1]):
        ids[0, end] = int(_next(model, ids, end))
    return ids[0, len(prompt) :].tolist()


@jax.jit
def _next(model: Transformer, ids: Int[Array, "1 S"], end: Int[Array, ""] | int) -> Int[Array, ""]:
    """What follows the first `end` tokens; causal attention makes the padding after them irrelevant."""
    return jnp.argmax(model(ids)[0, end - 1])
