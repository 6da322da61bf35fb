"""The measurement of decoding: its models are as large as they are called, and what it gives its peers is our model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float

from codelm import cli
from codelm.arithmetic import count_parameters
from codelm.config import ModelConfig
from experiments.bench import decode, decode_gpu, gguf_files


@pytest.mark.parametrize("size", decode.SHAPES)
def test_a_shape_has_the_parameters_it_is_called_by(size: str) -> None:
    config = decode.config_of(decode.SHAPES[size], 192)
    assert count_parameters(config).total == pytest.approx(int(size.removesuffix("m")) * 1e6, rel=0.03)
    assert config.head_dim == 64
    assert config.heads > config.kv_heads
    assert config.tied_embeddings
    assert config.compute_dtype == config.param_dtype == "float32"


def rotated(x: Float[np.ndarray, "N H"], angles: Float[np.ndarray, " half"], neighbours: bool) -> np.ndarray:
    """Each pair of outputs of a head turned by its angle, as complex numbers."""
    half = len(angles)
    first, second = (x[:, 0::2], x[:, 1::2]) if neighbours else (x[:, :half], x[:, half:])
    turned = (first + 1j * second) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def test_turned_by_neighbours_gguf_projections_give_what_theirs_give_turned_by_halves() -> None:
    heads, size, width = 3, 8, 5
    rng = np.random.default_rng(0)
    weight, x, angles = rng.normal(size=(heads * size, width)), rng.normal(size=width), rng.normal(size=size // 2)
    theirs = rotated((weight @ x).reshape(heads, size), angles, neighbours=False)
    stored = gguf_files.interleaved(weight, heads)
    np.testing.assert_allclose(rotated((stored @ x).reshape(heads, size), angles, neighbours=True), theirs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.11.self_attn.q_proj.weight", "blk.11.attn_q.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ],
)
def test_a_tensor_has_the_name_llama_cpp_knows(name: str, expected: str) -> None:
    assert gguf_files.gguf_name(name) == expected


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.gate.weight"])
def test_a_tensor_that_no_plain_llama_has_is_refused(name: str) -> None:
    with pytest.raises(SystemExit, match="a plain llama model has no tensor"):
        gguf_files.gguf_name(name)


TOKENS = list(range(100, 120))


def run(tokens: list[int], prefill: float, rest: float) -> decode.Run:
    return decode.Run(tokens, prefill, rest)


def test_rates_are_medians_and_those_of_float32_must_agree() -> None:
    options = decode.Options(prompt_tokens=10, new_tokens=20)
    late, early = [*TOKENS[:17], 0, 0, 0], [*TOKENS[:15], 0, *TOKENS[16:]]
    runs = {
        "ours": [run(TOKENS, 0.5, 1.9), run(TOKENS, 0.1, 9.0), run(TOKENS, 9.0, 0.1)],
        "transformers dynamic": [run(late, 1.0, 3.8)],
        "llama.cpp q8_0": [run(early, 0.25, 0.95)],
    }
    told = decode.figures(runs, options)
    assert told["prefill_tokens_per_second"] == {"ours": 20, "transformers dynamic": 10, "llama.cpp q8_0": 40}
    assert told["decode_tokens_per_second"] == {"ours": 10, "transformers dynamic": 5, "llama.cpp q8_0": 20}
    assert told["decode_ratio"] == {"transformers dynamic": 2, "llama.cpp q8_0": 0.5}
    assert told["same_tokens"] == {"ours": 20, "transformers dynamic": 17, "llama.cpp q8_0": 15}
    assert told["same_first_16"]
    assert not decode.figures(runs | {"llama.cpp f32": [run(early, 1, 1)]}, options)["same_first_16"]


# Stands in for transformers: says what config.json says, and answers zeros.
PEER = """
import json, pathlib, sys
folder = pathlib.Path(json.loads(sys.stdin.readline())["folder"])
ends = json.loads((folder / "config.json").read_text())["eos_token_id"]
print(json.dumps({"parameters": PARAMETERS, "torch": "none", "ends": ends}), flush=True)
for line in sys.stdin:
    question = json.loads(line)
    told = {"tokens": [0] * question["new_tokens"], "prefill_seconds": len(question["prompt"]), "decode_seconds": 2}
    print(json.dumps(told), flush=True)
"""
SMALL = ModelConfig(depth=1, width=64, heads=2, kv_heads=1, head_dim=32, mlp_width=64)
# The embedding; queries, keys, values and out; gate, up and down; norms.
PARAMETERS = 64 * 64 + (64 * 64 + 2 * 64 * 32 + 64 * 64) + 3 * 64 * 64 + 3 * 64


@pytest.mark.parametrize(("parameters", "code"), [(PARAMETERS, 0), (PARAMETERS + 1, 2)])
def test_the_whole_of_it_in_small_refuses_a_peer_of_another_size(
    parameters: int, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(decode.SHAPES, "20m", SMALL)
    monkeypatch.setattr(decode, "VOCAB_SIZE", 64)
    monkeypatch.setattr(decode, "HERE", tmp_path)
    (tmp_path / "decode_torch.py").write_text(PEER.replace("PARAMETERS", str(parameters)))
    command = ["bench", "decode", "--sizes", "20m", "--prompt_tokens", "5", "--new_tokens", "17", "--turns", "1"]
    assert cli.main([*command, "--torch_python", sys.executable, "--caches", "static"]) == code
    out, err = capsys.readouterr()
    if code:
        assert "not the same model" in err
        return
    told = json.loads(out)
    assert told["parameters"] == PARAMETERS
    assert told["prefill_tokens_per_second"]["transformers static"] == 1
    assert told["decode_tokens_per_second"]["transformers static"] == 8
    assert told["decode_tokens_per_second"]["ours"] > 0
    assert not told["same_first_16"]
    assert (told["torch"], told["ends"]) == ("none", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--new_tokens", "15"], "--new_tokens at least 16"),
        (["--torch_python", "nowhere/python"], "no interpreter 'nowhere/python'"),
        (["--sizes", "7b"], "--sizes"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(decode.SHAPES, "20m", SMALL)
    assert cli.main(["bench", "decode", *([] if "--sizes" in arguments else ["--sizes", "20m"]), *arguments]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert message in err


@pytest.mark.slow
def test_the_measurement_for_accelerators_runs_anywhere() -> None:
    figures = decode_gpu.measured(decode_gpu.BenchOptions(tiny=True, prompt=8, new=8, steps=4, turns=1))
    assert figures["compilations_after"] == 0
    assert figures["share_of_peak"] is None
    # Two bytes a parameter, and two layers' key and value of one head of 32 for each of 12 tokens.
    assert figures["bytes_a_token"] == 2 * figures["parameters"] + 2 * 2 * 2 * 32 * 12
    assert figures["bytes_per_s"] == pytest.approx(figures["bytes_a_token"] * figures["tokens_per_s"], rel=0.01)
