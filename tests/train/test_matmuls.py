"""Products in eight bits: those NumPy gets by the same rounding, near the exact ones, on any mesh; and they learn."""

import dataclasses
import runpy
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from codelm import matmuls
from codelm.config import ModelConfig, TrainConfig, dial
from codelm.errors import UserError
from codelm.matmuls import product
from codelm.model import Transformer, create
from codelm.parameters import all_parameters
from codelm.sharding import spec
from train.losses import losses

AXES = ("data", "fsdp", "expert", "tensor", "context")
SIZES = {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 64}
CONFIG = dial(ModelConfig(**SIZES, compute_dtype="float32", remat="none"), 32)
BITS = ("int8", "fp8")
# Largest error of a product of normal numbers, as a share of its size: half a step of 1/127 (of about three deviations)
# or of 1/16 (of each number), twice, averaged over what is summed.
ERROR = {"int8": 0.015, "fp8": 0.045}


def rounded(x: np.ndarray, axes: tuple[int, ...], bits: str) -> np.ndarray:
    """x with one scale for all that is summed over, rounded to eight bits, as float64."""
    largest = np.abs(x).max(axis=axes, keepdims=True).astype(np.float64)
    if bits == "int8":
        return np.rint(x / (largest / 127)) * (largest / 127)
    return (x / (largest / 448)).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * (largest / 448)


def numbers(*shape: int, seed: int) -> np.ndarray:
    """Normal, with some places ten times larger."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * rng.choice([1.0, 1.0, 1.0, 10.0], shape[-1])).astype(np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def all_three(subscripts: str, bits: str, x: Any, weight: Any, gradient: Any) -> tuple[jax.Array, ...]:
    """The product and its two gradients."""
    out, back = jax.vjp(lambda x, weight: product(subscripts, x, weight, ("stream",) * weight.ndim, bits), x, weight)
    return (out, *back(gradient))


@pytest.mark.parametrize("bits", BITS)
def test_all_three_products_are_those_of_the_rounded_numbers(bits: str) -> None:
    """Two axes summed over in the forward product: [b s n h] times [n h d]."""
    x, weight, gradient = numbers(2, 6, 4, 8, seed=0), numbers(4, 8, 16, seed=1), numbers(2, 6, 16, seed=2)
    got = all_three("bsnh,nhd->bsd", bits, x, weight, gradient)
    forward = np.einsum("bsnh,nhd->bsd", rounded(x, (2, 3), bits), rounded(weight, (0, 1), bits))
    to_x = np.einsum("bsd,nhd->bsnh", rounded(gradient, (2,), bits), rounded(weight, (2,), bits))
    to_weight = np.einsum("bsnh,bsd->nhd", rounded(x, (0, 1), bits), rounded(gradient, (0, 1), bits))
    for mine, expected in zip(got, (forward, to_x, to_weight), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("bits", BITS)
def test_near_the_exact_product(bits: str) -> None:
    """In bfloat16, which both are given back in."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((2, 32, 64), (64, 48), (2, 32, 48))]
    for got, exact in zip(*(all_three("bsd,df->bsf", b, *arrays) for b in (bits, "")), strict=True):
        assert got.dtype == jnp.bfloat16
        got, exact = (np.asarray(value, np.float64) for value in (got, exact))
        error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        assert 0.3 * ERROR[bits] < error < ERROR[bits]


def test_sharded_equals_single_device() -> None:
    """Tokens, and what the second product sums over, are split; scales and sums go across devices."""
    bits = "int8"
    x, up, down = (jnp.array(numbers(*s, seed=i)) for i, s in enumerate(((4, 8, 16), (16, 32), (32, 16))))

    def run(x: jax.Array, up: jax.Array, down: jax.Array, out_sharding: P | None = None) -> jax.Array:
        hidden = product("bsd,df->bsf", x, up, ("stream", "mlp"), bits)
        return (product("bsf,fd->bsd", hidden, down, ("mlp", "stream"), bits, out_sharding) ** 2).sum()

    both = jax.jit(jax.value_and_grad(run, (0, 1, 2)), static_argnums=3)
    value, gradient = both(x, up, down)
    with jax.set_mesh(jax.make_mesh((1, 2, 1, 2, 2), AXES, axis_types=(AxisType.Explicit,) * 5)):
        specs = P("fsdp", "context", None), P(None, "tensor"), P("tensor", None)
        placed = [jax.device_put(a, s) for a, s in zip((x, up, down), specs, strict=True)]
        value2, gradient2 = both(*placed, specs[0])
        assert tuple(g.sharding.spec for g in gradient2) == specs
    np.testing.assert_allclose(value, value2, rtol=1e-6)
    for mine, other in zip(gradient, gradient2, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * np.abs(mine).max())


