"""Golden fixtures that tie codelm's JAX model to Hugging Face transformers.

For every case below this script builds a tiny random model from the real transformers classes (float32, eval,
eager attention), saves it the way a published checkpoint is saved, and records what transformers computes:

    tests/golden/parity/<case>/config.json            exactly what transformers 5 wrote
    tests/golden/parity/<case>/config.published.json  the same model in the older (transformers 4) style
    tests/golden/parity/<case>/model.safetensors      (or shards and model.safetensors.index.json)
    tests/golden/parity/<case>/reference.npz          ids [2,T], logits [2,T,V] (float32), prompt [P],
                                                      greedy [16], greedy_margin (its least top1-top2 gap)
    tests/golden/parity/index.json                    one entry per case, see `describe`

The reference logits come from the SAVED weights, read back and upcast to float32 (this matters for the
bf16 and f16 cases).  `greedy` is an argmax over full forward passes without a cache; each pass runs on a
fresh copy of the model, because the dynamic NTK rotary embedding of transformers remembers the longest
sequence it has seen.

Weights are far larger than any trained initialisation, so that a forgotten bias, norm, multiplier, window
or rotary variant cannot hide.  `feature_effect` in the index gives, per feature, the largest change of any
logit when only that feature is turned off or mistaken; the script fails if one is below 0.05.  The names
`bias:*` and `norm:*` stand for zeroed biases and identity norms of that kind.

Re-create (CPU only; no network beyond the package index):

    python3.11 -m venv parity-env
    parity-env/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy
    parity-env/bin/python tests/golden/make_parity.py [--case NAME]

Made with Python 3.11, torch 2.13.0 (CPU), transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.  Weights
and ids come from numpy's seeded generator; runs on one machine give the same bytes (another CPU may differ in
the last bits of the logits).
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

OUT = Path(__file__).resolve().parent / "parity"
SEQ = 24  # length of each row of `ids`
PROMPT = 8
STEPS = 16
MIN_EFFECT = 0.05  # every feature must move some logit by more than this
MIN_GREEDY_MARGIN = 0.02
MIN_ROUTER_MARGIN = 1e-3  # least gap between the last chosen and the first rejected expert probability
MIN_DISTINCT = 5  # different tokens in the greedy continuation

Json = dict[str, Any]
Edit = Callable[[PreTrainedModel], None]


@dataclass(frozen=True)
class Case:
    """One fixture: a config, how to save it, and what must be seen to matter in it."""

    name: str
    family: str  # transformers model_type
    variant: str
    description: str
    config: Json
    off: dict[str, Json] = field(default_factory=dict)  # feature -> config fields that turn it off
    edits: dict[str, Edit] = field(default_factory=dict)  # feature -> a change that mimics missing it
    embed_std: float = 1.0
    bias_std: float = 0.5
    branch_gain: float = 1.0  # on the last map of attention and mlp: weight of layers against embedding
    norm_shift: float = 0.0  # added to every norm weight
    dtype: str = "float32"
    shard: str | None = None  # max_shard_size
    rope_key: str = "rope_type"  # spelling of the rope kind in the published config: rope_type or type
    published: Json = field(default_factory=dict)  # what the published config has more or spells differently
    omit: tuple[str, ...] = ()  # fields the published config leaves out (beyond the family's defaults)
    omit_rope: tuple[str, ...] = ()  # the same for rope_scaling


# --- the cases ------------------------------------------------------------------------------------


def rope(theta: float, kind: str = "default", **scaling: Any) -> Json:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **scaling}}


def small(**fields: Any) -> Json:
    """The dimensions most cases share, with `fields` on top."""
    base = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    base |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return base | {"bos_token_id": 1, "eos_token_id": 2} | fields


def llama_cases() -> list[Case]:
    def llama(name: str, variant: str, description: str, config: Json, **rest: Any) -> Case:
        return Case(f"llama_{name}", "llama", variant, description, small(**config), **rest)

    default_theta = rope(10000.0)
    return [
        llama(
            "gqa",
            "plain",
            "grouped-query attention, untied head, large rms_norm_eps, rope_theta 100",
            {"rms_norm_eps": 0.05, **rope(100.0)},
            off={"rms_norm_eps": {"rms_norm_eps": 1e-6}, "rope_theta": default_theta},
        ),
        llama(
            "tied",
            "tied",
            "tied embeddings, multi-head (kv heads omitted when published), rope fields at their defaults",
            {"tie_word_embeddings": True, "num_key_value_heads": 4, **default_theta},
            off={"rope_theta": rope(100.0)},
            embed_std=0.35,
            omit=("num_key_value_heads",),
            published={"rope_scaling": None},
        ),
        llama(
            "bias",
            "attention_bias + mlp_bias",
            "biases on q, k, v, o and on gate, up, down",
            {"attention_bias": True, "mlp_bias": True, "intermediate_size": 32, **rope(500.0)},
            off={"rope_theta": default_theta},
        ),
        llama(
            "head_dim",
            "explicit head_dim",
            "3 heads of 10 in a hidden size of 36 (hidden / heads = 12), one kv head",
            {
                "hidden_size": 36,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "head_dim": 10,
                **rope(500.0),
            },
            off={"rope_theta": default_theta},
        ),
        *llama_rope_cases(),
    ]


def llama_rope_cases() -> list[Case]:
    def scaled(name: str, description: str, theta: float, scaling: Json, off: Json, **rest: Any) -> Case:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 40}
        config = small(**heads, max_position_embeddings=rest.pop("positions", 64), **rope(theta, **scaling))
        off = {"rope_scaling": rope(theta)} | off
        case_name = name if name.startswith("deepseek") else f"llama_{name}"
        return Case(case_name, "llama", f"rope {scaling['kind']}", description, config, off, **rest)

    linear = {"kind": "linear", "factor": 4.0}
    dynamic = {"kind": "dynamic", "factor": 3.0}
    llama3 = {"kind": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3 |= {"original_max_position_embeddings": 32}
    yarn = {"kind": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    yarn_af = yarn | {"attention_factor": 0.7}
    yarn_ms = {"kind": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 4.0}
    yarn_ms |= {"beta_slow": 2.0, "mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False}

    def yarn_ms_but(**change: Any) -> Json:
        return rope(50.0, **{key: value for key, value in (yarn_ms | change).items() if value is not None})

    return [
        scaled(
            "deepseek_coder_linear",
            "deepseek-coder v1: a llama with linear rope scaling by 4 and rope_theta 100000",
            100000.0,
            linear,
            {"rope_theta": rope(10000.0, **linear)},
            rope_key="type",
        ),
        scaled(
            "dynamic",
            "dynamic NTK; sequences cross max_position_embeddings 16, also during the greedy continuation",
            100.0,
            dynamic,
            {"factor": rope(100.0, "dynamic", factor=2.0)},
            positions=16,
            rope_key="type",
        ),
        scaled(
            "llama3",
            "llama3 scaling: the wavelengths span the unscaled, blended and divided bands",
            100.0,
            llama3,
            {"low_freq_factor": rope(100.0, **llama3 | {"low_freq_factor": 2.0})},
        ),
        scaled(
            "yarn",
            "yarn with the default attention factor (0.1 ln 4 + 1) and default betas",
            30.0,
            yarn,
            {"attention_factor": rope(30.0, **yarn, attention_factor=1.0), "linear": rope(30.0, **linear)},
            rope_key="type",
        ),
        scaled(
            "yarn_attention_factor",
            "yarn with an explicit attention_factor; published without original_max_position_embeddings",
            30.0,
            yarn_af,
            {"attention_factor": rope(30.0, **yarn)},
            positions=16,
            omit_rope=("original_max_position_embeddings",),
        ),
        scaled(
            "yarn_mscale",
            "yarn with mscale / mscale_all_dim, explicit betas and truncate false",
            50.0,
            yarn_ms,
            {
                "mscale": yarn_ms_but(mscale=None, mscale_all_dim=None),
                "beta_fast": yarn_ms_but(beta_fast=None),
                "beta_slow": yarn_ms_but(beta_slow=None),
                "truncate": yarn_ms_but(truncate=None),
            },
        ),
    ]


def drop_qk_norm(model: PreTrainedModel) -> None:
    for layer in model.model.layers:
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()


def qwen_cases() -> list[Case]:
    qwen = small()
    slide = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "num_hidden_layers": 4}
    return [
        Case(
            "qwen2",
            "qwen2",
            "qkv bias",
            "biases on q, k, v only; untied; rope_theta left at the family default",
            qwen | rope(10000.0),
            {"rope_theta": rope(100.0)},
            published={"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 2},
        ),
        Case(
            "qwen2_tied",
            "qwen2",
            "tied, float16",
            "tied embeddings, weights saved as float16",
            qwen | {"tie_word_embeddings": True} | rope(200.0),
            {"rope_theta": rope(10000.0)},
            embed_std=0.35,
            dtype="float16",
            published={"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 1},
        ),
        Case(
            "qwen2_sliding",
            "qwen2",
            "sliding window",
            "window 5 on layers 2 and 3 only (max_window_layers 2 of 4)",
            qwen | slide | {"tie_word_embeddings": True, "intermediate_size": 20} | rope(200.0),
            {
                "sliding_window": {"use_sliding_window": False},
                "window_off_by_one": {"sliding_window": 6},
                "all_layers_slide": {"max_window_layers": 0},
            },
            embed_std=0.35,
        ),
        Case(
            "qwen3",
            "qwen3",
            "qk-norm",
            "per-head q and k norms before the rotation, head_dim 12 (hidden / heads = 8), large eps",
            small(head_dim=12, rms_norm_eps=0.05, intermediate_size=36, **rope(200.0)),
            {"rms_norm_eps": {"rms_norm_eps": 1e-6}, "rope_theta": rope(10000.0)},
            {"qk_norm": drop_qk_norm},
            published={"sliding_window": None, "use_sliding_window": False, "max_window_layers": 2},
        ),
        *qwen3_moe_cases(),
    ]


def qwen3_moe_cases() -> list[Case]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    moe = small(head_dim=8, intermediate_size=24, **experts, **rope(200.0))
    mixed = {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    mixed |= {"tie_word_embeddings": True, "intermediate_size": 16, "moe_intermediate_size": 8}
    text = {
        "sliding_window": None,
        "use_sliding_window": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    return [
        Case(
            "qwen3_moe",
            "qwen3_moe",
            "norm_topk_prob true",
            "top 2 of 4 experts in every layer, chosen probabilities renormalised; sharded file",
            moe | {"norm_topk_prob": True},
            {"norm_topk_prob": {"norm_topk_prob": False}},
            {"qk_norm": drop_qk_norm},
            shard="30KB",
            published=text,
        ),
        Case(
            "qwen3_moe_unnormed",
            "qwen3_moe",
            "norm_topk_prob false",
            "top 2 of 4 experts, the softmax probabilities used as they are",
            moe | {"norm_topk_prob": False},
            {"norm_topk_prob": {"norm_topk_prob": True}},
            {"qk_norm": drop_qk_norm},
            published=text | {"norm_topk_prob": False},
        ),
        Case(
            "qwen3_moe_mixed",
            "qwen3_moe",
            "dense and sparse layers",
            "decoder_sparse_step 2 and mlp_only_layers [3] of 4 layers: only layer 1 has experts; tied",
            moe | mixed | {"norm_topk_prob": True},
            {"norm_topk_prob": {"norm_topk_prob": False}},
            {"qk_norm": drop_qk_norm},
            embed_std=0.35,
            published={"sliding_window": None, "use_sliding_window": False},
        ),
    ]


def mistral_cases() -> list[Case]:
    experts = {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 12,
        "rms_norm_eps": 1e-5,
    }
    return [
        Case(
            "mistral",
            "mistral",
            "no window, bfloat16",
            "sliding_window null, head_dim 12 (hidden / heads = 8), weights saved as bfloat16",
            small(sliding_window=None, head_dim=12, rms_norm_eps=1e-5, **rope(200.0)),
            {"rope_theta": rope(10000.0), "no_window": {"sliding_window": 8}},
            dtype="bfloat16",
            published={"sliding_window": None},
        ),
        Case(
            "mistral_sliding",
            "mistral",
            "sliding window",
            "window 6 in every layer",
            small(sliding_window=6, rms_norm_eps=1e-5, **rope(10000.0)),
            {"sliding_window": {"sliding_window": None}, "window_off_by_one": {"sliding_window": 7}},
        ),
        Case(
            "mixtral",
            "mixtral",
            "mixture of experts",
            "top 2 of 4 experts, renormalised; rope_theta is the family default 1e6, omitted when published",
            small(**experts, **rope(1e6)),
            {"rope_theta": rope(10000.0), "top_k": {"num_experts_per_tok": 1}},
            published={"sliding_window": None, "router_aux_loss_coef": 0.02, "output_router_logits": False},
        ),
    ]


def starcoder_cases() -> list[Case]:
    bigcode = small(bos_token_id=0, eos_token_id=0, norm_epsilon=0.05, sliding_window=7)
    noise = {
        "mlp_type": "default",
        "norm_type": "layer_norm",
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": True,
    }
    return [
        Case(
            "starcoder2",
            "starcoder2",
            "layer norm, biases, window",
            "LayerNorm with bias, bias on every projection, ungated tanh GELU, window 7, tied, large eps",
            bigcode | {"use_bias": True, "intermediate_size": 80} | rope(200.0),
            {
                "sliding_window": {"sliding_window": None},
                "window_off_by_one": {"sliding_window": 8},
                "norm_epsilon": {"norm_epsilon": 1e-5},
                "rope_theta": rope(10000.0),
                "activation": {"hidden_act": "silu"},
            },
            embed_std=0.25,
            bias_std=0.15,
            branch_gain=2.0,
            published=noise | {"embedding_dropout": 0.0, "residual_dropout": 0.0},
        )
    ]


def drop_embed_scale(model: PreTrainedModel) -> None:
    model.model.embed_tokens.embed_scale.fill_(1.0)


def drop_norm_offset(model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.sub_(1.0)


def gemma_cases() -> list[Case]:
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    gemma = small(head_dim=12, num_key_value_heads=1, rms_norm_eps=0.05, **tokens, **rope(10000.0))
    gemma |= {"num_hidden_layers": 3, "intermediate_size": 24}
    soft = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 20}
    edits: dict[str, Edit] = {"embed_scale": drop_embed_scale, "norm_offset": drop_norm_offset}
    return [
        Case(
            "gemma",
            "gemma",
            "gemma 1",
            "unit-offset norms, embeddings times sqrt(hidden), tanh GEGLU, one kv head, head_dim 12, tied",
            gemma,
            {"rms_norm_eps": {"rms_norm_eps": 1e-6}, "activation": {"hidden_act": "silu"}},
            edits,
            embed_std=0.2,
            branch_gain=3.0,
            norm_shift=0.4,
            published={"hidden_act": "gelu"},  # as Gemma 1 was published; it means gelu_pytorch_tanh
        ),
        Case(
            "gemma2",
            "gemma2",
            "gemma 2",
            "gemma plus soft-caps, query_pre_attn_scalar, four norms a layer, window 6 on layers 0 and 2",
            gemma | soft | {"num_key_value_heads": 2, "sliding_window": 6},
            {
                "sliding_window": {"sliding_window": 128},
                "window_off_by_one": {"sliding_window": 7},
                "all_layers_slide": {"layer_types": ["sliding_attention"] * 3},
                "attn_logit_softcapping": {"attn_logit_softcapping": None},
                "final_logit_softcapping": {"final_logit_softcapping": None},
                "query_pre_attn_scalar": {"query_pre_attn_scalar": 12},
                "rms_norm_eps": {"rms_norm_eps": 1e-6},
            },
            edits,
            embed_std=0.14,
            norm_shift=0.5,
            published={"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"},
        ),
    ]


def granite_cases() -> list[Case]:
    scales = {"embedding_multiplier": 2.5, "residual_multiplier": 0.3, "attention_multiplier": 0.15}
    scales |= {"logits_scaling": 1.5}
    return [
        Case(
            "granite",
            "granite",
            "multipliers",
            "embedding, residual, attention and logit multipliers; tied; attention and mlp biases",
            small(tie_word_embeddings=True, attention_bias=True, mlp_bias=True, **scales, **rope(200.0)),
            {name: {name: 1.0} for name in scales}
            | {"attention_1/sqrt(d)": {"attention_multiplier": 8**-0.5}, "rope_theta": rope(10000.0)},
            embed_std=0.4,
            bias_std=0.3,
            branch_gain=5.0,
        )
    ]


def all_cases() -> list[Case]:
    groups = [llama_cases(), qwen_cases(), mistral_cases(), starcoder_cases(), gemma_cases(), granite_cases()]
    return [case for group in groups for case in group]


# --- models ---------------------------------------------------------------------------------------


def build(case: Case, **override: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(case.family, **copy.deepcopy(case.config | override))
    kinds = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **kinds).eval()


def load(folder: Path) -> PreTrainedModel:
    kinds = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kinds).eval()


def norm_identity(case: Case) -> float:
    """The norm weight that changes nothing (Gemma multiplies by 1 + weight)."""
    return 0.0 if case.family.startswith("gemma") else 1.0


def kind_of(name: str) -> str:
    """...q_proj.bias -> bias:q_proj, ...input_layernorm.weight -> norm:input_layernorm, others -> matrix."""
    owner, leaf = name.split(".")[-2:]
    if leaf == "bias":
        return f"bias:{owner}"
    return f"norm:{owner}" if "norm" in owner else "matrix"


def randomise(case: Case, model: PreTrainedModel) -> None:
    """Sizeable random weights: see the module docstring."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    norm_centre = norm_identity(case) + case.norm_shift
    for name, weight in sorted(model.named_parameters()):
        noise = rng.standard_normal(tuple(weight.shape))
        kind = kind_of(name)
        if kind.startswith("bias"):
            values = case.bias_std * noise
        elif kind.startswith("norm"):
            values = norm_centre + 0.3 * noise
        elif "embed_tokens" in name:
            values = case.embed_std * noise
        else:  # linear maps, routers and stacked experts: fan-in is the last axis
            values = matrix_gain(case, name) * weight.shape[-1] ** -0.5 * noise
        weight.copy_(torch.from_numpy(values.astype(np.float32)))


