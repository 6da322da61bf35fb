"""Rotary position embedding and the ways of stretching it to longer texts.

Dimension i of a head turns together with dimension i + H/2, the layout of Llama checkpoints.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from codelm.config import RopeConfig


def rotations(
    rope: RopeConfig, head_dim: int, positions: Int[Array, "B S"]
) -> tuple[Float[Array, "B S 1 H2"], Float[Array, "B S 1 H2"]]:
    """Cosines and sines for every position, in float32; yarn's attention factor is in them."""
    theta = jnp.float32(rope.theta)
    if rope.scaling == "dynamic":  # the base grows with the longest position in sight
        longest = jnp.maximum(jnp.max(positions) + 1, rope.original_seq_len).astype(jnp.float32)
        stretch = rope.factor * longest / rope.original_seq_len - (rope.factor - 1)
        theta = theta * stretch ** (head_dim / (head_dim - 2))
        frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    else:
        frequencies = jnp.asarray(static_frequencies(rope, head_dim), jnp.float32)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    factor = attention_factor(rope)
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(
    x: Float[Array, "B S N H"], cos: Float[Array, "B S 1 H2"], sin: Float[Array, "B S 1 H2"]
) -> Float[Array, "B S N H"]:
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)


def static_frequencies(rope: RopeConfig, head_dim: int) -> Float[np.ndarray, " H2"]:
    """Radians a position for each pair of dimensions, for every scaling that does not depend on the text."""
    plain = rope.theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if rope.scaling == "linear":
        return plain / rope.factor
    if rope.scaling == "llama3":
        return _llama3(rope, plain)
    if rope.scaling == "yarn":
        return _yarn(rope, plain)
    return plain


def _llama3(rope: RopeConfig, plain: Float[np.ndarray, " H2"]) -> Float[np.ndarray, " H2"]:
    """Long wavelengths are stretched, short ones kept, those between blended."""
    turns = rope.original_seq_len * plain / (2 * math.pi)  # over the original length
    keep = np.clip((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0, 1)
    return keep * plain + (1 - keep) * plain / rope.factor


def _yarn(rope: RopeConfig, plain: Float[np.ndarray, " H2"]) -> Float[np.ndarray, " H2"]:
    """The same, with a ramp between dimensions that turn beta_fast and beta_slow times (arXiv 2309.00071)."""
    head_dim = 2 * len(plain)

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original_seq_len / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001
    stretch = np.clip((np.arange(len(plain)) - low) / width, 0, 1)
    return stretch * plain / rope.factor + (1 - stretch) * plain


def attention_factor(rope: RopeConfig) -> float:
    """What yarn multiplies rotated queries and keys by."""
    if rope.scaling != "yarn":
        return 1.0
    if rope.attention_factor:
        return rope.attention_factor

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0

    if rope.mscale and rope.mscale_all_dim:
        return temperature(rope.mscale) / temperature(rope.mscale_all_dim)
    return temperature(1.0)