def batch_of(step: int = 0) -> dict[str, jax.Array]:
    """Counting in threes and fives, modulo 31, from anywhere: what follows is known once two tokens are read."""
    rng = np.random.default_rng(step)
    start, stride = rng.integers(0, 31, (16, 1)), rng.choice([3, 5], (16, 1))
    tokens = ((start + stride * np.arange(17)) % 31).astype(np.int32)
    places = {"positions": np.tile(np.arange(16, dtype=np.int32), (16, 1)), "segment_ids": np.zeros((16, 16), np.int32)}
    text = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_weights": np.ones((16, 16), np.float32)}
    return jax.tree.map(jnp.asarray, {**text, **places})


def dots(function: Any, *arguments: Any) -> list[str]:
    """The dtypes that products of a function take, scans and custom gradients looked into."""
    found = []

    def look(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append(str(equation.invars[0].aval.dtype))
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    look(inner)

    look(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_the_layers_products_are_rounded_and_no_others() -> None:
    """Seven in the layer that is scanned over, forward and twice backward; the model itself is as it was."""
    model, batch = create(CONFIG, 0), batch_of()

    def gradient(model: Transformer, bits: Any) -> Any:
        return jax.grad(lambda model: losses(model, TrainConfig(matmuls=bits), batch)[0])(model)

    whole, rounded = (dots(lambda model, b=b: gradient(model, b), model) for b in ("", "int8"))
    assert (whole.count("int8"), rounded.count("int8")) == (0, 21)
    assert len(rounded) == len(whole)
    assert "int8" not in dots(Transformer.__call__, model, batch["tokens"])


def test_a_model_in_eight_bits_lies_on_a_mesh_as_it_does_in_full() -> None:
    """Traced on 8 abstract devices: every product of every layer has a place, and its gradient that of its weight."""
    sizes = (1, 2, 1, 2, 2)
    mesh = jax.sharding.AbstractMesh(sizes, AXES, axis_types=(AxisType.Explicit,) * 5)
    with jax.sharding.use_abstract_mesh(mesh):
        model = jax.eval_shape(lambda: create(CONFIG, 0))
        train = TrainConfig(matmuls="fp8")
        gradient = jax.eval_shape(jax.grad(lambda m: losses(m, train, batch_of())[0]), model)
        for name, parameter in all_parameters(CONFIG).items():
            owner = gradient.blocks if name.startswith("blocks.") else gradient
            (leaf,) = jax.tree.leaves(getattr(owner, name.removeprefix("blocks.")))
            assert leaf.sharding.spec == spec(*parameter.dimensions), name


def test_without_qwix_only_the_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qwix", None)  # what Python does where it is not installed
    runpy.run_path(str(matmuls.__file__))
    x, weight = jnp.ones((1, 2, 4)), jnp.ones((4, 4))
    np.testing.assert_array_equal(product("bsd,df->bsf", x, weight, ("width", "mlp")), 4.0)
    with pytest.raises(UserError, match=r'train\.matmuls needs qwix: make install EXTRAS="quant"'):
        product("bsd,df->bsf", x, weight, ("width", "mlp"), "int8")


def trained(bits: Any, config: ModelConfig, steps: int) -> float:
    """The mean loss of the last ten steps."""
    train, transform = TrainConfig(matmuls=bits), optax.adam(1e-2)
    params: Any = create(config, 0)
    state = transform.init(params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        (_, aux), gradient = jax.value_and_grad(losses, has_aux=True)(params, train, batch)
        updates, state = transform.update(gradient, state)
        return optax.apply_updates(params, updates), state, aux.parts["loss"]

    values = []
    for n in range(steps):
        params, state, value = step(params, state, batch_of(n))
        values.append(float(value))
    return float(np.mean(values[-10:]))


@pytest.mark.slow
def test_a_tiny_model_learns_as_well_in_eight_bits() -> None:
    """Measured after 80 steps: 0.105 nats in full, 0.106 in int8, 0.112 in fp8; it starts at 3.5."""
    config = dataclasses.replace(CONFIG, depth=1)
    whole, *fewer = (trained(bits, config, 80) for bits in ("", *BITS))
    assert whole < 0.2
    assert max(fewer) < whole + 0.03
