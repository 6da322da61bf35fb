"""Every parameter of the network: its name, what its dimensions mean, and how it starts.

The one list behind initialisation, sharding, counting, and weights coming from and going to other formats.

Initialisation: normal with std 1/sqrt(fan-in) for matrices (0.02 for the embedding), those that write to the residual
stream divided by sqrt(2 * depth) more, so that its variance does not grow with depth; scales one, biases zero.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from codelm.config import ModelConfig


@dataclass(frozen=True)
class Parameter:
    """`dimensions` name the meaning of each axis; a product sums over the first `fan_in` that are not stacked."""

    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    start: Literal["matrix", "residual", "embedding", "one", "zero"]
    fan_in: int = 1

    @property
    def stacked(self) -> int:
        """Leading axes that number arrays of their own: layers, experts."""
        return sum(dimension in ("layers", "experts") for dimension in self.dimensions)

    @property
    def is_product(self) -> bool:
        """Whether it multiplies the stream or what is made of it, in a layer: not a norm, bias or table of tokens."""
        return self.start in ("matrix", "residual")

    @property
    def matrix(self) -> tuple[int, int]:
        """What is summed over, and what comes out: the rows and columns of each matrix of the stack."""
        shape = self.shape[self.stacked :]
        return math.prod(shape[: self.fan_in]), math.prod(shape[self.fan_in :])

    def std(self, depth: int) -> float:
        """Standard deviation of the initial values; 0 for constants."""
        if self.start == "embedding":
            return 0.02
        if not self.is_product:
            return 0.0
        return self.matrix[0] ** -0.5 * ((2 * depth) ** -0.5 if self.start == "residual" else 1.0)


def all_parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Every stored array by name: those of the layers are called blocks.NAME and stacked along a leading axis.

    The heads that look further ahead come last: with or without them, the rest starts the same.
    """
    stacked = {
        f"blocks.{name}": replace(p, dimensions=("layers", *p.dimensions), shape=(config.depth, *p.shape))
        for name, p in block_parameters(config).items()
    }
    return {**outer_parameters(config), **stacked, **mtp_parameters(config)}


def block_parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Parameters of one layer by name; the model stacks them along a leading "layers" axis."""
    names = ["attention_norm", "mlp_norm", *(["attention_post_norm", "mlp_post_norm"] if config.post_norms else [])]
    feed_forward = _experts(config) if config.moe.experts else _dense(config, config.mlp_width, "")
    return {**_attention(config), **feed_forward, **{k: v for name in names for k, v in _norm(config, name).items()}}


def outer_parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Parameters outside the layers."""
    table = (config.vocab_size, config.width)
    head = {} if config.tied_embeddings else {"head": Parameter(("vocab", "width"), table, "embedding")}
    return {"embedding": Parameter(("vocab", "width"), table, "embedding"), **_norm(config, "final_norm"), **head}


def mtp_parameters(config: ModelConfig) -> dict[str, Parameter]:
    """Parameters of the heads that look further ahead, stacked as layers are. They end in the output table of all."""
    heads, width = config.mtp_heads, config.width
    if not heads:
        return {}
    return {
        "mtp_up": Parameter(("layers", "width", "mlp"), (heads, width, width), "matrix"),
        "mtp_down": Parameter(("layers", "mlp", "width"), (heads, width, width), "residual"),
    }


def _norm(config: ModelConfig, name: str) -> dict[str, Parameter]:
    start = "zero" if config.norm_unit_offset else "one"
    norm = {name: Parameter(("stream",), (config.width,), start)}
    if config.norm == "layernorm":
        norm[f"{name}_bias"] = Parameter(("stream",), (config.width,), "zero")
    return norm


def _attention(config: ModelConfig) -> dict[str, Parameter]:
    width, heads, kv_heads, size = config.width, config.heads, config.kv_heads, config.head_dim
    parameters = {
        "query": Parameter(("width", "heads", "head_dim"), (width, heads, size), "matrix"),
        "key": Parameter(("width", "kv_heads", "head_dim"), (width, kv_heads, size), "matrix"),
        "value": Parameter(("width", "kv_heads", "head_dim"), (width, kv_heads, size), "matrix"),
        "out": Parameter(("heads", "head_dim", "width"), (heads, size, width), "residual", fan_in=2),
    }
    if config.qkv_bias:
        parameters["query_bias"] = Parameter(("heads", "head_dim"), (heads, size), "zero")
        parameters["key_bias"] = Parameter(("kv_heads", "head_dim"), (kv_heads, size), "zero")
        parameters["value_bias"] = Parameter(("kv_heads", "head_dim"), (kv_heads, size), "zero")
    if config.out_bias:
        parameters["out_bias"] = Parameter(("stream",), (width,), "zero")
    if config.qk_norm:
        start = "zero" if config.norm_unit_offset else "one"
        parameters["query_norm"] = Parameter(("head_dim",), (size,), start)
        parameters["key_norm"] = Parameter(("head_dim",), (size,), start)
    return parameters


def _dense(config: ModelConfig, hidden: int, prefix: str) -> dict[str, Parameter]:
    width = config.width
    parameters = {
        f"{prefix}up": Parameter(("width", "mlp"), (width, hidden), "matrix"),
        f"{prefix}down": Parameter(("mlp", "width"), (hidden, width), "residual"),
    }
    if config.mlp != "gelu":
        parameters[f"{prefix}gate"] = Parameter(("width", "mlp"), (width, hidden), "matrix")
    if config.mlp_bias:
        parameters[f"{prefix}up_bias"] = Parameter(("mlp",), (hidden,), "zero")
        parameters[f"{prefix}down_bias"] = Parameter(("stream",), (width,), "zero")
        if config.mlp != "gelu":
            parameters[f"{prefix}gate_bias"] = Parameter(("mlp",), (hidden,), "zero")
    return parameters


def _experts(config: ModelConfig) -> dict[str, Parameter]:
    width, moe = config.width, config.moe
    into, out = (moe.experts, width, moe.expert_width), (moe.experts, moe.expert_width, width)
    parameters = {
        "router": Parameter(("stream", "stream"), (width, moe.experts), "matrix"),
        "experts_gate": Parameter(("experts", "width", "mlp"), into, "matrix"),
        "experts_up": Parameter(("experts", "width", "mlp"), into, "matrix"),
        "experts_down": Parameter(("experts", "mlp", "width"), out, "residual"),
    }
    if moe.balance == "bias":
        parameters["router_bias"] = Parameter(("stream",), (moe.experts,), "zero")
    if moe.shared_experts:
        parameters |= _dense(config, moe.shared_experts * moe.expert_width, "shared_")
    return parameters
