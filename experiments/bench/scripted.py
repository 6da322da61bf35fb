"""A model that computes all that a model of its size does, and then writes a text that it is given.

What a draft saves depends on how often it is right, and that on what is written. Random weights write nothing that
repeats as code does, and a model of 150M parameters that writes code takes more than two cores to train. So the weights
are random, every product is made, and the score of a script's next token is raised before one is chosen.

The script goes by position, whatever is there.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from codelm.lm import LM
from codelm.model import Transformer
from infer.device import Device

HIGH = 1e4  # above any score


class Scripted(Transformer):
    script: nnx.Param

    @classmethod
    def like(cls, model: Transformer, script: Int[np.ndarray, " T"]) -> "Scripted":
        scripted = cls(model.config, model.arrays())
        scripted.script = nnx.Param(jnp.asarray(script))
        return scripted

    def apart(self) -> "Scripted":
        plain = super().apart()
        scripted = Scripted(plain.config, self.arrays())
        for name, value in vars(plain).items():
            setattr(scripted, name, value)
        scripted.script = nnx.Param(self.script[...])
        return scripted

    def hidden(self, tokens: Int[Array, "B S"], positions: Any = None, segments: Any = None, cache: Any = None) -> Any:
        """Its first number is the position: what the stream has there is nothing that a score could not do without."""
        hidden, cache, stats = super().hidden(tokens, positions, segments, cache)
        return hidden.at[..., 0].set(positions.astype(hidden.dtype)), cache, stats

    def logits(self, x: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        position = x[..., 0].astype(jnp.int32)
        scores = super().logits(x.at[..., 0].set(0))
        return scores.at[*jnp.indices(position.shape, sparse=True), self.script[...][position]].add(HIGH)


def scripted(lm: LM) -> LM:
    """The model with an empty script; `write` gives an engine that serves it another."""
    return dataclasses.replace(lm, model=Scripted.like(lm.model, np.zeros(lm.config.max_seq_len, np.int32)))


def write(device: Device, prompt: Sequence[int], text: Sequence[int]) -> None:
    """From now on this follows the prompt."""
    script = np.zeros(device.config.max_seq_len, np.int32)
    script[len(prompt) - 1 : len(prompt) - 1 + len(text)] = text
    (at,) = (i for i, leaf in enumerate(device.leaves) if leaf.dtype == np.int32)
    device.leaves[at] = jax.device_put(script, device.device)
