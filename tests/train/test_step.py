"""One update against plain JAX: gradients of a plainly written loss, clipped and applied by hand."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codelm.config import Config, MeshConfig, ModelConfig, TrainConfig, dial
from codelm.model import Transformer, create
from codelm.train_config import GuardConfig
from data.rows import Arrays
from train.optimizers import optimizer
from train.schedules import learning_rate
from train.state import State, new_state
from train.statistics import group
from train.step import Batch, make_steps
from train.trainer import mesh_of

VOCAB, ROWS, LENGTH = 48, 8, 16
MODEL = dial(
    ModelConfig(depth=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, compute_dtype="float32"), VOCAB
)
TRAIN = TrainConfig(steps=20, learning_rate=1e-2, warmup_steps=2, grad_clip=0.5)
CONFIG = Config(model=MODEL, train=TRAIN, mesh=MeshConfig(data=1))


def batch(seed: int) -> Arrays:
    """Packed rows: two documents each, some tokens without weight, padding at the end."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB, (ROWS, LENGTH + 1)).astype(np.int32)
    segments = np.repeat([[0] * 6 + [1] * 8 + [-1] * 2], ROWS, axis=0).astype(np.int32)
    weights = (rng.random((ROWS, LENGTH)) < 0.8) * (segments >= 0)
    return Arrays(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        loss_weights=weights.astype(np.float32),
        positions=np.repeat([[*range(6), *range(8), 0, 0]], ROWS, axis=0).astype(np.int32),
        segment_ids=segments,
    )


def begin(config: Config) -> State:
    transform = optimizer(config.model, config.train)
    return new_state(create(config.model, config.seed), transform, config.train.guard.window)


def plain_loss(model: Transformer, rows: Batch) -> jax.Array:
    logits = jax.nn.log_softmax(model(jnp.asarray(rows["tokens"]), rows["positions"], rows["segment_ids"]))
    picked = jnp.take_along_axis(logits, jnp.asarray(rows["targets"])[..., None], -1)[..., 0]
    return -jnp.sum(picked * rows["loss_weights"]) / jnp.sum(rows["loss_weights"])


def test_an_update_by_hand() -> None:
    """Gradient, clip, the optimizer's direction, the schedule's rate."""
    state, rows = begin(CONFIG), batch(0)
    model: Any = state.model
    loss, gradient = jax.jit(jax.value_and_grad(plain_loss))(model, rows)
    norm = float(np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in jax.tree.leaves(gradient))))
    assert norm > TRAIN.grad_clip
    clipped = jax.tree.map(lambda g: g * (TRAIN.grad_clip / norm), gradient)
    transform = optimizer(MODEL, TRAIN)
    direction, _ = transform.update(clipped, transform.init(model), model)
    rate = float(learning_rate(TRAIN)(0))
    expected = jax.tree.map(lambda p, d: np.asarray(p) + rate * np.asarray(d), model, direction)
    state, metrics = make_steps(CONFIG).whole(state, rows)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-4)
    assert float(metrics["learning_rate"]) == pytest.approx(rate)
    assert float(metrics["learnt_tokens"]) == rows["loss_weights"].sum()
    for want, got in zip(jax.tree.leaves(expected), jax.tree.leaves(state.model), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_norms_by_group_make_up_the_whole() -> None:
    state, rows = begin(CONFIG), batch(1)
    gradient = jax.jit(jax.grad(plain_loss))(state.model, rows)
    _, metrics = make_steps(CONFIG).whole(state, rows)
    squares: dict[str, float] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = group(jax.tree_util.keystr(path).lstrip(".").removesuffix(".value"))
        squares[name] = squares.get(name, 0.0) + float(np.sum(np.square(leaf)))
    assert set(squares) == {"attention", "mlp", "embedding", "norms"}
    for name, square in squares.items():
        assert float(metrics[f"grad_norm/{name}"]) == pytest.approx(square**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.query", "attention"),
        ("blocks.out_bias", "attention"),
        ("blocks.query_norm", "norms"),
        ("blocks.experts_up", "mlp"),
        ("blocks.shared_down", "mlp"),
        ("blocks.router", "router"),
        ("blocks.router_bias", "router"),
        ("head", "head"),
        ("mtp_up", "mtp"),
        ("final_norm_bias", "norms"),
    ],
)
def test_groups(name: str, expected: str) -> None:
    assert group(name) == expected


def test_a_batch_in_parts_is_the_batch() -> None:
    """Parts that teach unequal numbers of tokens: the gradient is that of the whole, not a mean of means."""
    rows = batch(2)
    rows["loss_weights"][:2] = 0.0
    whole, _ = make_steps(CONFIG).whole(begin(CONFIG), rows)
    in_parts = dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, accumulate=4))
    steps, state = make_steps(in_parts), begin(in_parts)
    parts: list[Any] = [{name: value[n : n + 2] for name, value in rows.items()} for n in range(0, ROWS, 2)]
    sums = steps.first(state.model, parts[0])
    for part in parts[1:]:
        sums = steps.more(state.model, sums, part)
    state, metrics = steps.update(state, sums)
    assert float(metrics["learnt_tokens"]) == rows["loss_weights"].sum()
    for want, got in zip(jax.tree.leaves(whole.model), jax.tree.leaves(state.model), strict=True):
        np.testing.assert_allclose(got, want, atol=3e-5)


def test_a_bad_batch_changes_nothing_but_the_step() -> None:
    rows = batch(3)
    rows["loss_weights"][0, 0] = np.nan
    before = jax.tree.map(np.asarray, begin(CONFIG))
    state, metrics = make_steps(CONFIG).whole(begin(CONFIG), rows)
    assert np.isnan(metrics["loss"])
    assert (int(state.step), int(state.guard.skipped), int(metrics["skipped_in_a_row"])) == (1, 1, 1)
    for name in ("model", "optimizer"):
        for want, got in zip(*(jax.tree.leaves(getattr(s, name)) for s in (before, state)), strict=True):
            np.testing.assert_array_equal(got, want)


def test_sharded_updates_equal_those_of_one_device() -> None:
    train = dataclasses.replace(TRAIN, guard=GuardConfig(window=4))
    config = dataclasses.replace(CONFIG, train=train, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    alone, split = begin(config), None
    step = make_steps(config).whole
    expected = []
    for n in range(3):
        alone, metrics = step(alone, batch(n))
        expected.append(float(metrics["loss"]))
    with mesh_of(config) as devices:
        assert devices is not None
        split, step = begin(config), make_steps(config).whole
        places = jax.tree.map(lambda x: x.sharding, split)
        for n in range(3):
            rows = {name: jax.device_put(value, _rows_on(devices)) for name, value in batch(n).items()}
            split, metrics = step(split, rows)
            assert float(metrics["loss"]) == pytest.approx(expected[n], rel=1e-4)
        same = jax.tree.map(lambda x, place: x.sharding.is_equivalent_to(place, x.ndim), split, places)
        assert all(jax.tree.leaves(same))
    assert step._cache_size() == 1
    for want, got in zip(jax.tree.leaves(alone.model), jax.tree.leaves(split.model), strict=True):
        np.testing.assert_allclose(got, want, atol=3e-4)


def _rows_on(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    from data.feed import batch_sharding

    return batch_sharding(mesh)
