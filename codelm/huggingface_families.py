"""Hugging Face model families: what config.json calls things, what a missing field means, how tensors are named.

Tables only; `codelm.huggingface_config` and `codelm.huggingface_weights` read them. Defaults are those of the
configuration classes of transformers 5.23.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """What is particular to a model_type. Fields of config.json are on the left of each mapping."""

    architecture: str
    fields: Mapping[str, str]
    """The fields of ModelConfig that each sets (separated by spaces; writing takes the first)."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """ModelConfig fields (here on the left) that are the same in all models of the family."""
    powers: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Numbers that ModelConfig has raised to a power."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of missing fields, where they are not those of DEFAULTS; sizes have none, so that a stub is refused."""
    accepted: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"hidden_act": ("silu",)})
    """Fields of which codelm can do only these values; the first is written."""
    windows: Literal["none", "all", "switched", "late", "alternate"] = "none"
    """Layers that slide: all where there is a window (switched: where use_sliding_window says so as well), those from
    max_window_layers on, or every other one."""
    head_dim: Literal["always", "null", "other"] = "always"
    """Whether head_dim is written: always, or only if it is not width / heads (else null, or no field)."""
    scaled_embedding: bool = False
    """Embeddings enter multiplied by the square root of the width."""
    whole_heads: bool = False
    """transformers insists that heads divides width."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Modules (of our parameters, here on the left) that are not named as in MODULES."""


SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "tie_word_embeddings": "tied_embeddings",
}
RMS = {**SIZES, "rms_norm_eps": "norm_eps"}
BIAS = {"attention_bias": "qkv_bias out_bias"}
EXPERTS = {"num_local_experts": "moe.experts", "num_experts_per_tok": "moe.top_k"}
TANH_GELU = "gelu_pytorch_tanh"
QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32_768, "sliding_window": 4096}

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", {**RMS, **BIAS, "mlp_bias": "mlp_bias"}, whole_heads=True),
    "mistral": Family(
        "MistralForCausalLM",
        RMS,
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
        windows="all",
    ),
    "qwen2": Family("Qwen2ForCausalLM", RMS, {"qkv_bias": True}, defaults=QWEN, windows="late", head_dim="other"),
    "qwen3": Family(
        "Qwen3ForCausalLM", {**RMS, **BIAS}, {"qk_norm": True}, defaults={**QWEN, "head_dim": 128}, windows="late"
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        {**RMS, **EXPERTS, "intermediate_size": "moe.expert_width mlp_width"},
        {"moe.renormalise": True},
        defaults={
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "num_experts_per_tok": 2,
            "num_local_experts": 8,
        },
        windows="all",
        head_dim="null",
        modules={
            "router": "block_sparse_moe.gate",
            "experts_gate": "block_sparse_moe.experts.{expert}.w1",
            "experts_up": "block_sparse_moe.experts.{expert}.w3",
            "experts_down": "block_sparse_moe.experts.{expert}.w2",
        },
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        {**RMS, **BIAS, **EXPERTS, "moe_intermediate_size": "moe.expert_width", "norm_topk_prob": "moe.renormalise"},
        {"qk_norm": True},
        defaults={**QWEN, "num_key_value_heads": 4, "num_experts_per_tok": 8, "num_local_experts": 128},
        accepted={"hidden_act": ("silu",), "decoder_sparse_step": (1,), "mlp_only_layers": ([],)},
        windows="switched",
    ),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        {**SIZES, "norm_epsilon": "norm_eps", "use_bias": "mlp_bias qkv_bias out_bias"},
        {"norm": "layernorm", "mlp": "gelu"},
        defaults={"num_key_value_heads": 2, "max_position_embeddings": 4096, "tie_word_embeddings": True},
        accepted={"hidden_act": (TANH_GELU,)},
        windows="all",
        head_dim="other",
        modules={"up": "mlp.c_fc", "down": "mlp.c_proj"},
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        {**RMS, **BIAS},
        {"mlp": "geglu", "norm_unit_offset": True},
        defaults={
            "num_key_value_heads": 16,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        accepted={"hidden_act": (TANH_GELU, "gelu")},  # Gemma 1 was published with "gelu" and meant this
        scaled_embedding=True,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        {
            **RMS,
            **BIAS,
            "attn_logit_softcapping": "attention_softcap",
            "final_logit_softcapping": "logit_softcap",
        },
        {"mlp": "geglu", "norm_unit_offset": True, "post_norms": True},
        powers={"query_pre_attn_scalar": ("attention_multiplier", -0.5)},
        defaults={
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "query_pre_attn_scalar": 256,
        },
        accepted={"hidden_activation": (TANH_GELU,)},
        windows="alternate",
        scaled_embedding=True,
        whole_heads=True,
        modules={
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
    ),
    "granite": Family(
        "GraniteForCausalLM",
        {
            **RMS,
            **BIAS,
            "mlp_bias": "mlp_bias",
            "embedding_multiplier": "embedding_multiplier",
            "residual_multiplier": "residual_multiplier",
            "attention_multiplier": "attention_multiplier",
        },
        powers={"logits_scaling": ("logit_multiplier", -1.0)},
        head_dim="other",
    ),
}

DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,  # one for each query head
    "head_dim": None,  # width / heads
    "sliding_window": None,
    "max_position_embeddings": 2048,
    "max_window_layers": 28,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-6,
    "norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": True,
    "use_sliding_window": False,
    "norm_topk_prob": False,
    "router_aux_loss_coef": 0.001,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "logits_scaling": 1.0,
}
# Fields of which null means something: none, or width / heads and the like.
NULLABLE = ("num_key_value_heads", "head_dim", "sliding_window", "attn_logit_softcapping", "final_logit_softcapping")

# Fields that change the network in ways codelm cannot do, and their harmless values; never written.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "partial_rotary_factor": (None, 1.0),
    "use_bidirectional_attention": (None, False),
    "mlp_type": (None, "default"),
    "norm_type": (None, "layer_norm"),
}

# Ways of stretching rotary embedding: their parameters, and which of them must be there.
ROPE_FIELDS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_seq_len",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_seq_len",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
        "truncate": "truncate",
    },
}
ROPE_REQUIRED = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

# float16 has no range to train in, so it is kept as float32, which holds it exactly.
STORED_AS = {"bfloat16": "bfloat16", "float16": "float32", "float32": "float32"}

# Modules by the names of our parameters; those of a layer are under model.layers.N. A module's tensors are its weight
# and its bias, ours end in _bias or not.
MODULES = {
    "embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "router": "mlp.gate",
    "experts_gate": "mlp.experts.{expert}.gate_proj",
    "experts_up": "mlp.experts.{expert}.up_proj",
    "experts_down": "mlp.experts.{expert}.down_proj",
}

# Tensors found in published files that hold nothing to load.
HARMLESS_TENSORS = (".rotary_emb.inv_freq",)
