"""One forward: packed = unpacked, cached = full, sharded = single device, recomputed = kept; logits, gradients."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jaxtyping import Array

from codelm import cache as kv
from codelm.config import ModelConfig, MoEConfig, RopeConfig, TrainConfig, dial
from codelm.model import PAD, Transformer, create, rms_norm
from codelm.parameters import all_parameters
from codelm.presets import PRESETS
from codelm.sharding import spec
from codelm.windows import layer_runs, layer_windows
from train.losses import losses

SIZES = {"depth": 2, "width": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp_width": 64, "vocab_size": 64}
EXPERTS = MoEConfig(experts=4, top_k=2, expert_width=32, shared_experts=1, router_z_weight=0.01)
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"kv_heads": 2, "tied_embeddings": False},
    "starcoder2": {"norm": "layernorm", "mlp": "gelu", "mlp_bias": True, "qkv_bias": True, "out_bias": True},
    "gemma2": {
        "norm_unit_offset": True,
        "post_norms": True,
        "mlp": "geglu",
        "logit_softcap": 5.0,
        "attention_softcap": 5.0,
        "embedding_multiplier": 8.0,
        "sliding_window": 4,
        "full_attention_every": 2,
    },
    "granite": {"residual_multiplier": 0.5, "attention_multiplier": 0.2, "logit_multiplier": 2.0},
    "qwen3": {"qk_norm": True, "qkv_bias": True, "sliding_window": 3, "window_from_layer": 1},
    "yarn": {"rope": RopeConfig(theta=100.0, scaling="yarn", factor=4.0, original_seq_len=16)},
    "experts": {"moe": EXPERTS},
    "experts-bias": {"moe": dataclasses.replace(EXPERTS, balance="bias", capacity_factor=4.0, renormalise=False)},
}


def config_of(name: str, **changes: Any) -> ModelConfig:
    settings = {**SIZES, "compute_dtype": "float32", "remat": "none", **VARIANTS[name], **changes}
    return dial(ModelConfig(**settings), 64)


# Compiling is what these tests cost. So each variant has one forward and one gradient, compiled once for rows of one
# shape; what is compared stands in rows of the same batch, or differs in the weights of the loss.
ROWS, LENGTH = 8, 16
forward = jax.jit(Transformer.__call__)


def loss(model: Transformer, batch: Mapping[str, Any]) -> Array:
    return losses(model, TrainConfig(), batch)[0]


loss_and_gradient = jax.jit(jax.value_and_grad(loss))


@functools.cache
def model_of(name: str) -> Transformer:
    """With every array away from where it starts, so that a bias or a scale that is left out shows."""
    leaves, shape = jax.tree.flatten(create(config_of(name), 0))
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(shape, moved)


def tokens_of(rows: int, length: int, seed: int = 0) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (rows, length), 0, 64)


def batch_of(rows: int, length: int) -> dict[str, jax.Array]:
    """One document a row, all of it learnt."""
    shape = (rows, length)
    places = {"positions": jnp.broadcast_to(jnp.arange(length), shape), "segment_ids": jnp.zeros(shape, jnp.int32)}
    text = {"tokens": tokens_of(*shape), "targets": tokens_of(*shape, seed=1), "loss_weights": jnp.ones(shape)}
    return {**text, **places}


def logits_of(name: str, batch: dict[str, jax.Array]) -> jax.Array:
    return forward(model_of(name), batch["tokens"], batch["positions"], batch["segment_ids"])


def assert_close(a: Any, b: Any, atol: float = 2e-5) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=1e-4)


def slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


variants = pytest.mark.parametrize("name", VARIANTS)


@variants
def test_the_future_is_not_seen(name: str) -> None:
    batch = batch_of(ROWS, LENGTH)
    tokens = batch["tokens"]
    batch["tokens"] = tokens.at[1].set(tokens[0].at[8:].add(1) % 64)
    before, after = logits_of(name, batch)[:2]
    np.testing.assert_allclose(before[:8], after[:8], atol=1e-5)
    assert np.abs(before[8] - after[8]).max() > 1e-3


DOCUMENTS = (4, 6, 3)
PACKED = sum(DOCUMENTS)


def packed_beside_alone() -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """A row of three documents and padding; then each document at the start of a row that goes on with something else,
    which it does not see. The first batch learns the packed row, the second the same tokens where they are alone."""
    filled = {name: np.array(value) for name, value in batch_of(ROWS, LENGTH).items()}
    filled["segment_ids"][0] = PAD
    alone, weights = np.zeros((ROWS, LENGTH), np.float32), np.linspace(0.5, 1.5, PACKED)
    starts = np.cumsum((0, *DOCUMENTS))
    for number, (start, length) in enumerate(zip(starts, DOCUMENTS, strict=False)):
        here = np.s_[start : start + length]
        for name in ("tokens", "targets", "positions"):
            filled[name][0, here] = filled[name][number + 1, :length]
        filled["segment_ids"][0, here] = number
        alone[number + 1, :length] = weights[here]
    packed = np.zeros((ROWS, LENGTH), np.float32)
    packed[0, :PACKED] = weights
    batch = {name: jnp.asarray(value) for name, value in filled.items()}
    return batch | {"loss_weights": jnp.asarray(packed)}, batch | {"loss_weights": jnp.asarray(alone)}


@variants
def test_packed_equals_unpacked(name: str) -> None:
    logits = np.asarray(logits_of(name, packed_beside_alone()[0]))
    alone = [logits[number + 1, :length] for number, length in enumerate(DOCUMENTS)]
    assert_close(logits[0, :PACKED], np.concatenate(alone))


# What granite and yarn change has no parameters and is the same for every document; experts come with biases too.
@pytest.mark.parametrize("name", [slow(name) if name in ("granite", "yarn", "experts") else name for name in VARIANTS])
def test_gradients_of_packed_equal_those_of_unpacked(name: str) -> None:
    packed, alone = packed_beside_alone()
    (value, gradient), (expected, expected_gradient) = (loss_and_gradient(model_of(name), b) for b in (packed, alone))
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


@jax.jit
def decode(model: Transformer, cache: kv.Cache, *rows: jax.Array) -> tuple[jax.Array, kv.Cache | None]:
    hidden, cache_after, _ = model.hidden(*rows, cache=cache)
    return model.logits(hidden), cache_after


@variants
def test_cached_decoding_equals_the_full_forward(name: str) -> None:
    """A prompt of 7 in one go, then one, one, and 7 more, in a cache with room to spare."""
    batch = batch_of(ROWS, LENGTH)
    cache, parts, done = kv.empty(config_of(name), ROWS, 20), [], 0
    for size in (7, 1, 1, 7):
        logits, cache = decode(model_of(name), cache, batch["tokens"][:, done : done + size])
        assert cache is not None
        parts.append(logits)
        done += size
    assert_close(jnp.concatenate(parts, axis=1), logits_of(name, batch))
    assert int(cache.slots.length) == LENGTH


def test_prompts_of_different_lengths_share_a_cache() -> None:
    """Padded on the left: each row decodes as it would alone. Rows without places are one document each."""
    model, short, long = model_of("llama"), tokens_of(1, 4, seed=1), tokens_of(1, 7, seed=2)
    tokens = jnp.concatenate([jnp.pad(short, ((0, 0), (3, 0))), long])
    offsets = jnp.array([[3], [0]])
    positions = jnp.maximum(jnp.arange(7)[None] - offsets, 0)
    segments = jnp.where(jnp.arange(7)[None] < offsets, PAD, 0)
    logits, cache = decode(model, kv.empty(config_of("llama"), 2, 9), tokens, positions, segments)
    assert cache is not None
    following = tokens_of(2, 1, seed=3)
    after, _ = decode(model, cache, following, jnp.array([[4], [7]]))
    short, long = (jnp.concatenate([row, following[i : i + 1]], 1) for i, row in enumerate((short, long)))
    alone = forward(model, jnp.concatenate([jnp.pad(short, ((0, 0), (0, 3))), long]))
    assert_close(logits[0, 3:], alone[0, :4])
    assert_close(after[:, 0], alone[jnp.arange(2), jnp.array([4, 7])])


# Each policy once: on a plain layer, two windows a pattern, and experts.
KEPT = [("llama", "offload"), ("gemma2", "full"), ("experts", "matmuls")]
KEPT += [slow(n, remat) for n in VARIANTS for remat in ("full", "matmuls") if (n, remat) not in KEPT]


@pytest.mark.parametrize(("name", "remat"), KEPT)
def test_recomputing_changes_nothing(name: str, remat: str) -> None:
    """Offloading: it compiles where there is pinned memory."""
    batch, plain = packed_batch(), model_of(name)
    other = Transformer(config_of(name, remat=remat), values_of(plain))
    assert_close(*(loss_and_gradient(model, batch) for model in (plain, other)), atol=1e-6)


def test_recomputing_keeps_less() -> None:
    """Bytes that backward holds, by policy: full < matmuls < none."""
    batch = batch_of(4, 256)
    held = {}
    for remat in ("full", "matmuls", "none"):
        model = create(config_of("llama", remat=remat, depth=8), 0)
        compiled = jax.jit(jax.grad(loss)).lower(model, batch).compile()
        held[remat] = compiled.memory_analysis().temp_size_in_bytes
    assert held["full"] < 0.7 * held["matmuls"]
    assert held["matmuls"] < 0.9 * held["none"]


def values_of(model: Transformer) -> dict[str, jax.Array]:
    return {
        name: getattr(model.blocks if name.startswith("blocks.") else model, name.removeprefix("blocks."))[...]
        for name in all_parameters(model.config)
    }


# ---- sharding ----

MESHES = {
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"tensor": 4, "data": 2},
    "context": {"context": 4, "fsdp": 2},
    "all": {"fsdp": 2, "tensor": 2, "context": 2},
    "expert": {"expert": 4, "fsdp": 2},
    "expert-tensor": {"expert": 2, "tensor": 2, "context": 2},
}


def mesh_of(sizes: dict[str, int]) -> jax.sharding.Mesh:
    axes = ("data", "fsdp", "expert", "tensor", "context")
    return jax.make_mesh(tuple(sizes.get(axis, 1) for axis in axes), axes, axis_types=(AxisType.Explicit,) * 5)


def packed_batch() -> dict[str, jax.Array]:
    """Eight rows of 16 with two documents each, split where no shard boundary is."""
    positions = jnp.concatenate([jnp.arange(7), jnp.arange(9)])
    segments = jnp.concatenate([jnp.zeros(7, jnp.int32), jnp.ones(9, jnp.int32)])
    return batch_of(8, 16) | {"positions": jnp.tile(positions, (8, 1)), "segment_ids": jnp.tile(segments, (8, 1))}


# Each axis and each kind of layer at least once; all of them with each other are slow.
CASES = [("llama", "context"), ("llama", "all"), ("gemma2", "tensor"), ("starcoder2", "all")]
CASES += [("experts-bias", "expert-tensor")]
EVERY = [(name, mesh) for name in ("llama", "gemma2", "starcoder2") for mesh in MESHES if "expert" not in mesh]
EVERY.remove(("llama", "tensor"))  # two key heads do not divide over four devices
EVERY += [("experts", mesh) for mesh in ("all", "expert", "expert-tensor")] + [("experts-bias", "expert-tensor")]


def placed(model: Transformer) -> Transformer:
    """The model with its arrays where the mesh that is set wants them."""
    dimensions = {name: parameter.dimensions for name, parameter in all_parameters(model.config).items()}
    return Transformer(model.config, {n: jax.device_put(v, spec(*dimensions[n])) for n, v in values_of(model).items()})


@pytest.mark.parametrize(("name", "mesh"), [*CASES, *(slow(*case) for case in EVERY if case not in CASES)])
def test_sharded_equals_single_device(name: str, mesh: str) -> None:
    """Packed rows, loss and gradients; gradients are stored as the parameters are."""
    value, gradient = loss_and_gradient(model_of(name), packed_batch())
    with jax.set_mesh(mesh_of(MESHES[mesh])):
        sharded = placed(model_of(name))
        value2, gradient2 = loss_and_gradient(sharded, packed_batch())
        specs = [jax.tree.map(lambda x: str(x.sharding.spec), tree) for tree in (gradient2, sharded)]
    assert jax.tree.leaves(specs[0]) == jax.tree.leaves(specs[1])
    assert_close((value, gradient), (value2, gradient2))


def test_a_model_is_born_sharded_and_the_same_on_every_mesh() -> None:
    config = config_of("llama")
    alone = create(config, 3)
    with jax.set_mesh(mesh_of({"fsdp": 2, "tensor": 4})):
        sharded = create(config, 3)
        assert sharded.blocks.query[...].sharding.spec == spec("layers", "width", "heads", "head_dim")
        assert sharded.embedding[...].addressable_shards[0].data.size == alone.embedding[...].size // 8
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(sharded), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["llama", "experts"])
def test_decoding_on_a_mesh_equals_decoding_on_one_device(name: str) -> None:
    batch = batch_of(ROWS, LENGTH)
    with jax.set_mesh(mesh_of({"fsdp": 2, "tensor": 2, "context": 2})):
        sharded = placed(model_of(name))
        cache, parts = kv.empty(config_of(name), ROWS, 20), []
        for a, b in ((0, 14), (14, 15), (15, 16)):
            logits, cache = decode(sharded, cache, batch["tokens"][:, a:b])
            assert cache is not None
            parts.append(np.asarray(logits))
    assert_close(np.concatenate(parts, axis=1), logits_of(name, batch))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_lay_out_on_256_devices(name: str) -> None:
    """Forward and backward of the real size traced against 256 abstract devices: every sharding is consistent."""
    config = dial(PRESETS[name], 49_152)
    tensor = 2 if config.kv_heads % 4 else 4
    sizes = {"data": 2, "fsdp": 8, "expert": 4 if config.moe.experts else 1, "tensor": tensor, "context": 2}
    sizes["data"] = 256 // (sizes["fsdp"] * sizes["expert"] * sizes["tensor"] * sizes["context"])
    axes = ("data", "fsdp", "expert", "tensor", "context")
    mesh = jax.sharding.AbstractMesh(tuple(sizes[a] for a in axes), axes, axis_types=(AxisType.Explicit,) * 5)
    assert mesh.size == 256
    with jax.sharding.use_abstract_mesh(mesh):
        rows = jax.ShapeDtypeStruct((256, 4096), jnp.int32)
        model = jax.eval_shape(lambda: create(config, 0))
        batch = dict.fromkeys(("tokens", "targets", "positions", "segment_ids"), rows)
        batch["loss_weights"] = jax.ShapeDtypeStruct((256, 4096), jnp.float32)
        gradient = jax.eval_shape(jax.grad(loss), model, batch)
    for path, parameter in all_parameters(config).items():
        owner = gradient.blocks if path.startswith("blocks.") else gradient
        (leaf,) = jax.tree.leaves(getattr(owner, path.removeprefix("blocks.")))
        assert leaf.shape == parameter.shape
        with jax.sharding.use_abstract_mesh(mesh):
            assert leaf.sharding.spec == spec(*parameter.dimensions), path


# ---- small parts ----


def test_initialisation_has_the_documented_spread() -> None:
    config = dial(ModelConfig(depth=8, width=256, mlp_width=512), 1000)
    values = values_of(create(config, 0))
    expected = {
        "embedding": 0.02,
        "blocks.query": 256**-0.5,
        "blocks.up": 256**-0.5,
        "blocks.down": 512**-0.5 / 4,
        "blocks.out": 256**-0.5 / 4,
    }
    for name, std in expected.items():
        assert float(values[name].std()) == pytest.approx(std, rel=0.02), name
    assert (np.asarray(values["blocks.mlp_norm"]) == 1).all()


def test_experts_start_like_one_feed_forward() -> None:
    values = values_of(create(config_of("experts", width=256), 0))
    assert float(values["blocks.experts_up"].std()) == pytest.approx(256**-0.5, rel=0.05)
    assert float(values["blocks.experts_down"].std()) == pytest.approx(32**-0.5 / 2, rel=0.05)


def test_rms_norm_by_hand() -> None:
    normed = rms_norm(jnp.array([[3.0, 4.0]]), jnp.array([1.0, 2.0]), 0.0)
    np.testing.assert_allclose(normed, np.array([[3.0, 8.0]]) / np.sqrt(12.5), rtol=1e-6)


def test_bf16_keeps_statistics_in_f32() -> None:
    """A norm of values whose squares overflow bfloat16's precision is right to bfloat16's own rounding."""
    x = 1000 + jnp.arange(256.0)[None]
    normed = rms_norm(x.astype(jnp.bfloat16), jnp.ones(256), 0.0)
    exact = np.asarray(x.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(np.asarray(normed, np.float64), exact / np.sqrt((exact**2).mean()), rtol=2**-8)


@pytest.mark.parametrize(
    ("settings", "windows", "runs"),
    [
        ({"depth": 3}, (0, 0, 0), [(0, 3, (0,))]),
        ({"depth": 3, "sliding_window": 5}, (5, 5, 5), [(0, 3, (5,))]),
        ({"depth": 4, "sliding_window": 5, "full_attention_every": 2}, (5, 0, 5, 0), [(0, 4, (5, 0))]),
        ({"depth": 4, "sliding_window": 5, "window_from_layer": 3}, (0, 0, 0, 5), [(0, 3, (0,)), (3, 4, (5,))]),
        (
            {"depth": 3, "sliding_window": 5, "full_attention_every": 2},
            (5, 0, 5),
            [(0, 1, (5,)), (1, 2, (0,)), (2, 3, (5,))],
        ),
    ],
)
def test_windows_by_layer(settings: dict[str, int], windows: tuple[int, ...], runs: list[Any]) -> None:
    assert layer_windows(ModelConfig(**settings)) == windows
    assert layer_runs(windows) == runs
