"""A small model's arrays, and gradients for them, by name: on one device or a mesh."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType

from codelm.config import ModelConfig, MoEConfig, dial
from codelm.parameters import all_parameters
from codelm.sharding import has_mesh, spec

SIZES = {"depth": 3, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 48, "vocab_size": 40}
DENSE = dial(ModelConfig(**SIZES, compute_dtype="float32"), 40)
EXPERTS = dial(
    ModelConfig(
        **SIZES,
        compute_dtype="float32",
        tied_embeddings=False,
        moe=MoEConfig(experts=4, expert_width=16, shared_experts=1, balance="bias"),
    ),
    40,
)
# One array of every layout and layer of a stack.
SOME = ("embedding", "blocks.query", "blocks.key", "blocks.out", "blocks.down", "blocks.attention_norm")
SOME_EXPERTS = ("head", "blocks.experts_up", "blocks.experts_down", "blocks.router")


def arrays(config: ModelConfig, seed: int, names: Iterable[str] = ()) -> dict[str, Any]:
    """All of them or some, columns of different size, placed on the mesh that is set."""
    table, made = all_parameters(config), {}
    for name in names or table:
        rng = np.random.default_rng((seed, *name.encode()))
        shape = table[name].shape
        value = np.asarray(rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1])), np.float32)
        place = spec(*table[name].dimensions, shape=shape)
        made[name] = jax.device_put(value, place) if has_mesh() else jnp.asarray(value)
    return made


def mesh_of(sizes: dict[str, int]) -> jax.sharding.Mesh:
    axes = ("data", "fsdp", "expert", "tensor", "context")
    shape = tuple(sizes.get(axis, 1) for axis in axes)
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Explicit,) * 5, devices=jax.devices()[: int(np.prod(shape))])


def two_steps(transform: optax.GradientTransformation, config: ModelConfig, names: tuple[str, ...]) -> Any:
    """Weights, what the second step adds, and the state, which is given away each time and stays where it was."""
    weights, first, second = (arrays(config, seed, names) for seed in (0, 1, 2))
    update = jax.jit(transform.update, donate_argnums=1)
    state = jax.jit(transform.init)(weights)
    begun = jax.tree.map(lambda x: x.sharding, state)
    _, state = update(first, state, weights)
    compiled = update._cache_size()
    added, state = update(second, state, weights)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, was: x.sharding.is_equivalent_to(was, x.ndim), state, begun)))
    assert update._cache_size() == compiled
    return weights, added, state


def assert_same(some: dict[str, Any], others: dict[str, Any]) -> None:
    for name, x in some.items():
        np.testing.assert_allclose(x, others[name], rtol=1e-4, atol=1e-5, err_msg=name)


def assert_placed(some: dict[str, Any], weights: dict[str, Any]) -> None:
    for name, x in some.items():
        assert x.sharding.is_equivalent_to(weights[name].sharding, x.ndim), name
