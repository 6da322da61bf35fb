"""What a config costs, from its sizes alone: parameters, FLOPs per token, KV-cache bytes.

FLOPs follow one convention everywhere: model FLOPs without recomputation, a multiply-add is 2, backward is twice
forward, causal attention counts half, embedding lookups do not count, the output head does.
"""

import math
from dataclasses import dataclass

from codelm.config import ModelConfig
from codelm.parameters import all_parameters, mtp_parameters
from codelm.windows import layer_windows

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Parameters:
    """Parameter counts.

    `active` is what a token touches to give the next one: not the heads that look further ahead. `matmul` is what a
    token is multiplied by in training: those heads too, and for each of them the output table once more.
    """

    total: int
    active: int
    embedding: int
    matmul: int


def count_parameters(model: ModelConfig) -> Parameters:
    total = active = matmul = 0
    ahead = mtp_parameters(model)
    for name, parameter in all_parameters(model).items():
        size = math.prod(parameter.shape)
        total += size
        used = size * model.moe.top_k // model.moe.experts if "experts" in parameter.dimensions else size
        active += 0 if name in ahead else used
        if parameter.start in ("matrix", "residual"):
            matmul += used
    embedding = model.vocab_size * model.width
    heads = 1 + model.mtp_heads  # each with a product with the output table, tied or not
    return Parameters(total, active, embedding, matmul + heads * embedding)


def training_flops_per_token(model: ModelConfig, seq_len: int) -> int:
    """Forward and backward: 6 a matmul parameter, plus attention scores and values over the keys a token sees.

    A causal row of S tokens sees S/2 keys on average, one with a window of w sees w - w²/2S.
    """
    widths = [min(window or seq_len, seq_len) for window in layer_windows(model)]
    keys = sum(width - width**2 / (2 * seq_len) for width in widths)
    return 6 * count_parameters(model).matmul + round(12 * model.heads * model.head_dim * keys)


def kv_bytes_per_token(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """Key and value bytes one token adds to the cache, over all layers."""
    return 2 * model.depth * model.kv_heads * model.head_dim * BYTES[dtype]


def weight_bytes(model: ModelConfig, dtype: str = "bfloat16") -> int:
    return count_parameters(model).total * BYTES[dtype]
