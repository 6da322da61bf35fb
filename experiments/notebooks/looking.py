"""Looks into a model while it reads a text, without changing it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from codelm.attention import attend
from codelm.cache import Apart, Heads, Rows, Rule
from codelm.lm import LM
from codelm.model import Transformer
from codelm.tokenizer import Tokenizer


class Watching:
    """Stands where layers have a cache (`codelm.cache.Slots`): remembers nothing, and gives back where heads attend."""

    def attend(
        self, memory: Any, heads: Heads, rows: Rows, rule: Rule
    ) -> tuple[Float[Array, "B S N H"], Float[Array, "B N S S"]]:
        def mixed(value: Float[Array, "B S K H"]) -> Float[Array, "B S N H"]:
            return attend(
                heads.query,
                heads.key,
                value,
                query_positions=rows.positions,
                key_positions=rows.positions,
                query_segments=rows.segments,
                key_segments=rows.segments,
                **rule._asdict(),
            )

        # What a head mixes out of the rows of the identity are its weights: as many columns at a time as values have.
        size, count = heads.value.shape[-1], heads.value.shape[1]
        columns = jnp.eye(count, -(-count // size) * size, dtype=jnp.float32)
        parts = [
            mixed(jnp.broadcast_to(columns[None, :, None, at : at + size], heads.value.shape))
            for at in range(0, count, size)
        ]
        weights = jnp.concatenate(parts, axis=-1)[..., :count]
        return mixed(heads.value), weights.swapaxes(1, 2)


def attention(model: Transformer, ids: Sequence[int]) -> Float[np.ndarray, "L N S S"]:
    """How much each token (the third axis) reads of each (the fourth), by layer and head."""
    seen = jax.jit(lambda model, ids: model.hidden(ids, cache=Apart((), Watching()))[1].memory)
    return np.asarray(seen(model, jnp.asarray([ids]))[:, 0], np.float32)


def losses(lm: LM, ids: Sequence[int]) -> Float[np.ndarray, " S"]:
    """Nats of every token after those before it; NaN for the first."""
    scores = jax.nn.log_softmax(lm.logits([ids])[0])
    return np.append(np.nan, -np.asarray(scores)[np.arange(len(ids) - 1), list(ids[1:])])


def first_layers(lm: LM, depth: int) -> LM:
    """The model that ends after so many layers: its norm and its head read the stream there."""
    config = replace(lm.config, depth=depth)
    arrays = lm.model.arrays().items()
    values = {name: value[:depth] if name.startswith("blocks.") else value for name, value in arrays}
    return replace(lm, config=config, model=Transformer(config, values))


def texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Of each token by itself; special ones by their names."""
    return [tokenizer.decode([i], show_special=True) for i in ids]
