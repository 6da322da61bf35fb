"""The network: a decoder-only transformer in Flax NNX, its layers stacked and scanned.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward; RMSNorm; f32 statistics.
Initialisation: normal, std 0.02 for the embedding, 1/sqrt(fan-in) for matrices, the two that write to the residual
stream divided by sqrt(2 * depth) more, so that the stream's variance does not grow with depth.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from codelm.config import ModelConfig
from codelm.errors import UserError


class Block(nnx.Module):
    """One layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        width, heads, kv_heads, head_dim = config.width, config.heads, config.kv_heads, config.head_dim
        dtype = jnp.dtype(config.param_dtype)
        self.config = config

        def matrix(*shape: int, fan_in: int, scale: float = 1.0) -> nnx.Param:
            return nnx.Param((scale * fan_in**-0.5 * jax.random.normal(rngs.params(), shape)).astype(dtype))

        residual = (2 * config.depth) ** -0.5
        self.attention_norm = nnx.Param(jnp.ones(width, dtype))
        self.query = matrix(width, heads, head_dim, fan_in=width)
        self.key = matrix(width, kv_heads, head_dim, fan_in=width)
        self.value = matrix(width, kv_heads, head_dim, fan_in=width)
        self.out = matrix(heads, head_dim, width, fan_in=heads * head_dim, scale=residual)
        self.mlp_norm = nnx.Param(jnp.ones(width, dtype))
        self.gate = matrix(width, config.mlp_width, fan_in=width)
        self.up = matrix(width, config.mlp_width, fan_in=width)
        self.down = matrix(config.mlp_width, width, fan_in=config.mlp_width, scale=residual)

    def __call__(self, x: Float[Array, "B S D"], positions: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        x = x + self.attention(rms_norm(x, self.attention_norm[...], self.config.norm_eps), positions)
        return x + self.mlp(rms_norm(x, self.mlp_norm[...], self.config.norm_eps))

    def attention(self, x: Float[Array, "B S D"], positions: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        theta, dtype = self.config.rope.theta, x.dtype
        query = rotate(jnp.einsum("bsd,dnh->bsnh", x, self.query[...].astype(dtype)), positions, theta)
        key = rotate(jnp.einsum("bsd,dkh->bskh", x, self.key[...].astype(dtype)), positions, theta)
        value = jnp.einsum("bsd,dkh->bskh", x, self.value[...].astype(dtype))
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return jnp.einsum("bsnh,nhd->bsd", mixed, self.out[...].astype(dtype))

    def mlp(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        gate = jax.nn.silu(x @ self.gate[...].astype(x.dtype))
        return (gate * (x @ self.up[...].astype(x.dtype))) @ self.down[...].astype(x.dtype)


class Transformer(nnx.Module):
    """Token ids to logits."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        if config.moe.experts:
            raise UserError("mixture-of-experts models cannot be built yet: only their arithmetic is there")
        dtype = jnp.dtype(config.param_dtype)
        self.config = config
        table = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, config.width))
        self.embedding = nnx.Param(table.astype(dtype))
        layers = nnx.split_rngs(splits=config.depth)(nnx.vmap(lambda rngs: Block(config, rngs=rngs)))
        self.blocks = layers(rngs)
        self.final_norm = nnx.Param(jnp.ones(config.width, dtype))
        if not config.tied_embeddings:
            head = config.width**-0.5 * jax.random.normal(rngs.params(), (config.vocab_size, config.width))
            self.head = nnx.Param(head.astype(dtype))

    def __call__(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S V"]:
        """Logits in float32."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        x = self.embedding[...][tokens].astype(self.config.compute_dtype)
        x, _ = jax.lax.scan(lambda x, block: (block(x, positions), None), x, self.blocks)
        x = rms_norm(x, self.final_norm[...], self.config.norm_eps)
        head = self.embedding if self.config.tied_embeddings else self.head
        return jnp.einsum("bsd,vd->bsv", x, head[...].astype(x.dtype), preferred_element_type=jnp.float32)


def rms_norm(x: Float[Array, "*B D"], weight: Float[Array, " D"], eps: float) -> Float[Array, "*B D"]:
    """Statistics in float32, result in the dtype of x."""
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)
    return (normed * weight.astype(jnp.float32)).astype(x.dtype)


def rotate(x: Float[Array, "B S N H"], positions: Int[Array, "B S"], theta: float) -> Float[Array, "B S N H"]:
    """Rotary embedding: dimension i turns together with dimension i + H/2 (the layout of Llama checkpoints)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (positions[..., None].astype(jnp.float32) * frequencies)[:, :, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)
