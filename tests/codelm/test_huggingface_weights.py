"""Weights of the tiny models that transformers saved (tests/golden/parity), into our layout and back."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codelm import huggingface_weights
from codelm.config import ModelConfig
from codelm.errors import UserError
from codelm.huggingface_config import read_config
from codelm.huggingface_weights import layout, load_parameters, save_parameters
from codelm.parameters import block_parameters, outer_parameters
from codelm.safetensors_files import StoredTensor

ROOT = Path(__file__).parent.parent.parent
PARITY = ROOT / "tests" / "golden" / "parity"
CASES = sorted(p.name for p in PARITY.iterdir() if p.is_dir() and p.name != "qwen3_moe_mixed")
AXES = ("data", "fsdp", "expert", "tensor", "context")

Tensors = dict[str, np.ndarray]


def tensors_of(folder: Path) -> Tensors:
    """Everything in a folder, by the library that transformers uses."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def load(folder: Path) -> tuple[dict[str, jax.Array], ModelConfig, str]:
    config, family = read_config(folder)
    return load_parameters(folder, config, family), config, family


def identical(left: Any, right: Any) -> bool:
    left, right = np.asarray(left), np.asarray(right)
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a fixture to spoil."""
    return Path(shutil.copytree(PARITY / "llama_gqa", tmp_path / "model"))


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_is_there(case: str) -> None:
    parameters, config, _ = load(PARITY / case)
    expected = {name: parameter.shape for name, parameter in outer_parameters(config).items()}
    expected |= {f"blocks.{name}": (config.depth, *p.shape) for name, p in block_parameters(config).items()}
    assert {name: array.shape for name, array in parameters.items()} == expected
    assert {array.dtype.name for array in parameters.values()} == {config.param_dtype}


def attention(tensors: Tensors, layer: int, heads: int, kv_heads: int) -> Tensors:
    prefix = f"model.layers.{layer}.self_attn."
    query, key, value, out = (tensors[f"{prefix}{name}_proj.weight"] for name in "qkvo")
    width = query.shape[1]
    return {
        "query": query.T.reshape(width, heads, -1),
        "key": key.T.reshape(width, kv_heads, -1),
        "value": value.T.reshape(width, kv_heads, -1),
        "out": out.T.reshape(heads, -1, width),
    }


def mlp(tensors: Tensors, layer: int, **names: str) -> Tensors:
    return {own: tensors[f"model.layers.{layer}.{name}.weight"].T for own, name in names.items()}


def vectors(tensors: Tensors, layer: int, **names: str) -> Tensors:
    return {own: tensors[f"model.layers.{layer}.{name}"] for own, name in names.items()}


def experts(tensors: Tensors, layer: int, module: str, **names: str) -> Tensors:
    prefix = f"model.layers.{layer}.{module}."
    return {
        "router": tensors[f"{prefix}gate.weight"].T,
        **{
            f"experts_{own}": np.stack([tensors[f"{prefix}experts.{e}.{name}.weight"].T for e in range(4)])
            for own, name in names.items()
        },
    }


GATED = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
NORMS = {"attention_norm": "input_layernorm.weight", "mlp_norm": "post_attention_layernorm.weight"}
EXPECTED: dict[str, Callable[[Tensors, int], Tensors]] = {
    "llama_gqa": lambda t, i: attention(t, i, 4, 2) | mlp(t, i, **GATED) | vectors(t, i, **NORMS),
    "llama_head_dim": lambda t, i: attention(t, i, 3, 1),
    "llama_bias": lambda t, i: {
        "query_bias": t[f"model.layers.{i}.self_attn.q_proj.bias"].reshape(4, 8),
        "value_bias": t[f"model.layers.{i}.self_attn.v_proj.bias"].reshape(2, 8),
        **vectors(t, i, out_bias="self_attn.o_proj.bias", gate_bias="mlp.gate_proj.bias"),
        **vectors(t, i, up_bias="mlp.up_proj.bias", down_bias="mlp.down_proj.bias"),
    },
    "qwen3": lambda t, i: vectors(
        t, i, query_norm="self_attn.q_norm.weight", key_norm="self_attn.k_norm.weight", **NORMS
    ),
    "qwen3_moe": lambda t, i: experts(t, i, "mlp", gate="gate_proj", up="up_proj", down="down_proj"),
    "mixtral": lambda t, i: experts(t, i, "block_sparse_moe", gate="w1", up="w3", down="w2"),
    "starcoder2": lambda t, i: {
        **mlp(t, i, up="mlp.c_fc", down="mlp.c_proj"),
        **vectors(t, i, up_bias="mlp.c_fc.bias", down_bias="mlp.c_proj.bias"),
        **vectors(t, i, attention_norm_bias="input_layernorm.bias", mlp_norm_bias="post_attention_layernorm.bias"),
    },
    "gemma2": lambda t, i: vectors(
        t,
        i,
        attention_norm="input_layernorm.weight",
        attention_post_norm="post_attention_layernorm.weight",
        mlp_norm="pre_feedforward_layernorm.weight",
        mlp_post_norm="post_feedforward_layernorm.weight",
    ),
}


@pytest.mark.parametrize("case", EXPECTED)
def test_values_are_where_they_belong(case: str) -> None:
    parameters, config, _ = load(PARITY / case)
    tensors = tensors_of(PARITY / case)
    for layer in range(config.depth):
        for name, value in EXPECTED[case](tensors, layer).items():
            assert identical(parameters[f"blocks.{name}"][layer], value), (name, layer)
    outer = {"embedding": "model.embed_tokens.weight", "final_norm": "model.norm.weight"}
    outer |= {} if config.tied_embeddings else {"head": "lm_head.weight"}
    outer |= {"final_norm_bias": "model.norm.bias"} if config.norm == "layernorm" else {}
    for name, stored in outer.items():
        assert identical(parameters[name], tensors[stored]), name


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        ("llama_gqa", (1, 4, 1, 2, 1)),
        ("llama_bias", (2, 2, 1, 2, 1)),
        ("qwen3_moe", (1, 2, 2, 2, 1)),
        ("mixtral", (1, 1, 4, 2, 1)),
        ("mistral", (1, 2, 1, 2, 2)),
    ],
)
def test_split_over_devices_it_is_the_same(case: str, sizes: tuple[int, ...]) -> None:
    whole, config, family = load(PARITY / case)
    mesh = jax.make_mesh(sizes, AXES)
    with jax.set_mesh(mesh):
        split = load_parameters(PARITY / case, config, family)
    assert all(identical(split[name], whole[name]) for name in whole)
    name = "blocks.experts_up" if config.moe.experts else "blocks.up"
    assert split[name].sharding.mesh == mesh
    assert len(split[name].addressable_shards) == 8
    assert split[name].addressable_shards[0].data.size * sizes[1] * sizes[2] * sizes[3] == split[name].size


def test_a_device_reads_its_own_share_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config, family = read_config(PARITY / "mixtral")
    opened: list[tuple[str, int]] = []
    real = StoredTensor.open
    monkeypatch.setattr(StoredTensor, "open", lambda self: opened.append((self.path.name, self.offset)) or real(self))
    with jax.set_mesh(jax.make_mesh((2, 1, 4, 1, 1), AXES)):  # two devices hold each expert
        load_parameters(PARITY / "mixtral", config, family)
    assert len(set(opened)) == len(opened) == len(tensors_of(PARITY / "mixtral"))


@pytest.mark.parametrize("case", ["llama_gqa", "qwen2_tied", "mistral"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_converted_as_it_is_read(case: str, dtype: str) -> None:
    config, family = read_config(PARITY / case)
    parameters = load_parameters(PARITY / case, dataclasses.replace(config, param_dtype=dtype), family)
    stored = tensors_of(PARITY / case)["model.embed_tokens.weight"]
    assert identical(parameters["embedding"], stored.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))


MEASURE = """
import re, sys
from pathlib import Path
import jax, jax.numpy as jnp
from codelm.huggingface_config import read_config
from codelm.huggingface_weights import load_parameters
config, family = read_config(Path(sys.argv[1]))
jax.block_until_ready(jnp.ones(8) + 1)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
shape = (1, 2, 1, 2, 1) if len(jax.devices()) == 4 else (1, 1, 1, 1, 1)
with jax.set_mesh(jax.make_mesh(shape, ("data", "fsdp", "expert", "tensor", "context"))):
    parameters = load_parameters(Path(sys.argv[1]), config, family)
