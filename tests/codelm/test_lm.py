"""Models people use, loaded and proven: parity with transformers, import, export, generation, and every bad input."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import codelm
from codelm import checkpoint, cli
from codelm.errors import UserError
from codelm.model_commands import values
from codelm.parameters import mtp_parameters
from experiments import parity

CASES = {case["case"]: case for case in parity.cases()}
REFUSED = {"qwen3_moe_mixed": "decoder_sparse_step"}


# That the cache changes nothing is tested for every kind of layer (test_model.py): one of each way of decoding here.
# `make parity` and the slow tests continue them all.
CONTINUED = ("llama_gqa", "llama_dynamic", "qwen3_moe", "gemma2")


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_logits_are_those_of_transformers(name: str) -> None:
    assert parity.error(*parity.load(CASES[name])) < 1e-4


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in CONTINUED)) for name in CASES if name not in REFUSED],
)
def test_the_greedy_continuation_is_that_of_transformers(name: str) -> None:
    assert parity.continues_equally(*parity.load(CASES[name]))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_field(name: str) -> None:
    with pytest.raises(UserError, match=REFUSED[name]):
        parity.measure(CASES[name])


def test_the_fixtures_cover_what_was_promised() -> None:
    families = {case["family"] for case in CASES.values()}
    assert {"llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "starcoder2", "gemma", "granite"} <= families
    for case in CASES.values():  # a feature that does not show in the logits would prove nothing
        assert min(case["feature_effect"].values()) > 0.05


def test_published_configs_give_the_same_logits(tmp_path: Path) -> None:
    for name in ("llama_yarn", "qwen2_sliding", "gemma", "qwen3_moe", "granite", "starcoder2"):
        folder = tmp_path / name
        shutil.copytree(parity.FIXTURES / name, folder)
        shutil.copy(folder / "config.published.json", folder / "config.json")
        reference = np.load(folder / "reference.npz")
        error = np.abs(codelm.load(folder, "float32").logits(reference["ids"]) - reference["logits"]).max()
        assert error < 1e-4, name


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", ["llama_gqa", "qwen2_tied", "mistral", "qwen3_moe"])
def test_import_then_export_is_bit_identical(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parity.FIXTURES / name
    code, out, _ = run(capsys, "import", source, tmp_path / "ckpt")
    assert code == 0
    assert "wrote" in out
    assert run(capsys, "export", tmp_path / "ckpt", tmp_path / "hf")[0] == 0
    original, imported, back = (codelm.load(folder) for folder in (source, tmp_path / "ckpt", tmp_path / "hf"))
    assert imported.config == original.config
    for key, value in values(original).items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(values(imported)[key]))
        np.testing.assert_array_equal(np.asarray(value), np.asarray(values(back)[key]))


def test_export_leaves_heads_that_look_ahead_out_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = codelm.load(parity.FIXTURES / "llama_gqa")
    config = dataclasses.replace(lm.config, mtp_heads=2)
    heads = {name: jnp.ones(parameter.shape) for name, parameter in mtp_parameters(config).items()}
    checkpoint.save(tmp_path / "ckpt", config, lm.family, values(lm) | heads)
    assert codelm.load(tmp_path / "ckpt").model.mtp_up.shape == (2, config.width, config.width)
    code, out, _ = run(capsys, "export", tmp_path / "ckpt", tmp_path / "hf")
    assert (code, "2 heads that look further ahead" in out) == (0, True)
    again = codelm.load(tmp_path / "hf")
    assert again.config == lm.config
    np.testing.assert_array_equal(again.logits([[1, 2, 3]]), lm.logits([[1, 2, 3]]))


def test_loading_goes_straight_to_the_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parity.FIXTURES / "llama_tied"
    run(capsys, "import", source, tmp_path / "ckpt")
    ids = np.load(source / "reference.npz")["ids"]
    expected = codelm.load(source).logits(ids)
    axes = ("data", "fsdp", "expert", "tensor", "context")
    mesh = jax.make_mesh((1, 2, 1, 2, 1), axes, axis_types=(AxisType.Explicit,) * 5, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        for folder in (source, tmp_path / "ckpt"):
            lm = codelm.load(folder)
            shard = lm.model.blocks.up[...].addressable_shards[0].data
            assert shard.size == lm.model.blocks.up[...].size // 4
            np.testing.assert_allclose(lm.logits(ids), expected, atol=2e-5)


def test_a_run_is_the_newest_checkpoint_of_its_last_stage(tmp_path: Path) -> None:
    for step in ("pretrain/9", "pretrain/100", "midtrain/2", "midtrain/10", "midtrain/11.orbax-checkpoint-tmp"):
        (tmp_path / "checkpoints" / step).mkdir(parents=True)
    assert checkpoint.newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "midtrain" / "10"
    assert checkpoint.newest(tmp_path) is None


# ---- generation ----


@pytest.fixture(scope="module")
def lm() -> codelm.lm.LM:  # type: ignore[name-defined]
    return codelm.load(parity.FIXTURES / "llama_gqa")


def test_sampling_follows_seed_and_temperature(lm) -> None:
    prompt = [1, 2, 3]
    greedy = lm.generate(prompt, 8)
    assert lm.generate(prompt, 8, temperature=1e-4) == greedy
    assert lm.generate(prompt, 8, temperature=2.0, seed=1) == lm.generate(prompt, 8, temperature=2.0, seed=1)
    assert len({tuple(lm.generate(prompt, 8, temperature=2.0, seed=seed)) for seed in range(5)}) == 5


def test_sampled_tokens_have_the_models_distribution(lm) -> None:
    """One token, 400 seeds: shares against the softmax, by chi-square over the likely tokens."""
    prompt = [5, 6, 7]
    probabilities = np.asarray(jax.nn.softmax(lm.logits([prompt])[0, -1]))
    drawn = np.bincount([lm.generate(prompt, 1, 1.0, seed)[0] for seed in range(400)], minlength=len(probabilities))
    likely = probabilities > 0.02
    observed = np.append(drawn[likely], drawn[~likely].sum())
    expected = 400 * np.append(probabilities[likely], probabilities[~likely].sum())
    assert ((observed - expected) ** 2 / expected).sum() < 3 * len(expected)


def test_generation_stops_before_a_stop_token(lm) -> None:
    free = lm.generate([1, 2, 3], 8)
    assert lm.generate([1, 2, 3], 8, stop={free[3]}) == free[: free.index(free[3])]


PROMPTS = ([1, 2, 3], [7], [4, 5, 6, 7, 8, 9, 10], [11] * 5)


@pytest.mark.parametrize("name", [pytest.param("llama_dynamic", marks=pytest.mark.slow), "qwen2_sliding"])
def test_prompts_completed_together_are_completed_as_alone(name: str) -> None:
    lm = codelm.load(parity.FIXTURES / name)
    free = [lm.generate(prompt, 8) for prompt in PROMPTS]
    assert lm.complete(PROMPTS, 8) == free
    stop = {free[0][3], free[2][0]}
    assert lm.complete(PROMPTS, 8, stop) == [lm.generate(prompt, 8, stop=stop) for prompt in PROMPTS]


@pytest.mark.parametrize(("name", "sizes"), [("llama_gqa", (2, 2, 1, 2, 1)), ("llama_head_dim", (2, 2, 1, 1, 2))])
def test_prompts_are_completed_on_a_mesh(name: str, sizes: tuple[int, ...]) -> None:
    """The second has one key head, and a context axis."""
    expected = codelm.load(parity.FIXTURES / name).complete(PROMPTS, 8)
    axes = ("data", "fsdp", "expert", "tensor", "context")
    with jax.set_mesh(jax.make_mesh(sizes, axes, axis_types=(AxisType.Explicit,) * 5)):
        assert codelm.load(parity.FIXTURES / name).complete(PROMPTS, 8) == expected


def test_text_in_text_out(tmp_path: Path, tokenizer, proto: bytes) -> None:
    from codelm.config import ModelConfig, dial
    from codelm.model import create

    config = dial(ModelConfig(depth=1, width=32, max_seq_len=64, compute_dtype="float32"), tokenizer.vocab_size)
    (tmp_path / "t.model").write_bytes(proto)
    model = create(config, 0)
    plain = codelm.lm.LM(config, model, None, "codelm")
    checkpoint.save(tmp_path / "ckpt", config, "codelm", values(plain), tmp_path / "t.model")
    loaded = codelm.load(tmp_path / "ckpt")
    text = loaded.generate("def f(", max_new_tokens=5)
    assert text == tokenizer.decode(plain.generate(tokenizer.encode("def f("), max_new_tokens=5))


# ---- bad input ----


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[1, 2], [3]], "differ in length"),
        ([[]], "non-empty"),
        ([[96]], "outside"),
        ([[-1]], "-1"),
        ([[0.5]], "integers"),
    ],
)
def test_bad_ids_are_refused(lm, ids: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        lm.logits(ids)


def test_bad_generation_settings_are_refused(lm) -> None:
    for settings, said in (({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1.0}, "temperature")):
        with pytest.raises(UserError, match=said):
            lm.generate([1], **settings)
    with pytest.raises(UserError, match="without a tokenizer"):
        lm.generate("text")


def damaged(tmp_path: Path, change) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(parity.FIXTURES / "llama_gqa", folder)
    change(folder)
    return folder


def edit_config(**fields):
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | fields))

    return change


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit_config(model_type="mamba"), "mamba"),
        (edit_config(num_hidden_layers=9), "model.layers."),
        (edit_config(intermediate_size=99), "mlp"),
        (edit_config(hidden_act="relu"), "hidden_act"),
        (truncate, "model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    ],
)
def test_bad_folders_are_one_line_and_nothing_is_written(
    change, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "import", damaged(tmp_path, change), tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    for verb in ("import", "export"):
        code, _, err = run(capsys, verb, parity.FIXTURES / "llama_gqa", tmp_path / "out")
        assert code == 2
        assert "already there" in err
    assert run(capsys, "import", tmp_path / "nothere", tmp_path / "new")[0] == 2
    assert "no such folder" in run(capsys, "export", tmp_path / "nothere", tmp_path / "new")[2]


@pytest.mark.parametrize("damage", ["version", "field", "parameters"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = codelm.load(parity.FIXTURES / "llama_gqa")
    folder = tmp_path / "ckpt"
    checkpoint.save(folder, lm.config, lm.family, values(lm))
    description = folder / checkpoint.DESCRIPTION
    content = json.loads(description.read_text())
    if damage == "version":
        description.write_text(json.dumps(content | {"codelm_checkpoint": 99}))
    elif damage == "field":
        content["model"]["widht"] = content["model"].pop("width")
        description.write_text(json.dumps(content))
    else:
        shutil.rmtree(folder / "parameters")
    code, _, err = run(capsys, "export", folder, tmp_path / "hf")
    assert (code, err.count("\n")) == (2, 1)
    assert {"version": "version 99", "field": "nearest: 'width'", "parameters": "parameters"}[damage] in err
    assert not (tmp_path / "hf").exists()


def test_jnp_ids_are_ids_too(lm) -> None:
    np.testing.assert_array_equal(lm.logits(jnp.array([[1, 2]])), lm.logits([[1, 2]]))
