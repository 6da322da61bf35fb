"""What a config costs, from its sizes alone: parameters, FLOPs per token, KV-cache bytes.

FLOPs follow one convention everywhere: model FLOPs without recomputation, a multiply-add is 2, backward is twice
forward, causal attention counts half, embedding lookups do not count, the output head does.
"""

from dataclasses import dataclass

from codelm.config import ModelConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Parameters:
    """Parameter counts. `active` is what one token touches; `matmul` is the part of it inside matrix products."""

    total: int
    active: int
    embedding: int
    matmul: int


def count_parameters(model: ModelConfig) -> Parameters:
    attention = model.width * model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    norms = 2 * model.width
    total_mlp, active_mlp = _mlp_parameters(model)
    embedding = model.vocab_size * model.width
    head = 0 if model.tied_embeddings else embedding
    outside = embedding + head + model.width  # the last norm
    matmul = model.depth * (attention + active_mlp) + model.vocab_size * model.width
    return Parameters(
        total=model.depth * (attention + norms + total_mlp) + outside,
        active=model.depth * (attention + norms + active_mlp) + outside,
        embedding=embedding,
        matmul=matmul,
    )


def _mlp_parameters(model: ModelConfig) -> tuple[int, int]:
    """Feed-forward parameters of one layer: all of them, and those one token uses."""
    moe = model.moe
    if not moe.experts:
        dense = 3 * model.width * model.mlp_width
        return dense, dense
    expert, router = 3 * model.width * moe.expert_width, model.width * moe.experts
    shared = moe.shared_experts * expert
    return moe.experts * expert + shared + router, moe.top_k * expert + shared + router


def training_flops_per_token(model: ModelConfig, seq_len: int) -> int:
    """Forward and backward: 6 a matmul parameter, plus attention scores and values over half the row."""
    attention = 6 * model.depth * model.heads * model.head_dim * seq_len
    return 6 * count_parameters(model).matmul + attention


def kv_bytes_per_token(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """Key and value bytes one token adds to the cache, over all layers."""
    return 2 * model.depth * model.kv_heads * model.head_dim * BYTES[dtype]


def weight_bytes(model: ModelConfig, dtype: str = "bfloat16") -> int:
    return count_parameters(model).total * BYTES[dtype]