print((peak() - before) / sum(array.nbytes for array in parameters.values()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for its peak memory")
@pytest.mark.parametrize("devices", [1, 4])
def test_the_host_holds_little_more_than_the_weights(devices: int, tmp_path: Path) -> None:
    sizes = {"width": 1024, "heads": 8, "kv_heads": 8, "head_dim": 128, "mlp_width": 4096, "vocab_size": 1024}
    config = ModelConfig(depth=6, **sizes, param_dtype="bfloat16")  # 203 MB, a fourth of it one parameter
    ones = {name: np.broadcast_to(np.float32(1), entry.shape) for name, entry in layout(config, "llama").items()}
    save_parameters(ones, config, "llama", tmp_path / "model", max_shard_bytes=100_000_000)
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "model")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 0.9 < float(result.stdout) < 1.15  # 1.3 is promised; 1.02 measured


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_export_and_import_change_no_bit(case: str, tmp_path: Path) -> None:
    parameters, config, family = load(PARITY / case)
    content = json.loads((PARITY / case / "config.json").read_text())
    save_parameters(parameters, config, family, tmp_path / "out", dtype=content["dtype"])
    theirs, ours = tensors_of(PARITY / case), tensors_of(tmp_path / "out")
    assert theirs.keys() == ours.keys()
    assert all(identical(ours[name], theirs[name]) for name in theirs)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: content[name] for name in written} == written
    again, config_again, _ = load(tmp_path / "out")
    assert config_again == config
    assert all(identical(again[name], parameters[name]) for name in parameters)


