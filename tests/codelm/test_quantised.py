"""Weights in fewer bits: those NumPy rounds to, products near those of what they stand for, on disk and on a mesh."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType

import codelm
from codelm import checkpoint, cli, matmuls, quantised
from codelm.config import ModelConfig, MoEConfig, dial
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from codelm.parameters import all_parameters
from codelm.quantised import Quantisation, Quantised, quantise
from infer.engine import Engine, Options
from infer.request import Request

SIZES: dict[str, Any] = {"depth": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 96}
PLAIN = dial(ModelConfig(**SIZES, compute_dtype="float32", remat="none", max_seq_len=64, mtp_heads=1), 128)
EXPERTS = dataclasses.replace(
    PLAIN, tied_embeddings=False, moe=MoEConfig(experts=4, top_k=2, expert_width=32, shared_experts=1)
)
HOWS = {"int8": Quantisation("8"), "int4": Quantisation("4", 16), "fp8": Quantisation("fp8")}
# The axes that are summed over, of arrays with all layers in them.
SUMMED = {"query": (1,), "key": (1,), "value": (1,), "out": (1, 2), "gate": (1,), "up": (1,), "down": (1,)}
SUMMED |= {"experts_gate": (2,), "experts_up": (2,), "experts_down": (2,)}
SUMMED |= {"shared_gate": (1,), "shared_up": (1,), "shared_down": (1,)}
AXES = ("data", "fsdp", "expert", "tensor", "context")
forward = jax.jit(Transformer.__call__)


def model_of(config: ModelConfig) -> Transformer:
    """With values away from where they start, a channel ten times the others, and one of zeros."""
    leaves, shape = jax.tree.flatten(create(config, 0))
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [leaf + 0.02 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    model = jax.tree.unflatten(shape, moved)
    up = "shared_up" if config.moe.experts else "up"
    weight = getattr(model.blocks, up)
    weight.set_value(weight[...].at[:, :, 3].mul(10).at[:, :, 5].set(0))
    return model


def lm_of(config: ModelConfig, how: Quantisation | None = None) -> LM:
    model = model_of(config)
    if how is None:
        return LM(config, model, None, "codelm")
    config, arrays = quantise(config, model.arrays(), how)
    return LM(config, Transformer(config, arrays), None, "codelm")


def twin(lm: LM) -> LM:
    """The same in float32, made of what its weights stand for."""
    arrays = {
        name: jnp.asarray(stands_for(x)) if isinstance(x, Quantised) else x for name, x in lm.model.arrays().items()
    }
    return dataclasses.replace(lm, model=Transformer(lm.config, arrays))


def stands_for(x: Quantised) -> np.ndarray:
    """Values times scales, in NumPy."""
    values, scales = np.asarray(x.values, np.float32), np.asarray(x.scales, np.float32)
    for axis, (size, count) in enumerate(zip(values.shape, scales.shape, strict=True)):
        scales = np.repeat(scales, size // count, axis)
    return values * scales


# ---- rounding ----


def by_numpy(x: np.ndarray, summed: tuple[int, ...], how: str, group: int) -> tuple[np.ndarray, np.ndarray]:
    """What a weight is rounded to, and what that stands for, in float64."""
    x = x.astype(np.float64)
    if how == "int4":  # of the last axis summed over, so many in a group
        axis = summed[-1]
        split = (*x.shape[:axis], x.shape[axis] // group, group, *x.shape[axis + 1 :])
        largest = np.abs(x.reshape(split)).max(axis + 1, keepdims=True)
        largest = np.broadcast_to(largest, split).reshape(x.shape)
    else:
        largest = np.abs(x).max(summed, keepdims=True)
    step = largest / {"int8": 127, "int4": 7, "fp8": 448}[how]
    step = np.where(step == 0, 1, step)
    values = x / step
    values = values.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) if how == "fp8" else np.rint(values)
    return values, values * step


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("config", [PLAIN, EXPERTS], ids=["dense", "experts"])
def test_matrices_are_what_numpy_rounds_them_to(how: str, config: ModelConfig) -> None:
    before = model_of(config).arrays()
    after = lm_of(config, HOWS[how]).model.arrays()
    matrices = [name for name in before if name.removeprefix("blocks.") in SUMMED]
    assert len(matrices) == (10 if config.moe.experts else 7)
    for name in matrices:
        got, summed = after[name], SUMMED[name.removeprefix("blocks.")]
        assert isinstance(got, Quantised)
        values, stood_for = by_numpy(np.asarray(before[name]), summed, how, 16)
        # Where a number is as near to the next one, float32 may take that.
        assert np.mean(np.asarray(got.values, np.float64) != values) < 1e-3
        error = np.abs(stands_for(got) - stood_for)
        scale_error = 2**-8 if how == "int4" else 1e-6  # its scales are in bfloat16
        steps = {"int8": 1 / 127, "int4": 1 / 7, "fp8": 1 / 14}[how] * np.abs(stood_for).max()
        assert np.mean(error > 1.01 * scale_error * np.abs(stood_for) + 1e-9) < 1e-3
        assert error.max() < 1.1 * steps


@pytest.mark.parametrize("how", HOWS)
def test_the_output_table_is_in_eight_bits_and_everything_else_as_it_was(how: str) -> None:
    for config in (PLAIN, EXPERTS):
        before, lm = model_of(config).arrays(), lm_of(config, HOWS[how])
        after = lm.model.arrays()
        values, _ = by_numpy(np.asarray(before["embedding" if config.tied_embeddings else "head"]), (1,), "int8", 0)
        assert np.mean(np.asarray(after["head"].values) != values) < 1e-3
        assert after["head"].values.dtype == jnp.int8
        rest = [name for name in before if name != "head" and name.removeprefix("blocks.") not in SUMMED]
        assert {"embedding", "final_norm", "mtp_up", "blocks.attention_norm"} < set(rest)
        assert ("blocks.router" in rest) == bool(config.moe.experts)
        for name in rest:
            np.testing.assert_array_equal(np.asarray(after[name]), np.asarray(before[name]))


def test_the_output_table_stays_where_asked() -> None:
    lm = lm_of(PLAIN, Quantisation("8", output_table=False))
    assert lm.config == PLAIN
    assert "head" not in lm.model.arrays()


def test_tokens_are_looked_up_as_they_were_in_the_dtype_that_computes() -> None:
    config = dataclasses.replace(PLAIN, compute_dtype="bfloat16")
    lm, tokens = lm_of(config, HOWS["int8"]), jnp.arange(8)[None]
    assert lm.model.embedding.dtype == jnp.bfloat16
    np.testing.assert_array_equal(lm.model.embed(tokens), model_of(config).embed(tokens))


# ---- products ----

PRODUCTS = {
    "bsd,dnh->bsnh": ((64, 4, 16), ("width", "heads", "head_dim"), (0,)),
    "bsnh,nhd->bsd": ((4, 16, 64), ("heads", "head_dim", "width"), (0, 1)),
    "bsd,vd->bsv": ((128, 64), ("vocab", "width"), (1,)),
}


def weight_of(shape: tuple[int, ...], summed: tuple[int, ...], how: str) -> Quantised:
    rng = np.random.default_rng(len(shape))
    x = rng.normal(size=shape) * rng.choice([1.0, 1.0, 10.0], shape[-1])
    axis, group = summed[-1], 16 if how == "int4" else 1
    values, stood_for = by_numpy(x, summed, how, group)
    step = np.where(values == 0, 0, stood_for / np.where(values == 0, 1, values))
    if how == "int4":
        split = (*shape[:axis], shape[axis] // group, group, *shape[axis + 1 :])
        scales = step.reshape(split).max(axis + 1)
    else:
        scales = step.max(summed, keepdims=True)
    dtype = {"int8": jnp.int8, "int4": jnp.int4, "fp8": jnp.float8_e4m3fn}[how]
    return Quantised(jnp.asarray(values, jnp.float32).astype(dtype), jnp.asarray(scales, jnp.float32))


@pytest.mark.parametrize("subscripts", PRODUCTS)
@pytest.mark.parametrize("how", HOWS)
def test_a_product_is_that_of_what_the_weights_stand_for(how: str, subscripts: str) -> None:
    shape, dimensions, summed = PRODUCTS[subscripts]
    weight = weight_of(shape, summed, how)
    own = [shape[axis] for axis in summed]
    x = np.random.default_rng(1).normal(size=(3, 5, *own)).astype(np.float32)
    exact = np.einsum(subscripts, x.astype(np.float64), stands_for(weight).astype(np.float64))
    got = matmuls.product(subscripts, jnp.asarray(x), weight, dimensions)
    assert got.dtype == jnp.float32
    # The other side is rounded to half of 1/254 of 1/127 of its largest number; errors of a sum add up by chance.
    error = np.linalg.norm(np.asarray(got) - exact) / np.linalg.norm(exact)
    assert error < (3e-5 if how == "int8" else 1e-6)
    half = matmuls.product(subscripts, jnp.asarray(x, jnp.bfloat16), weight, dimensions)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float64), exact, rtol=0.03, atol=0.03 * np.abs(exact).max())


def test_a_row_s_product_has_the_same_bits_whatever_is_beside_it() -> None:
    product = jax.jit(lambda x, weight: matmuls.product("bsd,df->bsf", x, weight, ("width", "mlp")))
    weight = weight_of((256, 96), (0,), "int8")
    x = np.random.default_rng(2).normal(size=(7, 3, 256)).astype(np.float32)
    x[1] *= 1e6
    together = np.asarray(product(x, weight))
    for row in range(7):
        for token in range(3):
            alone = np.asarray(product(x[row : row + 1, token : token + 1], weight))
            np.testing.assert_array_equal(alone[0, 0], together[row, token])


def test_zeros_give_zeros_and_what_is_no_number_stays_none() -> None:
    weight = weight_of((64, 4, 16), (0,), "int8")
    x = np.zeros((4, 1, 64), np.float32)
    x[1:] = 1
    x[2, 0, 5], x[3, 0, 5] = np.nan, np.inf
    out = np.asarray(matmuls.product("bsd,dnh->bsnh", jnp.asarray(x), weight, ("width", "heads", "head_dim")))
    assert (out[0] == 0).all()
    assert np.isfinite(out[1]).all()
    assert not np.isfinite(out[2:]).any()


# ---- models ----


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("config", [PLAIN, EXPERTS], ids=["dense", "experts"])
def test_a_model_computes_what_its_twin_in_float32_does(how: str, config: ModelConfig) -> None:
    lm, ids = lm_of(config, HOWS[how]), np.arange(32).reshape(2, 16) * 3
    expected = np.asarray(forward(twin(lm).model, ids))
    np.testing.assert_allclose(np.asarray(forward(lm.model, ids)), expected, atol=2e-3 * np.abs(expected).max())
    plain = np.asarray(forward(model_of(config), ids))
    assert np.abs(expected - plain).max() > 1e-2 * np.abs(plain).max(), "something was rounded"


@pytest.mark.parametrize(
    ("config", "how"),
    [
        pytest.param(config, how, marks=[pytest.mark.slow] * ((config, how) != (EXPERTS, "int4")), id=f"{name}-{how}")
        for name, config in (("dense", PLAIN), ("experts", EXPERTS))
        for how in HOWS
    ],
)
def test_the_engine_writes_what_the_twin_does(config: ModelConfig, how: str) -> None:
    lm = lm_of(config, HOWS[how])
    engines = [Engine(each, Options(rows=2, context=48)) for each in (lm, twin(lm))]
    prompts = [[5, 9, 2, 77], [100, 3], [17] * 9]
    texts = []
    for engine in engines:
        streams = [engine.submit(Request(ids, 12, share=False)) for ids in prompts]
        texts.append([stream.text().ids for stream in streams])
    assert texts[0] == texts[1]
    assert all(len(text) == 12 for text in texts[0])
    assert texts[0] == lm.complete(prompts, 12)


def test_decoding_keeps_eight_bits_and_makes_the_rest_whole_once() -> None:
    """On a CPU, which would make it whole at every token."""
    for config in (PLAIN, EXPERTS):
        for how in HOWS.values():
            lm = lm_of(config, how)
            apart = lm.model.apart()
            kept = {
                name
                for name, x in apart.blocks[0].__dict__.items()
                if isinstance(getattr(x, "get_value", int)(), Quantised)
            }
            dense = {name for name in all_parameters(config) if name.removeprefix("blocks.") in SUMMED}
            wanted = {name.removeprefix("blocks.") for name in dense if "experts" not in name}
            assert kept == (wanted if how.bits == "8" else set())
            assert isinstance(apart.head[...], Quantised)
            assert jax.tree.leaves(apart.blocks[1].out)[0].shape == (4, 16, 64)


# ---- on disk ----


@pytest.mark.parametrize("how", HOWS)
def test_a_model_comes_back_as_it_was_saved(how: str, tmp_path: Path) -> None:
    lm = lm_of(EXPERTS, HOWS[how])
    folder = saved(lm, tmp_path / "out", HOWS[how])
    again = codelm.load(folder)
    assert (again.config, again.family, again.prompt_format) == (lm.config, "codelm", "qwen2")
    before, after = (jax.tree.leaves_with_path(each.model.arrays()) for each in (lm, again))
    assert [path for path, _ in before] == [path for path, _ in after]
    for (_, one), (_, other) in zip(before, after, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))


def saved(lm: LM, folder: Path, how: Quantisation) -> Path:
    checkpoint.save(folder, lm.config, lm.family, lm.model.arrays(), prompt_format="qwen2", quantisation=how)
    return folder


def test_it_takes_less_room_on_disk(tmp_path: Path) -> None:
    config = dial(ModelConfig(depth=2, width=256, heads=4, kv_heads=4, head_dim=64, mlp_width=768), 64)
    lm = lm_of(config)
    checkpoint.save(tmp_path / "plain", config, "codelm", lm.model.arrays())
    room = {"plain": size_of(tmp_path / "plain")}
    for name, how in (("int8", Quantisation("8")), ("int4", Quantisation("4", 32)), ("fp8", Quantisation("fp8"))):
        room[name] = size_of(saved(lm_of(config, how), tmp_path / name, how)) / room["plain"]
    assert 0.15 < room["int4"] < 0.18
    assert 0.2 < room["int8"] < 0.29
    assert 0.2 < room["fp8"] < 0.29


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["version", "bits", "group", "sums", "array", "missing"])
def test_what_is_damaged_is_refused_in_one_line(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = HOWS["int4"]
    folder = saved(lm_of(PLAIN, how), tmp_path / "out", how)
    path = folder / checkpoint.DESCRIPTION
    content = json.loads(path.read_text())
    assert content["codelm_checkpoint"] == 2, "older ones refuse it"
    if damage == "version":
        content["codelm_checkpoint"] = 3
    elif damage == "bits":
        content["quantisation"]["bits"] = "3"
    elif damage == "group":
        content["quantisation"]["group"] = 48
    elif damage == "sums":
        del content["sums"]
    elif damage == "array":
        content["sums"]["blocks.up.scales"] += 1
    else:
        del content["quantisation"]
    path.write_text(json.dumps(content))
    said = {
        "version": "has version 3; this codelm reads versions 1 and 2",
        "bits": "codelm.json is damaged: bits='3': weights can be in 8, 4, fp8",
        "group": "codelm.json is damaged: group=48 does not divide the 64 weights that blocks.query sums over",
        "sums": "no sums over the bits",
        "array": "the bits of blocks.up.scales do not add up",
        "missing": "quantisation",
    }[damage]
    assert cli.main(["export", str(folder), str(tmp_path / "hf")]) == 2
    err = capsys.readouterr().err
    assert (said in err, err.count("\n")) == (True, 1), err


def test_it_is_for_serving_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither exported nor imported nor trained further."""
    folder = saved(lm_of(PLAIN, HOWS["int8"]), tmp_path / "out", HOWS["int8"])
    for verb in ("export", "import"):
        assert cli.main([verb, str(folder), str(tmp_path / "new")]) == 2
        assert "is quantised, for serving alone: take the run" in capsys.readouterr().err
    config = ["configs/quickstart.py", "--dir", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    assert cli.main(["run", *config, "--train.start", str(folder)]) == 2
    assert "is neither a run nor one of its checkpoints" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# ---- on a mesh ----


@pytest.mark.parametrize("how", [pytest.param(how, marks=[pytest.mark.slow] * (how == "int4")) for how in HOWS])
@pytest.mark.parametrize(
    "config", [pytest.param(PLAIN, marks=pytest.mark.slow, id="dense"), pytest.param(EXPERTS, id="experts")]
)
def test_sharded_equals_single_device(how: str, config: ModelConfig, tmp_path: Path) -> None:
    lm, ids = lm_of(config, HOWS[how]), np.arange(64).reshape(4, 16)
    expected = np.asarray(forward(twin(lm).model, ids))
    folder = saved(lm, tmp_path / "out", HOWS[how])
    shape = (2, 1, 2, 2, 1) if config.moe.experts else (2, 2, 1, 2, 1)
    with jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=(AxisType.Explicit,) * 5)):
        split = codelm.load(folder)
        down = split.model.blocks.shared_down if config.moe.experts else split.model.blocks.down
        assert "tensor" in str(down[...].values.sharding.spec)
        got = np.asarray(forward(split.model, ids))
        written = split.complete([[5, 9, 2, 77], [100, 3]], 8)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    assert written == twin(lm).complete([[5, 9, 2, 77], [100, 3]], 8)


