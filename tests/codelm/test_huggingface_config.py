"""config.json of the tiny models that transformers wrote (tests/golden/parity), in both styles and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from codelm.config import ModelConfig, MoEConfig, RopeConfig, dial, lookup
from codelm.errors import UserError
from codelm.huggingface_config import family_of, model_config, read_config, to_huggingface
from codelm.huggingface_families import FAMILIES

PARITY = Path(__file__).parent.parent / "golden" / "parity"
MIXED = "qwen3_moe_mixed"  # dense and sparse layers in one model: not supported
CASES = sorted(path.name for path in PARITY.iterdir() if path.is_dir() and path.name != MIXED)

# What transformers writes and codelm neither needs nor knows: token ids (the tokenizer has them), dropout and
# initialisation (of a training run), switches of its own.
IGNORED = {
    *("bos_token_id", "eos_token_id", "pad_token_id"),
    *("attention_dropout", "embedding_dropout", "residual_dropout", "router_jitter_noise", "initializer_range"),
    *("use_cache", "output_router_logits", "pretraining_tp", "transformers_version", "use_bidirectional_attention"),
}

Json = dict[str, Any]


def content_of(case: str, style: str = "config") -> Json:
    return json.loads((PARITY / case / f"{style}.json").read_text())


def model_of(case: str) -> ModelConfig:
    return model_config(content_of(case), case)


def without(content: Json, *names: str) -> Json:
    return {name: value for name, value in content.items() if name not in names}


@pytest.mark.parametrize("case", CASES)
def test_both_styles_say_the_same(case: str) -> None:
    published = content_of(case, "config.published")
    if case == "mixtral":  # the generator gave it another weight of the training loss
        published["router_aux_loss_coef"] = 0.001
    assert model_config(published, case) == model_of(case)


@pytest.mark.parametrize("case", CASES)
def test_written_as_transformers_writes_it(case: str) -> None:
    theirs = content_of(case)
    ours = to_huggingface(model_of(case), theirs["model_type"])
    if theirs["dtype"] == "float16":  # kept as float32
        ours["dtype"] = "float16"
    assert ours == without(theirs, *IGNORED)


# The fields of each fixture that set it apart (see its description in index.json).
EXPECTED: dict[str, Json] = {
    "llama_gqa": {"heads": 4, "kv_heads": 2, "norm_eps": 0.05, "rope.theta": 100.0, "tied_embeddings": False},
    "llama_tied": {"kv_heads": 4, "tied_embeddings": True, "rope.theta": 10_000.0},
    "llama_bias": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "llama_head_dim": {"width": 36, "heads": 3, "head_dim": 10},
    "deepseek_coder_linear": {"rope": RopeConfig(100_000.0, "linear", 4.0)},
    "llama_dynamic": {"rope": RopeConfig(100.0, "dynamic", 3.0, 16)},
    "llama_llama3": {"rope": RopeConfig(100.0, "llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=4.0)},
    "llama_yarn": {"rope": RopeConfig(30.0, "yarn", 4.0, 16)},
    "llama_yarn_attention_factor": {"rope": RopeConfig(30.0, "yarn", 4.0, 16, attention_factor=0.7)},
    "llama_yarn_mscale": {"rope.beta_fast": 4.0, "rope.beta_slow": 2.0, "rope.mscale": 1.5, "rope.truncate": False},
    "qwen2": {"qkv_bias": True, "out_bias": False, "sliding_window": 0},
    "qwen2_tied": {"param_dtype": "float32", "compute_dtype": "float32", "tied_embeddings": True, "sliding_window": 0},
    "qwen2_sliding": {"sliding_window": 5, "window_from_layer": 2, "full_attention_every": 0, "depth": 4},
    "qwen3": {"qk_norm": True, "head_dim": 12, "qkv_bias": False},
    "qwen3_moe": {"moe.experts": 4, "moe.top_k": 2, "moe.expert_width": 12, "moe.renormalise": True, "qk_norm": True},
    "qwen3_moe_unnormed": {"moe.renormalise": False, "moe.balance": "loss", "moe.balance_weight": 0.002},
    "mistral": {"param_dtype": "bfloat16", "compute_dtype": "bfloat16", "head_dim": 12, "sliding_window": 0},
    "mistral_sliding": {"sliding_window": 6, "window_from_layer": 0, "full_attention_every": 0},
    "mixtral": {"moe.experts": 4, "moe.expert_width": 12, "moe.renormalise": True, "rope.theta": 1e6, "norm_eps": 1e-5},
    "starcoder2": {"norm": "layernorm", "mlp": "gelu", "mlp_bias": True, "out_bias": True, "sliding_window": 7},
    "gemma": {"mlp": "geglu", "norm_unit_offset": True, "embedding_multiplier": 32**0.5, "tied_embeddings": True},
    "gemma2": {
        "post_norms": True,
        "logit_softcap": 5.0,
        "attention_softcap": 3.0,
        "attention_multiplier": 20**-0.5,
        "sliding_window": 6,
        "window_from_layer": 0,
        "full_attention_every": 2,
    },
    "granite": {
        "embedding_multiplier": 2.5,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.15,
        "logit_multiplier": 1 / 1.5,
        "remat": "none",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_read(case: str) -> None:
    model = model_of(case)
    assert {path: lookup(model, path) for path in EXPECTED[case]} == EXPECTED[case]


STUB = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"kv_heads": 32, "head_dim": 2, "rope.theta": 10_000.0, "norm_eps": 1e-6, "tied_embeddings": False}),
        ("mistral", {"kv_heads": 8, "sliding_window": 4096}),
        ("qwen2", {"kv_heads": 32, "sliding_window": 0}),
        ("qwen3", {"kv_heads": 32, "head_dim": 128}),
        ("mixtral", {"kv_heads": 8, "norm_eps": 1e-5, "rope.theta": 1e6, "moe.experts": 8, "moe.top_k": 2}),
        ("qwen3_moe", {"kv_heads": 4, "moe.experts": 128, "moe.top_k": 8, "moe.renormalise": False, "head_dim": 2}),
        ("starcoder2", {"kv_heads": 2, "norm_eps": 1e-5, "tied_embeddings": True, "qkv_bias": True}),
        ("gemma", {"kv_heads": 16, "head_dim": 256, "tied_embeddings": True, "attention_multiplier": 0.0}),
        ("gemma2", {"kv_heads": 4, "sliding_window": 4096, "logit_softcap": 30.0, "attention_multiplier": 1 / 16}),
        ("granite", {"kv_heads": 32, "attention_multiplier": 1.0, "logit_multiplier": 1.0, "tied_embeddings": False}),
    ],
)
def test_missing_fields_mean_what_they_mean_to_transformers(family: str, expected: Json) -> None:
    content = {"model_type": family, **STUB, **({"moe_intermediate_size": 8} if family == "qwen3_moe" else {})}
    model = model_config(content, "config.json")
    assert {path: lookup(model, path) for path in expected} == expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("ssss", (7, 0, 0)),
        ("ffff", (0, 0, 0)),
        ("fsss", (7, 1, 0)),
        ("fffs", (7, 3, 0)),
        ("sfsf", (7, 0, 2)),
        ("ssfs", (7, 0, 3)),
    ],
)
def test_layer_types_win(types: str, expected: tuple[int, int, int]) -> None:
    names = {"s": "sliding_attention", "f": "full_attention"}
    content = content_of("qwen2_sliding") | {"layer_types": [names[kind] for kind in types], "sliding_window": 7}
    model = model_config(content, "config.json")
    assert (model.sliding_window, model.window_from_layer, model.full_attention_every) == expected
    assert model_config(to_huggingface(model, "qwen2"), "") == model


def test_a_yarn_without_factor_stretches_to_max_position_embeddings() -> None:
    content = content_of("llama_yarn")
    del content["rope_parameters"]["factor"]
    assert model_config(content, "").rope.factor == 4.0


def test_a_multiplier_left_at_its_default_is_written_out() -> None:
    granite = dataclasses.replace(model_of("granite"), attention_multiplier=0.0)
    assert to_huggingface(granite, "granite")["attention_multiplier"] == 8**-0.5
    gemma2 = dataclasses.replace(model_of("gemma2"), attention_multiplier=0.0)
    assert to_huggingface(gemma2, "gemma2")["query_pre_attn_scalar"] == 12


# --- families of models that codelm trained ---------------------------------------------------------------------------

PLAIN = dial(ModelConfig(depth=4), 512)
EXPERTS = MoEConfig(experts=8, expert_width=64)
GEMMA = {"mlp": "geglu", "norm_unit_offset": True, "embedding_multiplier": 16.0}


@pytest.mark.parametrize("case", CASES)
def test_an_imported_model_has_a_family(case: str) -> None:
    family = content_of(case)["model_type"]
    assert family_of(model_of(case)) == ("llama" if case == "mistral" else family)  # without its window it is one


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "llama"),
        ({"remat": "full", "unroll": 3, "attention": "xla", "param_dtype": "bfloat16"}, "llama"),
        ({"rope": RopeConfig(scaling="yarn", factor=4.0, original_seq_len=2048)}, "llama"),
        ({"heads": 3, "kv_heads": 1}, "mistral"),  # transformers refuses a llama whose heads do not divide the width
        ({"sliding_window": 64}, "mistral"),
        ({"qkv_bias": True}, "qwen2"),
        ({"qk_norm": True}, "qwen3"),
        ({"qk_norm": True, "sliding_window": 64, "full_attention_every": 3}, "qwen3"),
        ({"moe": EXPERTS}, "mixtral"),
        ({"moe": dataclasses.replace(EXPERTS, capacity_factor=1.25, router_z_weight=1e-3)}, "mixtral"),
        ({"moe": EXPERTS, "qk_norm": True}, "qwen3_moe"),
        ({**GEMMA}, "gemma"),
        ({**GEMMA, "post_norms": True, "sliding_window": 8, "full_attention_every": 2}, "gemma2"),
        ({"residual_multiplier": 0.5}, "granite"),
    ],
)
def test_family_of_a_model_codelm_trained(changes: Json, family: str) -> None:
    model = dataclasses.replace(PLAIN, **changes)
    assert family_of(model) == family
    again = model_config(to_huggingface(model, family), "")
    assert (again.sliding_window, again.full_attention_every) == (model.sliding_window, model.full_attention_every)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"moe": dataclasses.replace(EXPERTS, shared_experts=1)}, "moe.shared_experts=1"),
        ({"moe": dataclasses.replace(EXPERTS, balance="bias")}, "moe.balance=bias"),
        ({"norm": "layernorm"}, "norm=layernorm"),
        ({"qk_norm": True, "logit_softcap": 30.0}, "logit_softcap=30.0"),
        ({"sliding_window": 64, "full_attention_every": 2}, "full_attention_every=2"),
    ],
)
def test_what_no_family_can_hold_is_named(changes: Json, named: str) -> None:
    with pytest.raises(UserError, match=f"no Hugging Face family.*model.{named}"):
        family_of(dataclasses.replace(PLAIN, **changes))


@pytest.mark.parametrize(
    ("family", "case", "named"),
    [
        ("llama", "qwen3", "model.qk_norm=True"),
        ("llama", "mixtral", "model.moe.experts=4"),
        ("mixtral", "llama_gqa", "model.moe.experts=0"),
        ("mistral", "qwen2_sliding", "model.window_from_layer=2"),
        ("gemma", "gemma2", "model.post_norms=True"),
        ("qwen2", "granite", "model.logit_multiplier="),
    ],
)
def test_what_one_family_cannot_hold_is_named(family: str, case: str, named: str) -> None:
    with pytest.raises(UserError, match=f"a {family} model cannot have .*{named}"):
        to_huggingface(model_of(case), family)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["config", "config.published"])
def test_dense_and_sparse_layers_in_one_model_are_refused(style: str) -> None:
    with pytest.raises(UserError, match=r"here: decoder_sparse_step=2 is not supported; it must be 1"):
        model_config(content_of(MIXED, style), "here")
    with pytest.raises(UserError, match=r"mlp_only_layers=\[3\] is not supported; it must be \[\]"):
        model_config(content_of(MIXED, style) | {"decoder_sparse_step": 1}, "here")


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (
            "llama_gqa",
            {"model_type": "gpt2"},
            f"model_type 'gpt2' is not supported; supported are {', '.join(FAMILIES)}",
        ),
        ("llama_gqa", {"model_type": None}, "model_type None is not supported"),
        ("llama_gqa", {"architectures": ["LlamaForSequenceClassification"]}, "architectures .* must be .*ForCausalLM"),
        ("llama_gqa", {"hidden_act": "relu"}, 'hidden_act="relu" is not supported; it must be "silu"'),
        ("starcoder2", {"hidden_act": "gelu"}, 'hidden_act="gelu" is not supported'),
        ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("llama_gqa", {"quantization_config": {"quant_method": "awq"}}, "quantization_config.*unquantised"),
        ("llama_gqa", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported; it must be 1.0"),
        ("llama_gqa", {"dtype": "float8_e4m3fn"}, "dtype 'float8_e4m3fn' is not supported; supported are bfloat16"),
        ("llama_gqa", {"rope_scaling": {"type": "longrope"}}, "rope_type 'longrope' is not supported.*default, linear"),
        ("llama_gqa", {"rope_scaling": {"type": "linear"}}, "rope_scaling lacks factor, which linear needs"),
        ("llama_gqa", {"rope_scaling": {"type": "linear", "factor": "4"}}, "rope_scaling.factor takes a number"),
        (
            "llama_gqa",
            {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}},
            "rope_parameters must be one object",
        ),
        ("llama_gqa", {"hidden_size": "32"}, "hidden_size takes an integer, not '32'"),
        ("llama_gqa", {"num_hidden_layers": 0}, "num_hidden_layers must be above 0, not 0"),
        ("llama_gqa", {"tie_word_embeddings": None}, "tie_word_embeddings takes True or False, not None"),
        ("llama_gqa", {"num_key_value_heads": 3}, "model.heads=4 is not divisible by model.kv_heads=3"),
        ("llama_gqa", {"head_dim": 7}, "head_dim=7 must be even"),
        ("granite", {"logits_scaling": 0.0}, "logits_scaling must be above 0"),
        ("qwen2_sliding", {"layer_types": ["full_attention"]}, "layer_types must name .* for each of 4 layers"),
        ("qwen2_sliding", {"layer_types": ["chunked_attention"] * 4}, "layer_types must name"),
        (
            "qwen2_sliding",
            {"sliding_window": None},
            "layer_types has layers that slide, but there is no sliding_window",
        ),
        ("qwen2_sliding", {"use_sliding_window": False}, "there is no sliding_window"),
    ],
)
def test_what_is_not_supported_is_named(case: str, changes: Json, message: str) -> None:
    with pytest.raises(UserError, match=f"^here.*{message}"):
        model_config(content_of(case) | changes, "here")


def test_an_irregular_pattern_of_windows_is_refused() -> None:
    types = [{"s": "sliding_attention", "f": "full_attention"}[kind] for kind in "sffs"]
    with pytest.raises(UserError, match="layer_types: this pattern of full and sliding layers"):
        model_config(content_of("qwen2_sliding") | {"layer_types": types}, "here")


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"])
def test_a_missing_size_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"^here lacks {name}$"):
        model_config(without(content_of("llama_gqa"), name), "here")


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot read"), ("{", "is not JSON"), ("[]", "not a JSON object")]
)
def test_an_unreadable_config_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path)