def matrix_gain(case: Case, name: str) -> float:
    if any(part in name for part in ("o_proj", "down_proj", "c_proj")):
        return 1.2 * case.branch_gain
    if "q_proj" in name or "k_proj" in name or "lm_head" in name or name.endswith("mlp.gate.weight"):
        return 1.6
    return 1.2


def forward(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Logits [B, T, V] by a fresh copy of `model` (the dynamic rotary embedding keeps state)."""
    fresh = copy.deepcopy(model)
    return fresh(input_ids=torch.from_numpy(ids.astype(np.int64)), use_cache=False).logits.numpy()


def greedy(model: PreTrainedModel, prompt: np.ndarray) -> tuple[np.ndarray, float]:
    tokens, margin = list(prompt), float("inf")
    for _ in range(STEPS):
        logits = forward(model, np.array([tokens]))[0, -1]
        second, first = np.sort(logits)[-2:]
        margin = min(margin, float(first - second))
        tokens.append(int(logits.argmax()))
    return np.array(tokens[len(prompt) :], np.int32), margin


def router_margin(model: PreTrainedModel, ids: np.ndarray) -> float | None:
    """Least gap between the last chosen and first rejected expert, or None without experts."""
    top_k = getattr(model.config, "num_experts_per_tok", None)
    if top_k is None:
        return None
    gates = [module for name, module in model.named_modules() if type(module).__name__.endswith("TopKRouter")]
    seen: list[torch.Tensor] = []
    hooks = [gate.register_forward_hook(lambda _m, _i, out: seen.append(out[0])) for gate in gates]
    model(input_ids=torch.from_numpy(ids.astype(np.int64)), use_cache=False)
    for hook in hooks:
        hook.remove()
    ordered = torch.cat(seen).softmax(-1).sort(-1, descending=True).values
    return float((ordered[:, top_k - 1] - ordered[:, top_k]).min())


# --- what is recorded -----------------------------------------------------------------------------


@dataclass
class Reference:
    ids: np.ndarray
    logits: np.ndarray
    prompt: np.ndarray
    greedy: np.ndarray
    margin: float
    router: float | None

    def save(self, path: Path) -> None:
        margin = np.float32(self.margin)
        arrays = {"ids": self.ids, "logits": self.logits, "prompt": self.prompt, "greedy": self.greedy}
        np.savez(path, **arrays, greedy_margin=margin)


def make_reference(case: Case, model: PreTrainedModel) -> Reference:
    """Draw ids and prompts until no argmax and no expert choice is a close call."""
    vocab = model.config.vocab_size
    rng = np.random.default_rng(zlib.crc32(f"{case.name} ids".encode()))
    for _ in range(400):
        ids = rng.integers(0, vocab, (2, SEQ)).astype(np.int32)
        prompt = rng.integers(0, vocab, PROMPT).astype(np.int32)
        if (router := router_margin(model, ids)) is not None and router < MIN_ROUTER_MARGIN:
            continue
        new, margin = greedy(model, prompt)
        if margin < MIN_GREEDY_MARGIN or len(set(new.tolist())) < MIN_DISTINCT:
            continue
        if router is not None:
            router = min(router, router_margin(model, np.concatenate([prompt, new])[None]))
            if router < MIN_ROUTER_MARGIN:
                continue
        return Reference(ids, forward(model, ids), prompt, new, margin, router)
    raise RuntimeError(f"{case.name}: no unambiguous ids and prompt found")


def reset_kind(kind: str, identity: float) -> Edit:
    def edit(model: PreTrainedModel) -> None:
        for name, weight in model.named_parameters():
            if kind_of(name) == kind:
                weight.fill_(0.0 if kind.startswith("bias") else identity)

    return edit


def feature_effects(case: Case, model: PreTrainedModel, ref: Reference) -> dict[str, float]:
    """Largest logit change when each feature is turned off, one at a time."""
    kinds = sorted({kind_of(name) for name, _ in model.named_parameters()} - {"matrix"})
    edits = case.edits | {kind: reset_kind(kind, norm_identity(case)) for kind in kinds}
    variants: dict[str, PreTrainedModel] = {}
    for feature, override in case.off.items():
        variants[feature] = build(case, **override)
        variants[feature].load_state_dict(model.state_dict())
    for feature, edit in edits.items():
        variants[feature] = copy.deepcopy(model)
        edit(variants[feature])
    changes = {name: np.abs(forward(other, ref.ids) - ref.logits).max() for name, other in variants.items()}
    weak = {name: change for name, change in changes.items() if not change > MIN_EFFECT}
    assert changes, f"{case.name}: nothing to see"
    assert not weak, f"{case.name}: features that hardly show: {weak}"
    return {name: round(float(change), 3) for name, change in changes.items()}


def published_config(case: Case, config: PreTrainedConfig) -> Json:
    """The config as transformers 4 checkpoints carry it: rope at the top level, family defaults left out."""
    defaults = type(config)()
    given = {key: value for key, value in case.config.items() if key != "rope_parameters"}
    out = {key: value for key, value in given.items() if getattr(defaults, key, None) != value}
    scaling = dict(case.config["rope_parameters"])
    theta, kind = scaling.pop("rope_theta"), scaling.pop("rope_type")
    if theta != type(config).default_theta:
        out["rope_theta"] = theta
    if kind != "default":
        scaling = {key: value for key, value in scaling.items() if key not in case.omit_rope}
        out["rope_scaling"] = scaling | {case.rope_key: kind}
    out |= {"architectures": config.architectures, "model_type": case.family, "torch_dtype": case.dtype}
    out |= {"initializer_range": 0.02, "use_cache": True, "transformers_version": "4.40.0"}
    return {key: value for key, value in (out | case.published).items() if key not in case.omit}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def published_change(folder: Path, ref: Reference) -> float:
    """Largest logit change when transformers reads the published config in place of its own."""
    with tempfile.TemporaryDirectory() as name:
        for file in folder.glob("model*"):
            shutil.copy(file, name)
        shutil.copy(folder / "config.published.json", Path(name) / "config.json")
        return float(np.abs(forward(load(Path(name)), ref.ids) - ref.logits).max())


def describe(case: Case, ref: Reference, effects: dict[str, float]) -> Json:
    entry = {
        "case": case.name,
        "family": case.family,
        "variant": case.variant,
        "description": case.description,
    }
    entry |= {"dtype": case.dtype, "sharded": case.shard is not None, "feature_effect": effects}
    entry |= {"greedy_margin": round(ref.margin, 4), "router_margin": ref.router and round(ref.router, 5)}
    entry |= {"logits_std": round(float(ref.logits.std()), 3)}
    return entry | {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}


def make_case(case: Case) -> Json:
    folder = OUT / case.name
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case)
    randomise(case, model)
    model.to(getattr(torch, case.dtype)).save_pretrained(folder, max_shard_size=case.shard or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = load(folder)
    ref = make_reference(case, model)
    ref.save(folder / "reference.npz")
    write_json(folder / "config.published.json", published_config(case, model.config))
    entry = describe(case, ref, feature_effects(case, model, ref))
    print_row(entry, folder, published_change(folder, ref))
    return entry


def print_row(entry: Json, folder: Path, published: float) -> None:
    assert published == 0.0, f"{entry['case']}: the published config means something else: {published}"
    assert 0.8 < entry["logits_std"] < 4.0, f"{entry['case']}: logits std {entry['logits_std']}"
    weakest = min(entry["feature_effect"], key=entry["feature_effect"].get)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1024
    router = "-" if entry["router_margin"] is None else f"{entry['router_margin']:.4f}"
    margins = f"margin {entry['greedy_margin']:.3f}  router {router:<6}"
    count, least = len(entry["feature_effect"]), entry["feature_effect"][weakest]
    effect = f"{count:2d} features, least {weakest} {least:.2f}"
    head = f"{entry['case']:<28} {size:6.1f} KB  std {entry['logits_std']:5.2f}"
    print(f"{head}  {margins}  published {published:.0e}  {effect}", flush=True)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--case", help="make only this case")
    wanted = parser.parse_args().case
    cases = [case for case in all_cases() if wanted in (None, case.name)]
    if not cases:
        parser.error(f"no case {wanted!r}; there are: {', '.join(case.name for case in all_cases())}")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    index = OUT / "index.json"
    known = json.loads(index.read_text()) if wanted and index.exists() else []
    entries = {entry["case"]: entry for entry in known}
    with torch.no_grad():
        entries |= {case.name: make_case(case) for case in cases}
    order = [case.name for case in all_cases() if case.name in entries]
    write_json(index, [entries[name] for name in order])


if __name__ == "__main__":
    main()