def test_a_large_model_is_written_in_shards(tmp_path: Path) -> None:
    parameters, config, family = load(PARITY / "qwen3_moe")
    save_parameters(parameters, config, family, tmp_path / "out", max_shard_bytes=30_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    theirs = json.loads((PARITY / "qwen3_moe" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == theirs["metadata"]
    assert max(sum(t.nbytes for t in load_file(tmp_path / "out" / file).values()) for file in files) <= 30_000
    again, *_ = load(tmp_path / "out")
    assert all(identical(again[name], parameters[name]) for name in parameters)


def test_split_parameters_are_written_whole(tmp_path: Path) -> None:
    config, family = read_config(PARITY / "qwen3_moe")
    with jax.set_mesh(jax.make_mesh((1, 2, 2, 2, 1), AXES)):
        parameters = load_parameters(PARITY / "qwen3_moe", config, family)
        save_parameters(parameters, config, family, tmp_path / "inside")
    save_parameters(parameters, config, family, tmp_path / "outside")
    theirs = tensors_of(PARITY / "qwen3_moe")
    for name in ("inside", "outside"):
        assert all(identical(tensor, theirs[key]) for key, tensor in tensors_of(tmp_path / name).items())


def test_further_fields_and_files_are_in_the_folder(tmp_path: Path) -> None:
    parameters, config, family = load(PARITY / "llama_gqa")
    save_parameters(
        parameters, config, family, tmp_path / "out", extra={"eos_token_id": 2}, files={"tokenizer.json": b"{}"}
    )
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == b"{}"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 2
    with pytest.raises(UserError, match="hidden_size follow from the model"):
        save_parameters(parameters, config, family, tmp_path / "other", extra={"hidden_size": 2})


# --- errors -----------------------------------------------------------------------------------------------------------


def respell(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Save a folder's tensors again after a change."""
    tensors = tensors_of(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q), rf"lacks tensor {Q}$"),
        (lambda t: t.update({"q": t.pop(Q)}), rf"lacks tensor {Q}; it has q instead"),
        (lambda t: t.pop("lm_head.weight"), "lacks tensor lm_head.weight"),
        (lambda t: t.update({Q: t[Q][:8]}), rf"tensor {Q} has shape \[8, 32\], config.json says \[32, 32\]"),
        (lambda t: t.update({Q: t[Q].reshape(16, 64)}), rf"tensor {Q} has shape \[16, 64\]"),
        (lambda t: t.update({Q: t[Q].astype(np.int8)}), rf"tensor {Q} has dtype I8; supported are F32, F16, BF16"),
        (
            lambda t: t.update({"score.weight": t[Q]}),
            "has tensor score.weight, which a model of its config",
        ),
        (lambda t: t.update({f"x.{i}": t[Q] for i in range(5)}), r"has tensor x.0, x.1, x.2 and 2 more"),
    ],
)
def test_other_tensors_than_config_says_are_named(folder: Path, change: Callable, message: str) -> None:
    respell(folder, change)
    with pytest.raises(UserError, match=message):
        load(folder)


def test_nothing_is_read_before_all_is_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    respell(folder, lambda t: t.pop("model.norm.weight"))
    monkeypatch.setattr(StoredTensor, "open", lambda self: pytest.fail("read"))
    with pytest.raises(UserError, match=r"lacks tensor model.norm.weight"):
        load(folder)


def test_tensors_that_hold_nothing_are_let_be(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(PARITY / "llama_tied", tmp_path / "model"))
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    respell(folder, lambda t: t.update(extra | {"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert "head" not in load(folder)[0]


def test_a_mesh_that_does_not_divide_a_parameter_is_named() -> None:
    config, family = read_config(PARITY / "gemma")
    with (
        jax.set_mesh(jax.make_mesh((1, 4, 1, 2, 1), AXES)),
        pytest.raises(UserError, match=r"mesh tensor=2 does not divide kv_heads=1 of blocks.key"),
    ):
        load_parameters(PARITY / "gemma", config, family)


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, config, family = load(PARITY / "llama_gqa")
    real = huggingface_weights.write_file

    def full(path: Path, *rest: Any) -> None:
        real(path, *rest)
        if "00002" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_weights, "write_file", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device"):
        save_parameters(parameters, config, family, tmp_path / "out", max_shard_bytes=20_000)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    parameters, config, family = load(PARITY / "llama_gqa")
    (tmp_path / "out").mkdir()
    save_parameters(parameters, config, family, tmp_path / "out")
    before = (tmp_path / "out" / "config.json").stat().st_mtime_ns
    with pytest.raises(UserError, match="out exists and is not an empty folder"):
        save_parameters(parameters, config, family, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").stat().st_mtime_ns == before


def test_parameters_of_another_model_are_refused(tmp_path: Path) -> None:
    parameters, config, family = load(PARITY / "llama_gqa")
    for changed, message in [
        ({k: v for k, v in parameters.items() if k != "blocks.up"}, "parameter blocks.up is missing"),
        (parameters | {"blocks.extra": parameters["embedding"]}, "blocks.extra is not one of this model's"),
        (
            parameters | {"head": parameters["head"][:5]},
            r"head has shape \(5, 32\), the model says \(96, 32\)",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            save_parameters(changed, config, family, tmp_path / "out")
    with pytest.raises(UserError, match="dtype int8 is not supported"):
        save_parameters(parameters, config, family, tmp_path / "out", dtype="int8")
    huge = parameters | {"final_norm": parameters["final_norm"] * 1e6}
    with pytest.raises(UserError, match=r"model.norm.weight has values that float16 cannot hold"):
        save_parameters(huge, config, family, tmp_path / "out", dtype="float16")
    with pytest.raises(UserError, match="a qwen3 model cannot have"):
        save_parameters(parameters, config, "qwen3", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