# ---- bad input ----


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Quantisation("4", 48), "group=48 does not divide the 64 weights that blocks.query sums over"),
        (Quantisation("4", 32), "group=32 does not divide the 16 weights that blocks.out sums over"),
        (Quantisation("4"), "group=0: in four bits a few weights share a scale"),
        (Quantisation("8", 32), "group=32 is for 4 bits"),
        (Quantisation("2"), "bits='2': weights can be in 8, 4, fp8"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(how: Quantisation, said: str) -> None:
    with pytest.raises(UserError, match=said):
        lm_of(PLAIN, how)


def test_twice_is_refused() -> None:
    lm = lm_of(PLAIN, HOWS["int8"])
    with pytest.raises(UserError, match="quantised already: take the run or checkpoint that it was made from"):
        quantised.quantise(lm.config, lm.model.arrays(), HOWS["int4"])


def test_qwix_is_needed_to_round_and_not_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(lm_of(PLAIN, HOWS["int8"]), tmp_path / "out", HOWS["int8"])
    monkeypatch.setitem(__import__("sys").modules, "qwix", None)
    assert codelm.load(folder).complete([[1, 2]], 3)
    with pytest.raises(UserError, match=r'codelm quantize needs qwix: make install EXTRAS="quant"'):
        lm_of(PLAIN, HOWS["int8"])
