"""One forward: packed = unpacked, cached = full, sharded = single device, recomputed = kept; logits, gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from codelm import cache as kv
from codelm.config import ModelConfig, MoEConfig, RopeConfig, dial
from codelm.model import PAD, Transformer, create, rms_norm
from codelm.parameters import all_parameters
from codelm.presets import PRESETS
from codelm.sharding import spec
from codelm.windows import layer_runs, layer_windows
from train.step import loss

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


def noisy(model: Transformer) -> Transformer:
    """Every array away from where it starts, so that a bias or a scale that is left out shows."""
    leaves, shape = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(shape, moved)


def tokens_of(rows: int, length: int, seed: int = 0) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (rows, length), 0, 64)


def assert_close(a: Any, b: Any, atol: float = 2e-5) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=1e-4)


variants = pytest.mark.parametrize("name", VARIANTS)


@variants
def test_the_future_is_not_seen(name: str) -> None:
    model, tokens = noisy(create(config_of(name), 0)), tokens_of(1, 12)
    changed = tokens.at[0, 8:].set((tokens[0, 8:] + 1) % 64)
    logits = jax.jit(Transformer.__call__)
    before, after = logits(model, tokens), logits(model, changed)
    np.testing.assert_allclose(before[0, :8], after[0, :8], atol=1e-5)
    assert np.abs(before[0, 8] - after[0, 8]).max() > 1e-3


@variants
def test_packed_equals_unpacked(name: str) -> None:
    """Three documents in one row, and padding behind them: logits and gradients are those of each alone."""
    model, lengths = noisy(create(config_of(name), 0)), (5, 9, 6)
    documents = [tokens_of(1, n, seed=n) for n in lengths]
    tokens = jnp.concatenate([*documents, tokens_of(1, 4, seed=99)], axis=1)
    positions = jnp.concatenate([jnp.arange(n) for n in (*lengths, 4)])[None]
    segments = jnp.concatenate([jnp.full(n, s) for n, s in zip((*lengths, 4), (0, 1, 2, PAD), strict=True)])[None]

    def packed(model: Transformer) -> jax.Array:
        return model(tokens, positions, segments)[0, : sum(lengths)]

    def alone(model: Transformer) -> jax.Array:
        return jnp.concatenate([model(document)[0] for document in documents])

    weights = jax.random.normal(jax.random.key(1), (sum(lengths), 64))

    def both(logits_of: Callable[[Transformer], jax.Array]) -> tuple[jax.Array, Transformer]:
        def weighted(model: Transformer) -> tuple[jax.Array, jax.Array]:
            logits = logits_of(model)
            return (logits * weights).sum(), logits

        gradient, logits = jax.jit(jax.grad(weighted, has_aux=True))(model)
        return logits, gradient

    (logits, gradient), (expected, expected_gradient) = both(packed), both(alone)
    assert_close(logits, expected)
    assert_close(gradient, expected_gradient, atol=2e-3)


@variants
def test_cached_decoding_equals_the_full_forward(name: str) -> None:
    """A prompt of 7 in one go, then chunks of 1, 1, 3, in a cache with room to spare."""
    config = config_of(name)
    model, tokens = noisy(create(config, 0)), tokens_of(2, 12)
    cache, parts, done = kv.empty(config, 2, 20), [], 0

    @jax.jit
    def decode(model: Transformer, tokens: jax.Array, cache: kv.Cache) -> tuple[jax.Array, kv.Cache | None]:
        hidden, cache_after, _ = model.hidden(tokens, cache=cache)
        return model.logits(hidden), cache_after

    for size in (7, 1, 1, 3):
        logits, cache = decode(model, tokens[:, done : done + size], cache)
        assert cache is not None
        parts.append(logits)
        done += size
    assert_close(jnp.concatenate(parts, axis=1), jax.jit(Transformer.__call__)(model, tokens))
    assert int(cache.slots.length) == 12


def test_prompts_of_different_lengths_share_a_cache() -> None:
    """Padded on the left: each row decodes as it would alone."""
    config = config_of("llama")
    model, short, long = noisy(create(config, 0)), tokens_of(1, 4, seed=1), tokens_of(1, 7, seed=2)
    tokens = jnp.concatenate([jnp.pad(short, ((0, 0), (3, 0))), long])
    offsets = jnp.array([[3], [0]])
    positions = jnp.maximum(jnp.arange(7)[None] - offsets, 0)
    segments = jnp.where(jnp.arange(7)[None] < offsets, PAD, 0)
    hidden, cache, _ = model.hidden(tokens, positions, segments, kv.empty(config, 2, 9))
    assert_close(model.logits(hidden)[0, 3:], model(short)[0])
    following = tokens_of(2, 1, seed=3)
    hidden, _, _ = model.hidden(following, jnp.array([[4], [7]]), cache=cache)
    assert_close(model.logits(hidden)[0, 0], model(jnp.concatenate([short, following[:1]], 1))[0, -1])
    assert_close(model.logits(hidden)[1, 0], model(jnp.concatenate([long, following[1:]], 1))[0, -1])


def batch_of(rows: int, length: int) -> dict[str, jax.Array]:
    """One document a row, all of it learnt."""
    shape = (rows, length)
    places = {"positions": jnp.broadcast_to(jnp.arange(length), shape), "segment_ids": jnp.zeros(shape, jnp.int32)}
    text = {"tokens": tokens_of(*shape), "targets": tokens_of(*shape, seed=1), "loss_weights": jnp.ones(shape)}
    return {**text, **places}


@variants
@pytest.mark.parametrize("remat", ["full", "matmuls"])
def test_recomputing_changes_nothing(name: str, remat: str) -> None:
    batch = batch_of(2, 12)
    plain = noisy(create(config_of(name), 0))
    other = Transformer(config_of(name, remat=remat), values_of(plain))
    assert_close(*(jax.jit(jax.value_and_grad(loss))(model, batch) for model in (plain, other)), atol=1e-6)


def test_offloading_compiles_where_there_is_pinned_memory() -> None:
    batch = batch_of(2, 12)
    plain = noisy(create(config_of("llama"), 0))
    other = Transformer(config_of("llama", remat="offload"), values_of(plain))
    assert_close(*(jax.jit(jax.value_and_grad(loss))(model, batch) for model in (plain, other)), atol=1e-6)


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


def packed_loss(model: Transformer, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    logits = model(batch["tokens"], batch["positions"], batch["segment_ids"])
    return loss(model, batch) + (logits**2).mean(), logits


CASES = [(name, mesh) for name in ("llama", "gemma2", "starcoder2") for mesh in MESHES if "expert" not in mesh]
CASES += [("experts", mesh) for mesh in ("all", "expert", "expert-tensor")] + [("experts-bias", "expert-tensor")]


def placed(model: Transformer) -> Transformer:
    """The model with its arrays where the mesh that is set wants them."""
    dimensions = {name: parameter.dimensions for name, parameter in all_parameters(model.config).items()}
    return Transformer(model.config, {n: jax.device_put(v, spec(*dimensions[n])) for n, v in values_of(model).items()})


@pytest.mark.parametrize(("name", "mesh"), CASES)
def test_sharded_equals_single_device(name: str, mesh: str) -> None:
    """Packed rows, logits, loss and gradients; gradients are stored as the parameters are."""
    model, batch = noisy(create(config_of(name, kv_heads=4), 0)), packed_batch()
    (value, logits), gradient = jax.jit(jax.value_and_grad(packed_loss, has_aux=True))(model, batch)
    with jax.set_mesh(mesh_of(MESHES[mesh])):
        sharded = placed(model)
        (value2, logits2), gradient2 = jax.jit(jax.value_and_grad(packed_loss, has_aux=True))(sharded, batch)
        specs = [jax.tree.map(lambda x: str(x.sharding.spec), tree) for tree in (gradient2, sharded)]
    assert jax.tree.leaves(specs[0]) == jax.tree.leaves(specs[1])
    assert_close((value, logits), (value2, logits2))
    assert_close(gradient, gradient2, atol=1e-3)


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
    config = config_of(name, kv_heads=4)
    model, tokens = noisy(create(config, 0)), tokens_of(2, 9)
    expected = model(tokens)
    with jax.set_mesh(mesh_of({"fsdp": 2, "tensor": 2, "context": 2})):
        sharded = placed(model)
        cache, parts = kv.empty(config, 2, 12), []
        for a, b in ((0, 6), (6, 7), (7, 9)):
            hidden, cache, _ = jax.jit(lambda m, t, c: m.hidden(t, cache=c))(sharded, tokens[:, a:b], cache)
            parts.append(np.asarray(sharded.logits(hidden)))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=2e-5, rtol=1e-4)


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
