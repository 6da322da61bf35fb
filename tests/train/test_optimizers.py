"""AdamW and Adafactor against NumPy and optax, on one device and on meshes; what decays; what the state is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codelm.config import ModelConfig, TrainConfig, dial
from codelm.model import Transformer
from codelm.parameters import all_parameters
from tests.train.stacks import (
    DENSE,
    EXPERTS,
    SOME_EXPERTS,
    arrays,
    assert_placed,
    assert_same,
    mesh_of,
    two_steps,
)
from train.optimizers import optimizer

EVERYTHING = dial(
    ModelConfig(
        depth=2,
        width=16,
        heads=2,
        head_dim=8,
        mlp_width=16,
        norm="layernorm",
        post_norms=True,
        qk_norm=True,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied_embeddings=False,
    ),
    20,
)
MATRICES = {f"blocks.{name}" for name in ("query", "key", "value", "out", "up", "gate", "down")}
EXPERT_MATRICES = {f"blocks.{name}" for name in ("query", "key", "value", "out", "router")} | {
    f"blocks.{kind}_{name}" for kind in ("experts", "shared") for name in ("up", "gate", "down")
}


def test_adamw_by_hand() -> None:
    """Three steps in NumPy float64, with the weights moved in between."""
    train = TrainConfig(beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.3)
    transform = optimizer(DENSE, train)
    weights = arrays(DENSE, 0)
    state, update = transform.init(weights), jax.jit(transform.update)
    ours = {name: np.asarray(x, np.float64) for name, x in weights.items()}
    first, second = ({name: np.zeros(x.shape) for name, x in ours.items()} for _ in range(2))
    for step in range(1, 4):
        gradients = arrays(DENSE, step)
        added, state = update(gradients, state, weights)
        weights = {name: weights[name] + 0.1 * added[name] for name in weights}
        for name, weight in ours.items():
            gradient = np.asarray(gradients[name], np.float64)
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.9 * second[name] + 0.1 * gradient**2
            move = (first[name] / (1 - 0.8**step)) / (np.sqrt(second[name] / (1 - 0.9**step)) + 1e-3)
            shrink = 0.3 * weight if name in MATRICES else 0.0
            ours[name] = weight - 0.1 * (move + shrink)
    for name, weight in ours.items():
        np.testing.assert_allclose(weights[name], weight, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "config", "decayed"),
    [
        ("adamw", DENSE, MATRICES),
        ("adamw", EVERYTHING, MATRICES | {"head"}),
        ("adamw", EXPERTS, EXPERT_MATRICES | {"head"}),
        ("muon", DENSE, MATRICES),
        ("adafactor", DENSE, MATRICES),
    ],
)
def test_what_decays(kind: Any, config: ModelConfig, decayed: set[str]) -> None:
    """With no gradient nothing but decay moves: matrices and a head of its own, by their share of themselves."""
    transform, weights = optimizer(config, TrainConfig(weight_decay=0.25, optimizer=kind)), arrays(config, 0)
    nothing = jax.tree.map(np.zeros_like, weights)
    added, _ = jax.jit(lambda weights: transform.update(nothing, transform.init(weights), weights))(weights)
    assert {name for name, x in added.items() if np.abs(x).max() > 0} == decayed
    for name in decayed:
        np.testing.assert_allclose(added[name], -0.25 * weights[name], rtol=1e-6)


def test_adafactor_is_optax_on_each_layer() -> None:
    """Every matrix of every layer and expert alone, flat, through optax; vectors too. Three steps."""
    transform = optimizer(EXPERTS, TrainConfig(optimizer="adafactor", weight_decay=0.0))
    reference = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1), optax.clip_by_block_rms(1.0), optax.scale(-1.0)
    )
    table, names = (
        all_parameters(EXPERTS),
        (*SOME_EXPERTS, "embedding", "blocks.query", "blocks.out", "blocks.attention_norm"),
    )
    weights = arrays(EXPERTS, 0, names)

    def alone(stacked: dict[str, Any]) -> dict[str, Any]:
        """Stacks of matrices or vectors along one axis, which vmap then takes away."""
        shapes = {name: table[name].matrix if "norm" not in name else (32,) for name in names}
        return {name: np.reshape(x, (-1, *shapes[name])) for name, x in stacked.items()}

    @jax.jit
    def expect(gradients: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        return {n: jax.vmap(reference.update)(g, state[n], g) for n, g in gradients.items()}

    state: Any = jax.jit(transform.init)(weights)
    expected_state = jax.jit(lambda xs: {n: jax.vmap(reference.init)(x) for n, x in xs.items()})(alone(weights))
    update = jax.jit(transform.update)
    for step in range(1, 4):
        gradients = arrays(EXPERTS, step, names)
        added, state = update(gradients, state, weights)
        expected = expect(alone(gradients), expected_state)
        expected_state = {name: state for name, (_, state) in expected.items()}
        for name, x in alone(added).items():
            np.testing.assert_allclose(x, expected[name][0], rtol=1e-4, atol=1e-6, err_msg=name)


def test_adafactor_keeps_rows_and_columns() -> None:
    """Its point: of a matrix one number a row and one a column, whatever axes these are made of."""
    transform = optimizer(EXPERTS, TrainConfig(optimizer="adafactor"))
    state: Any = jax.eval_shape(transform.init, arrays(EXPERTS, 0))
    assert state.rows["blocks.query"].shape == (3, 32)
    assert state.columns["blocks.query"].shape == (3, 4, 8)
    assert state.rows["blocks.out"].shape == (3, 4, 8)
    assert state.columns["blocks.out"].shape == (3, 32)
    assert state.rows["blocks.experts_down"].shape == (3, 4, 16)
    assert state.columns["blocks.experts_down"].shape == (3, 4, 32)
    assert state.rows["embedding"].shape == (40,)
    assert state.whole.keys() == {"final_norm", "blocks.attention_norm", "blocks.mlp_norm", "blocks.router_bias"}


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_on_a_mesh_as_alone(kind: Any) -> None:
    """Two steps with the state given away: the same numbers, and all of it stays split as the parameter is."""
    transform = optimizer(EXPERTS, TrainConfig(optimizer=kind))
    names = ("head", "blocks.query", "blocks.out", "blocks.experts_down", "blocks.attention_norm")
    _, expected, _ = two_steps(transform, EXPERTS, names)
    with jax.set_mesh(mesh_of({"expert": 2, "fsdp": 2, "tensor": 2})):
        weights, added, state = two_steps(transform, EXPERTS, names)
    assert_same(added, expected)
    assert_placed(added, weights)
    if kind == "adamw":
        assert_placed(state.mu, weights)
        assert_placed(state.nu, weights)
    else:
        assert tuple(state.rows["blocks.query"].sharding.spec) == (None, "fsdp")
        assert tuple(state.columns["blocks.query"].sharding.spec) == (None, "tensor", None)
        assert tuple(state.rows["blocks.experts_down"].sharding.spec) == (None, "expert", "tensor")
        assert tuple(state.whole["blocks.attention_norm"].sharding.spec) == (None, None)


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_on_a_model(kind: Any) -> None:
    """A Transformer, stored in bfloat16: what is added has its structure, each array what its name says."""
    transform = optimizer(DENSE, TrainConfig(optimizer=kind))
    named = {name: x.astype(jnp.bfloat16) for name, x in arrays(DENSE, 0).items()}
    model = Transformer(DENSE, named)

    @jax.jit
    def once(*trees: Any) -> list[Any]:
        return [transform.update(tree, transform.init(tree), tree) for tree in trees]

    (added, state), (expected, _) = once(model, named)
    assert jax.tree.structure(added) == jax.tree.structure(model)
    assert {x.dtype.name for x in jax.tree.leaves((added, state))} <= {"float32", "int32"}
    assert_same({name: getattr(added.blocks, name.removeprefix("blocks."))[...] for name in MATRICES}, expected)
    assert_same({"embedding": added.embedding[...]}, expected)
