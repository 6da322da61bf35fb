"""Muon against the singular value decomposition, each layer alone, and on meshes."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from codelm.config import ModelConfig, TrainConfig, dial
from codelm.parameters import all_parameters
from codelm.presets import PRESETS
from codelm.sharding import spec
from tests.train.stacks import (
    DENSE,
    EXPERTS,
    SOME,
    SOME_EXPERTS,
    arrays,
    assert_placed,
    mesh_of,
    two_steps,
)
from train.muon import newton_schulz
from train.optimizers import optimizer

MUON = TrainConfig(optimizer="muon", momentum=0.9, weight_decay=0.0)


def quintic(singular: np.ndarray) -> np.ndarray:
    """Five steps of the published polynomial, on numbers."""
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return singular


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (40, 16), (16, 40)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_singular_values_become_about_one(rows: int, columns: int, dtype: str) -> None:
    """Directions stay, sizes are those of the polynomial (float32), all between 0.68 and 1.2; zeros stay zeros."""
    rng = np.random.default_rng(0)
    stack = 1e-6 * rng.normal(size=(3, rows, columns)).astype(np.float32)
    stack[2] = 0
    out = np.asarray(jax.jit(newton_schulz)(jnp.asarray(stack, dtype)), np.float64)
    assert (out[2] == 0).all()
    for before, after in zip(stack[:2].astype(np.float64), out[:2], strict=True):
        left, sizes, right = np.linalg.svd(before, full_matrices=False)
        large = sizes > 0.05 * np.linalg.norm(before) / math.sqrt(len(sizes))
        expected = (left * quintic(sizes / np.linalg.norm(before))) @ right
        found = np.linalg.svd(after, compute_uv=False)
        np.testing.assert_allclose(after, expected, atol=2e-5 if dtype == "float32" else 0.08)
        assert ((found[large] > 0.66) & (found[large] < 1.25)).all()


def by_hand(config: ModelConfig, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What the second step adds: each matrix of the stack alone, in NumPy, by its definition."""
    added, table, first = {}, all_parameters(config), arrays(config, 1, names)
    for name, gradient in arrays(config, 2, names).items():
        rows, columns = table[name].matrix
        momentum = 0.9 * np.asarray(first[name], np.float64) + gradient  # the first step's is its gradient
        ahead = np.asarray(gradient + 0.9 * momentum).reshape(-1, rows, columns)
        moved = []
        for matrix in ahead:
            left, sizes, right = np.linalg.svd(matrix, full_matrices=False)
            moved.append((left * quintic(sizes / np.linalg.norm(matrix))) @ right)
        added[name] = -0.2 * math.sqrt(max(rows, columns)) * np.reshape(moved, gradient.shape)
    return added


MATRICES = tuple(name for name in SOME if name.startswith("blocks.") and "norm" not in name)
EXPERT_MATRICES = tuple(name for name in SOME_EXPERTS if name not in ("head", "blocks.router"))
CASES = [
    (DENSE, ("blocks.query", "blocks.out"), {"fsdp": 8}),
    (DENSE, MATRICES, {"data": 2, "fsdp": 2, "tensor": 2}),
    (EXPERTS, EXPERT_MATRICES, {"expert": 2, "fsdp": 2, "tensor": 2}),
]


@pytest.mark.parametrize(("config", "names", "sizes"), CASES)
def test_each_matrix_alone(config: ModelConfig, names: tuple[str, ...], sizes: dict[str, int]) -> None:
    """Queries of all heads, keys of fewer, outputs, experts: one matrix each a layer. Also where 3 layers divide over
    no axis, and where the state is given away: it stays split as the parameter is."""
    with jax.set_mesh(mesh_of(sizes)):
        weights, added, state = two_steps(optimizer(config, MUON), config, names)
    for name, expected in by_hand(config, names).items():
        np.testing.assert_allclose(added[name], expected, atol=2e-4, err_msg=name)
    assert_placed(added, weights)
    assert_placed(state[0].momentum, weights)


def test_without_a_mesh() -> None:
    """And what is no matrix of a layer is AdamW's: the embedding, a norm, a head, a router."""
    for config, names in ((DENSE, SOME), (EXPERTS, SOME_EXPERTS)):
        _, added, state = two_steps(optimizer(config, MUON), config, names)
        expected = by_hand(config, tuple(set(names) & {*MATRICES, *EXPERT_MATRICES}))
        assert state[0].momentum.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(added[name], value, atol=2e-4, err_msg=name)
        rest = set(names) - expected.keys()
        first, second = (arrays(config, seed, rest) for seed in (1, 2))
        for name in rest:
            moment = (0.09 * first[name] + 0.1 * second[name]) / 0.19
            square = (0.0475 * first[name] ** 2 + 0.05 * second[name] ** 2) / 0.0975
            np.testing.assert_allclose(added[name], -moment / np.sqrt(square), atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("sizes", "exchanges", "gathers"),
    [
        ({"fsdp": 4, "tensor": 2}, 4, 0),  # there and back, over each axis
        ({"data": 2, "fsdp": 4}, 2, 0),  # 3 layers filled up to 4 do not divide over 8
        ({"data": 2, "fsdp": 2}, 2, 1),  # over 4 they do: data takes a share, and is told of the other's
    ],
)
def test_devices_share_the_work(sizes: dict[str, int], exchanges: int, gathers: int) -> None:
    """In what is compiled, products are of one layer, and nothing is gathered that a device does not keep."""
    with jax.set_mesh(mesh_of(sizes)):
        weights, transform = arrays(DENSE, 0, ("blocks.down",)), optimizer(DENSE, MUON)
        text = jax.jit(transform.update).lower(weights, transform.init(weights), weights).compile().as_text()
    products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", text)
    assert len(products) == 3
    assert all(math.prod(int(size) for size in shape.split(",")) <= 32 * 48 for shape in products)
    assert text.count(" all-to-all(") == exchanges
    assert text.count(" all-gather(") == gathers


@pytest.mark.parametrize("name", ["1.3b", "7b"])
def test_traces_on_256_devices(name: str) -> None:
    config = dial(PRESETS[name], 49_152)
    axes = ("data", "fsdp", "expert", "tensor", "context")
    mesh = jax.sharding.AbstractMesh((2, 16, 1, 4, 2), axes, axis_types=(AxisType.Explicit,) * 5)
    with jax.sharding.use_abstract_mesh(mesh):
        weights: Any = {
            name: jax.ShapeDtypeStruct(p.shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec(*p.dimensions)))
            for name, p in all_parameters(config).items()
        }
        transform = optimizer(config, MUON)
        added, _ = jax.eval_shape(lambda w: transform.update(w, transform.init(w), w), weights)
    for name, parameter in all_parameters(config).items():
        assert added[name].shape == parameter.shape
        assert added[name].sharding.spec == weights[name].sharding.spec, name
