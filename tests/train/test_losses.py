"""The total and its parts by hand from whole logits; packed rows, weights, microbatches and meshes change nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from codelm.config import ModelConfig, MoEConfig, TrainConfig, dial
from codelm.model import PAD, Transformer, create
from codelm.moe import MoEStats
from codelm.parameters import all_parameters
from codelm.sharding import spec
from train.losses import losses, routing_losses, targets_ahead, with_balanced_routers

SIZES = {"depth": 1, "width": 32, "heads": 4, "kv_heads": 4, "head_dim": 8, "mlp_width": 32}
CONFIG = dial(ModelConfig(**SIZES, mtp_heads=2, compute_dtype="float32", logit_softcap=5.0), 40)
EXPERTS = MoEConfig(experts=4, top_k=2, expert_width=16, router_z_weight=0.01, balance_weight=0.1)
TRAIN = TrainConfig(z_loss=0.01, mtp_weight=0.5)
AXES = ("data", "fsdp", "expert", "tensor", "context")


def model_of(config: ModelConfig = CONFIG) -> Transformer:
    """Every array away from where it starts."""
    rng = np.random.default_rng(7)
    parameters = all_parameters(config).items()
    values = {
        name: rng.normal(0.0, max(p.std(config.depth), 0.1), p.shape) + (p.start == "one") for name, p in parameters
    }
    return Transformer(config, {name: jnp.asarray(value, jnp.float32) for name, value in values.items()})


def batch_of() -> dict[str, Any]:
    """Four rows of 16: two packed (documents of 7, 6, 1 and padding), two of one document; weights 0, a half or 1."""
    rng = np.random.default_rng(0)
    packed = np.repeat([0, 1, 2, PAD], [7, 6, 1, 2])
    segments = np.stack([packed, packed, np.zeros(16, int), np.zeros(16, int)]).astype(np.int32)
    starts = [[np.flatnonzero(row == s)[0] for s in row] for row in segments]
    weights = np.where(segments == PAD, 0.0, rng.choice([0.0, 0.5, 1.0, 1.0], segments.shape))
    return {
        "tokens": rng.integers(0, 40, (4, 16)).astype(np.int32),
        "targets": rng.integers(0, 40, (4, 16)).astype(np.int32),
        "loss_weights": weights.astype(np.float32),
        "positions": (np.arange(16) - np.array(starts)).astype(np.int32),
        "segment_ids": segments,
    }


@jax.jit
def last_stream(model: Transformer, batch: dict[str, Any]) -> jax.Array:
    return model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])[0]


def array(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_hand(model: Transformer, batch: dict[str, Any]) -> dict[str, float]:
    """Every part, token by token, from whole logits in float64."""
    stream = array(last_stream(model, batch))
    table, weights, segments, targets = (
        array(model.output_table),
        *(batch[name] for name in ("loss_weights", "segment_ids", "targets")),
    )
    streams = [stream]
    for up, down in zip(array(model.mtp_up[...]), array(model.mtp_down[...]), strict=True):
        inner = stream @ up
        streams.append(stream + inner / (1 + np.exp(-inner)) @ down)
    sums = {"loss": 0.0, "accuracy": 0.0, "z_loss": 0.0, "mtp_loss/2": 0.0, "mtp_loss/3": 0.0}
    for further, stream in enumerate(streams):
        logits = 5.0 * np.tanh(stream @ table.T / 5.0)
        for row, at in np.ndindex(4, 16 - further):
            aim = targets[row, at + further]
            loss = weights[row, at + further] * -log_softmax(logits[row, at])[aim]
            if further and segments[row, at] == segments[row, at + further]:
                sums[f"mtp_loss/{further + 1}"] += loss
            if not further:
                sums["loss"] += loss
                sums["accuracy"] += weights[row, at] * (logits[row, at].argmax() == aim)
                sums["z_loss"] += 0.01 * weights[row, at] * np.log(np.exp(logits[row, at]).sum()) ** 2
    return {name: float(value / weights.sum()) for name, value in sums.items()}


def assert_close(a: Any, b: Any, atol: float = 1e-6, rtol: float = 1e-4) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=atol, rtol=rtol)


both = jax.jit(jax.value_and_grad(losses, has_aux=True), static_argnums=1)


def test_parts_by_hand() -> None:
    model, batch = model_of(), batch_of()
    (total, aux), _ = both(model, TRAIN, batch)
    expected = by_hand(model, batch)
    assert {name: float(value) for name, value in aux.parts.items()} == pytest.approx(expected, rel=1e-4)
    ahead = (expected["mtp_loss/2"] + expected["mtp_loss/3"]) / 2
    assert float(total) == pytest.approx(expected["loss"] + expected["z_loss"] + 0.5 * ahead, rel=1e-5)
    assert float(aux.weight) == batch["loss_weights"].sum()
    assert aux.routing is None


def test_gradients_are_those_of_whole_logits() -> None:
    """Written plainly: what the heads lose reaches them, the table and the layers."""
    model, batch = model_of(), batch_of()
    weights, segments, targets = (batch[name] for name in ("loss_weights", "segment_ids", "targets"))

    def plain(model: Transformer) -> jax.Array:
        last, total = last_stream(model, batch), jnp.zeros(())
        for further, stream in enumerate([last, model.ahead(last, 0), model.ahead(last, 1)]):
            logits = model.logits(stream)
            row, at = np.indices((4, 16 - further)).reshape(2, -1)
            weight = weights[row, at + further] * (segments[row, at] == segments[row, at + further])
            lost = -jax.nn.log_softmax(logits)[row, at, targets[row, at + further]]
            z = jax.nn.logsumexp(logits, -1)[row, at] ** 2
            total += jnp.sum(weight * (0.25 * lost if further else lost + 0.01 * z))
        return total / weights.sum()

    expected, (_, got) = jax.jit(jax.grad(plain))(model), both(model, TRAIN, batch)
    assert_close(got, expected, atol=2e-6, rtol=1e-3)
    assert min(np.abs(got.mtp_up[...]).max((1, 2))) > 1e-3
    assert min(np.abs(got.mtp_down[...]).max((1, 2))) > 1e-3


def test_a_target_ahead_stays_in_its_document() -> None:
    """Two documents and padding; one token of the second has no weight."""
    batch = {
        "targets": np.array([[11, 12, 13, 24, 25, 26, 0]], np.int32),
        "loss_weights": np.array([[1, 1, 1, 1, 0, 0.5, 0]], np.float32),
        "segment_ids": np.array([[0, 0, 0, 1, 1, 1, PAD]], np.int32),
    }
    for further, aims, learnt in (
        (1, [12, 13, 0, 25, 26, 0, 0], [1, 1, 0, 0, 0.5, 0, 0]),
        (2, [13, 0, 0, 26, 0, 0, 0], [1, 0, 0, 0.5, 0, 0, 0]),
        (9, [0] * 7, [0] * 7),
    ):
        targets, weights = targets_ahead(batch, further)
        np.testing.assert_array_equal(weights[0], learnt)
        np.testing.assert_array_equal(np.where(weights > 0, targets, 0)[0], np.where(np.array(learnt) > 0, aims, 0))


def test_without_heads_nothing_changes() -> None:
    """The same start and the same figures of the next token, to the bit."""
    without = dataclasses.replace(CONFIG, mtp_heads=0)
    alone, model = create(without, 0), create(CONFIG, 0)
    assert not hasattr(alone, "mtp_up")
    np.testing.assert_array_equal(alone.embedding[...], model.embedding[...])
    np.testing.assert_array_equal(alone.blocks.down[...], model.blocks.down[...])
    total, aux = jax.jit(losses, static_argnums=1)(alone, TRAIN, batch_of())
    (_, other), _ = both(model, TRAIN, batch_of())
    assert aux.parts == {name: other.parts[name] for name in ("accuracy", "loss", "z_loss")}
    np.testing.assert_allclose(total, aux.parts["loss"] + aux.parts["z_loss"], rtol=1e-6)


def test_nothing_to_learn_is_a_total_of_zero() -> None:
    batch = batch_of() | {"loss_weights": np.zeros((4, 16), np.float32)}
    (total, aux), gradient = both(model_of(), TRAIN, batch)
    assert float(total) == 0
    assert float(aux.weight) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_microbatches_add_up() -> None:
    """The first and the last two rows, each weighted by what it learns."""
    model, batch = model_of(), batch_of()
    (total, aux), gradient = both(model, TRAIN, batch)
    weights = [batch["loss_weights"] * (np.arange(4)[:, None] // 2 == half) for half in (0, 1)]
    halves = [both(model, TRAIN, batch | {"loss_weights": own}) for own in weights]
    shares = [float(half.weight / aux.weight) for (_, half), _ in halves]
    assert shares[0] != pytest.approx(0.5)
    trees = [(total, aux.parts, gradient) for (total, aux), gradient in halves]
    mean = jax.tree.map(lambda a, b: shares[0] * a + shares[1] * b, *trees)
    assert_close(mean, (total, aux.parts, gradient))


def test_routers_terms_by_hand() -> None:
    """Two layers of four experts."""
    load = jnp.array([[0.25, 0.25, 0.25, 0.25], [0.1, 0.6, 0.1, 0.2]])
    pair = jnp.array
    routing = MoEStats(balance_loss=pair([1.0, 2.0]), z_loss=pair([3.0, 5.0]), load=load, dropped=pair([0.0, 0.5]))
    for balance, weight in (("loss", 0.1), ("bias", 0.0), ("none", 0.0)):
        config = dataclasses.replace(CONFIG, moe=dataclasses.replace(EXPERTS, balance=balance))
        total, parts = routing_losses(config, routing)
        expected = {"moe/balance": 1.5, "moe/z": 4.0, "moe/dropped": 0.25, "moe/max_load": 2.4}
        assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected)
        assert float(total) == pytest.approx(0.01 * 4.0 + weight * 1.5)


def test_routers_are_part_of_the_total_and_follow_the_load() -> None:
    config = dataclasses.replace(CONFIG, mtp_heads=0, moe=dataclasses.replace(EXPERTS, balance="bias"))
    model = model_of(config)
    total, aux = jax.jit(losses, static_argnums=1)(model, TRAIN, batch_of())
    expected = aux.parts["loss"] + aux.parts["z_loss"] + 0.01 * aux.parts["moe/z"]
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    before, load = np.asarray(model.blocks.router_bias[...]), np.asarray(aux.routing.load)
    assert load.std() > 0.01
    after = np.asarray(with_balanced_routers(model, aux.routing.load).blocks.router_bias[...])
    np.testing.assert_allclose(after - before, 0.1 * np.sign(0.25 - load), atol=1e-6)
    assert with_balanced_routers(model, None) is model


MESHES = [{"fsdp": 2, "tensor": 2, "context": 2}, pytest.param({"data": 2, "context": 4}, marks=pytest.mark.slow)]


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_sharded_equals_single_device(sizes: dict[str, int]) -> None:
    """Targets two and three on cross the borders of a sequence split in parts of 4; gradients lie as parameters do."""
    model, batch = model_of(), batch_of()
    single = both(model, TRAIN, batch)
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    with jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=(AxisType.Explicit,) * 5)):
        values = {
            name: jax.device_put(
                getattr(model.blocks if name.startswith("blocks.") else model, name.removeprefix("blocks."))[...],
                spec(*parameter.dimensions),
            )
            for name, parameter in all_parameters(CONFIG).items()
        }
        placed = Transformer(CONFIG, values)
        rows = {name: jax.device_put(value, spec("batch", "sequence")) for name, value in batch.items()}
        sharded = both(placed, TRAIN, rows)
        specs = [[str(x.sharding.spec) for x in jax.tree.leaves(tree)] for tree in (sharded[1], placed)]
    assert specs[0] == specs[1]
    assert_close(single[0], sharded[0])
    assert_close(single[1], sharded[1], atol=1e-5)
