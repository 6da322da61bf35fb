"""The mixture of experts is a loop over tokens and their experts, however it is batched, dropped and sharded."""

import functools
import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from codelm.moe import WEIGHT_SPECS, moe, route, update_bias

AXES = ("data", "fsdp", "expert", "tensor", "context")
BATCH = ("data", "fsdp", "expert")
MESHES = [
    {"data": 2, "expert": 4},
    {"fsdp": 2, "expert": 2, "tensor": 2},
    {"expert": 2, "tensor": 2, "context": 2},
    {"fsdp": 2, "data": 2, "context": 2},
]


def problem(batch: int = 4, sequence: int = 8, experts: int = 8, width: int = 16, hidden: int = 12) -> list[jax.Array]:
    """x, router, gate, up, down; the router prefers some experts, so that capacities bind."""
    rng = np.random.default_rng(0)
    shapes = [(experts, width, hidden), (experts, width, hidden), (experts, hidden, width)]
    matrices = [rng.normal(size=shape) / 4 for shape in shapes]
    x, router = rng.normal(size=(batch, sequence, width)) + 0.5, rng.normal(size=(width, experts)) / 4
    return [jnp.asarray(array, jnp.float32) for array in (x, router, *matrices)]


def reference(x, router, gate, up, down, *, top_k, renormalise, capacity_factor=0.0, bias=None, mask=None):
    """The definition, in NumPy float64, a token at a time: output, assignments kept, and how many of each expert."""
    x, router, gate, up, down = (np.asarray(array, np.float64) for array in (x, router, gate, up, down))
    batch, sequence, _ = x.shape
    experts = router.shape[1]
    capacity = math.ceil(capacity_factor * sequence * top_k / experts) if capacity_factor else sequence
    out, kept, load = np.zeros_like(x), np.zeros((batch, sequence, top_k), bool), np.zeros(experts)
    for row in range(batch):
        taken = np.zeros(experts)
        for place in range(sequence):
            if mask is not None and not mask[row, place]:
                continue
            token = x[row, place]
            exponential = np.exp(token @ router)
            probs = exponential / exponential.sum()
            chosen = np.argsort(-(probs if bias is None else probs + bias), kind="stable")[:top_k]
            for rank, expert in enumerate(chosen):
                weight = probs[expert] / (probs[chosen].sum() if renormalise else 1)
                load[expert] += 1
                if taken[expert] < capacity:
                    taken[expert] += 1
                    kept[row, place, rank] = True
                    inner = token @ gate[expert]
                    inner = inner / (1 + np.exp(-inner)) * (token @ up[expert])
                    out[row, place] += weight * (inner @ down[expert])
    return out, kept, load / load.sum()


def naive(x, router, gate, up, down, *, kept, top_k, renormalise, bias=None):
    """Every expert on every token, in plain jnp: what gradients are compared with."""
    probs = jax.nn.softmax(x @ router)
    _, chosen = jax.lax.top_k(probs if bias is None else probs + bias, top_k)
    weights = jnp.take_along_axis(probs, chosen, -1)
    if renormalise:
        weights /= weights.sum(-1, keepdims=True)
    inner = jax.nn.silu(jnp.einsum("bsd,edf->bsef", x, gate)) * jnp.einsum("bsd,edf->bsef", x, up)
    outputs = jnp.einsum("bsef,efd->bsed", inner, down)
    return jnp.einsum("bsed,bske,bsk->bsd", outputs, jax.nn.one_hot(chosen, router.shape[1]), weights * kept)


ROUTINGS: list[dict[str, Any]] = [
    {"top_k": 2, "renormalise": True, "capacity_factor": 0.0},
    {"top_k": 3, "renormalise": False, "capacity_factor": 0.0},
    {"top_k": 1, "renormalise": False, "capacity_factor": 1.0},
    {"top_k": 2, "renormalise": True, "capacity_factor": 0.7},
    {"top_k": 8, "renormalise": True, "capacity_factor": 0.5},
]
BIAS = np.linspace(-0.2, 0.2, 8).astype(np.float32)
MASK = (np.arange(8) >= np.array([[0], [3], [8], [1]])).astype(np.float32)  # the third row is all padding


@pytest.mark.parametrize("options", ROUTINGS, ids=str)
def test_matches_a_loop_over_tokens_and_experts(options):
    """With a bias and a mask or without; one program for them all, in which none is a bias of 0, a mask of 1."""
    step = jax.jit(lambda *a, bias, mask: moe(*a, **options, bias=bias, mask=mask))
    for bias, mask in itertools.product((0 * BIAS, BIAS), (np.ones_like(MASK), MASK)):
        matches_the_loop(step, options, bias, mask)


@pytest.mark.parametrize("options", [ROUTINGS[0], ROUTINGS[3]], ids=str)
def test_a_bias_and_a_mask_need_not_be_given(options):
    matches_the_loop(jax.jit(lambda *a, bias, mask: moe(*a, **options)), options, None, None)


def matches_the_loop(step, options, bias, mask):
    arguments = problem()
    out, stats = step(*arguments, bias=bias, mask=mask)
    expected, kept, load = reference(*arguments, **options, bias=bias, mask=mask)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats.load, load, rtol=1e-5)
    tokens = 32 if mask is None else mask.sum()
    np.testing.assert_allclose(stats.dropped, 1 - kept.sum() / (tokens * options["top_k"]), rtol=1e-4, atol=1e-6)
    assert bool(stats.dropped > 0) == bool(options["capacity_factor"])


@pytest.mark.parametrize("options", ROUTINGS, ids=str)
def test_gradients_match_every_expert_on_every_token(options):
    arguments, indices = problem(), (0, 1, 2, 3, 4)
    routing = {"top_k": options["top_k"], "renormalise": options["renormalise"]}
    ours = jax.jit(jax.grad(lambda *a: jnp.sum(moe(*a[:5], **options, bias=a[5])[0] ** 2), indices))
    plain = jax.jit(jax.grad(lambda *a: jnp.sum(naive(*a[:5], **routing, bias=a[5], kept=a[6]) ** 2), indices))
    for bias in (0 * BIAS, BIAS):
        _, kept, _ = reference(*arguments, **options, bias=bias)
        for got, want in zip(ours(*arguments, bias), plain(*arguments, bias, kept), strict=True):
            assert float(jnp.abs(want).max()) > 1e-3
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("capacity_factor", [0.0, 1.0])
def test_bfloat16_in_bfloat16_out_statistics_in_float32(capacity_factor):
    x, *weights = problem()
    options: dict[str, Any] = {"top_k": 2, "renormalise": True, "capacity_factor": capacity_factor}
    out, stats = jax.jit(partial(moe, **options))(x.astype(jnp.bfloat16), *weights)
    expected, _, _ = reference(x.astype(jnp.bfloat16), *weights, **options)
    assert out.dtype == jnp.bfloat16
    assert all(statistic.dtype == jnp.float32 for statistic in stats)
    assert np.linalg.norm(np.asarray(out, np.float64) - expected) < 0.01 * np.linalg.norm(expected)


def test_the_router_runs_in_full_float32():
    """On an accelerator the default would round its product, and choose other experts; a CPU never shows it."""
    step = jax.jit(partial(moe, top_k=2, renormalise=True, capacity_factor=0.0))
    assert "HIGHEST" in step.lower(*problem()).as_text()


def test_route_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.1, 0.25, 0.15]]))
    weights, experts, probs = route(logits, 2, False, None)
    np.testing.assert_allclose(probs, [[0.5, 0.1, 0.25, 0.15]], rtol=1e-6)
    np.testing.assert_array_equal(experts, [[0, 2]])
    np.testing.assert_allclose(weights, [[0.5, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(route(logits, 2, True, None)[0], [[2 / 3, 1 / 3]], rtol=1e-6)
    # The bias puts expert 1 first; its weight is still its probability.
    weights, experts, _ = route(logits, 2, False, jnp.array([0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(experts, [[1, 0]])
    np.testing.assert_allclose(weights, [[0.1, 0.5]], rtol=1e-6)


def by_probability(probs: Any, **options: Any):
    """moe on one row of tokens with these router probabilities (one-hot tokens look up rows of the router)."""
    probs = np.asarray(probs, np.float32)
    tokens, experts = probs.shape
    matrix = jnp.ones((experts, tokens, tokens))
    settings: dict[str, Any] = {"top_k": 1, "renormalise": False, "capacity_factor": 0.0} | options
    return jax.jit(partial(moe, **settings))(jnp.eye(tokens)[None], jnp.log(probs), matrix, matrix, matrix)


def test_balance_loss_by_hand():
    uniform = np.full((4, 4), 0.25)
    np.testing.assert_allclose(by_probability(uniform)[1].balance_loss, 1.0, rtol=1e-6)
    np.testing.assert_allclose(by_probability(uniform, top_k=4)[1].balance_loss, 1.0, rtol=1e-6)
    collapsed = np.tile([1.0, 1e-30, 1e-30, 1e-30], (4, 1))
    np.testing.assert_allclose(by_probability(collapsed)[1].balance_loss, 4.0, rtol=1e-6)
    # Loads 3/4 and 1/4, mean probabilities 0.6 and 0.4: 2 * (0.75 * 0.6 + 0.25 * 0.4).
    skewed = [[0.7, 0.3], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]
    stats = by_probability(skewed)[1]
    np.testing.assert_allclose(stats.load, [0.75, 0.25])
    np.testing.assert_allclose(stats.balance_loss, 1.1, rtol=1e-6)
    # Padding the last token: loads 1 and 0, mean probabilities 0.7 and 0.3.
    stats = by_probability(skewed, mask=jnp.array([[1.0, 1.0, 1.0, 0.0]]))[1]
    np.testing.assert_allclose(stats.load, [1.0, 0.0])
    np.testing.assert_allclose(stats.balance_loss, 1.4, rtol=1e-6)


def test_z_loss_by_hand():
    """Rows that sum to 1, e and e^3 have log-partitions 0, 1 and 3."""
    rows = np.array([[0.5, 0.5], [0.3 * np.e, 0.7 * np.e], [0.5 * np.e**3, 0.5 * np.e**3]])
    np.testing.assert_allclose(by_probability(rows)[1].z_loss, 10 / 3, rtol=1e-5)
    np.testing.assert_allclose(by_probability(rows, mask=jnp.array([[1.0, 1.0, 0.0]]))[1].z_loss, 0.5, rtol=1e-5)


def test_a_full_expert_drops_the_later_tokens_of_the_row():
    """Four tokens for expert 0, whose capacity is ceil(1.0 * 5 * 1 / 2) = 3; and padding takes no place."""
    probs = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]]
    out, stats = by_probability(probs, capacity_factor=1.0)
    np.testing.assert_array_equal(jnp.any(out[0] != 0, axis=-1), [True, True, True, True, False])
    np.testing.assert_allclose(stats.dropped, 0.2)
    out, stats = by_probability(probs, capacity_factor=1.0, mask=jnp.array([[0.0, 1.0, 1.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(jnp.any(out[0] != 0, axis=-1), [False, True, True, True, True])
    assert stats.dropped == 0


def test_dropping_is_causal_and_by_row():
    """What a token gets does not depend on later tokens, nor on the rest of the batch."""
    x, *weights = problem()
    options: dict[str, Any] = {"top_k": 2, "renormalise": True, "capacity_factor": 0.5}
    run = jax.jit(partial(moe, **options))
    out, _ = run(x, *weights)
    other, _ = run(x.at[1:].set(7.0).at[0, 5:].set(-3.0), *weights)
    np.testing.assert_array_equal(out[0, :5], other[0, :5])


def test_padding_alone_gives_zeros_not_nan():
    arguments, mask = problem(), jnp.zeros((4, 8))
    for capacity_factor in (0.0, 1.0):
        run = jax.jit(partial(moe, top_k=2, renormalise=True, capacity_factor=capacity_factor))
        out, stats = run(*arguments, mask=mask)
        assert all(bool(jnp.all(x == 0)) for x in (out, *stats))


def test_rows_beyond_the_last_group_may_hold_anything(monkeypatch):
    """A backend may leave garbage there, in value and gradient, and multiply it by zero in the weights' gradient."""
    arguments = [*problem(), jnp.asarray(MASK)]
    plain = jax.lax.ragged_dot

    def spoil(x: jax.Array, sizes: jax.Array) -> jax.Array:
        return jnp.where((jnp.arange(x.shape[0]) < sizes.sum())[:, None], x, jnp.nan)

    @jax.custom_vjp
    def spoiled(x: jax.Array, matrices: jax.Array, sizes: jax.Array) -> jax.Array:
        return spoil(plain(x, matrices, sizes), sizes)

    def forward(x: jax.Array, matrices: jax.Array, sizes: jax.Array):
        product, pullback = jax.vjp(lambda x, matrices: plain(x, matrices, sizes), x, matrices)
        return spoil(product, sizes), (pullback, x, sizes)

    def backward(residuals: Any, gradient: jax.Array):
        pullback, x, sizes = residuals
        x_gradient, matrices_gradient = pullback(gradient)
        beyond = (jnp.arange(gradient.shape[0]) >= sizes.sum())[:, None]
        zero = jnp.sum(0 * x, where=beyond) + jnp.sum(0 * gradient, where=beyond)
        return spoil(x_gradient, sizes), matrices_gradient + zero, None

    spoiled.defvjp(forward, backward)

    def step(*arguments: jax.Array):
        *arrays, mask = arguments
        return jnp.sum(moe(*arrays, top_k=2, renormalise=True, capacity_factor=0.0, mask=mask)[0] ** 2)

    want = jax.value_and_grad(step, (0, 1, 2, 3, 4))(*arguments)
    monkeypatch.setattr(jax.lax, "ragged_dot", spoiled)
    got = jax.value_and_grad(step, (0, 1, 2, 3, 4))(*arguments)
    jax.tree.map(np.testing.assert_array_equal, got, want)


# Each axis with and without a capacity, which is counted along context; the other pairs are slow.
BOTH = [(MESHES[0], 0.0), (MESHES[1], 0.7), (MESHES[2], 0.7), (MESHES[3], 0.0)]
OTHERS = [pair for pair in itertools.product(MESHES, (0.0, 0.7)) if pair not in BOTH]


@functools.cache
def sums_step(capacity_factor):
    options: dict[str, Any] = {"top_k": 3, "renormalise": True, "capacity_factor": capacity_factor}

    def loss(x, router, gate, up, down, mask):
        out, stats = moe(x, router, gate, up, down, **options, bias=jnp.asarray(BIAS), mask=mask)
        return jnp.sum(out**2) + 10 * stats.balance_loss + stats.z_loss, (out, stats)

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True))


@pytest.mark.parametrize(
    ("sizes", "capacity_factor"), [*BOTH, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)], ids=str
)
def test_expert_parallel_equals_single_device(sizes, capacity_factor):
    mask = (np.random.default_rng(1).random((8, 8)) < 0.8).astype(np.float32)
    arguments, step = [*problem(batch=8), jnp.asarray(mask)], sums_step(capacity_factor)
    want = step(*arguments)
    mesh = jax.make_mesh([sizes.get(axis, 1) for axis in AXES], AXES)
    specs = [P(BATCH, "context", None), P("fsdp", None), *WEIGHT_SPECS, P(BATCH, "context")]
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(x, jax.NamedSharding(mesh, s)) for x, s in zip(arguments, specs, strict=True)]
        got = step(*sharded)
        assert [jax.typeof(gradient).sharding.spec for gradient in got[1]] == specs[:5]
        assert jax.typeof(got[0][1][0]).sharding.spec == specs[0]
    assert (want[0][1][1].dropped > 0) == (capacity_factor > 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize(("shape", "learning"), [((3, 4), True), ((1, 1), False), ((8, 1), False)], ids=str)
def test_tokens_that_do_not_fill_the_mesh(shape, learning):
    """One prompt, one new token, odd rows to learn from: dimensions that the mesh cannot split come whole."""
    x, *weights = problem()
    x = jnp.tile(x, (2, 1, 1))[: shape[0], : shape[1]]

    def loss(x, *weights):
        out, stats = moe(x, *weights, top_k=2, renormalise=True, capacity_factor=0.7)
        return jnp.sum(out**2) + stats.balance_loss, (out, stats)

    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3, 4), has_aux=True) if learning else loss)
    want = step(x, *weights)
    with jax.set_mesh(jax.make_mesh((2, 1, 2, 1, 2), AXES)):
        batch, sequence = BATCH if shape[0] % 4 == 0 else None, "context" if shape[1] % 2 == 0 else None
        got = step(jax.reshard(x, P(batch, sequence, None)), *(jax.reshard(w, P()) for w in weights))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("capacity_factor", [pytest.param(0.0, marks=pytest.mark.slow), 1.0])
def test_scanned_and_checkpointed_layers_differentiate_under_a_mesh(capacity_factor):
    """How a model calls it: stacked weights, one layer a scan step, recomputed in the backward pass."""
    x, *weights = problem(batch=8)

    def loss(x, weights):
        def layer(x, weights):
            out, stats = moe(x, *weights, top_k=2, renormalise=True, capacity_factor=capacity_factor)
            return x + out, stats.balance_loss

        x, balance = jax.lax.scan(jax.checkpoint(layer), x, weights)
        return jnp.sum(x**2) + jnp.sum(balance)

    step = jax.jit(jax.grad(loss, (0, 1)))
    weights = tuple(jnp.stack([w, 0.5 * w]) for w in weights)
    want = step(x, weights)
    with jax.set_mesh(jax.make_mesh((1, 2, 2, 2, 1), AXES)):
        specs = (P(None, "fsdp", None), *(P(None, *spec) for spec in WEIGHT_SPECS))
        sharded = tuple(jax.reshard(w, spec) for w, spec in zip(weights, specs, strict=True))
        got = step(jax.reshard(x, P(BATCH, "context", None)), sharded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), got, want)


def test_updating_the_bias_balances_the_load():
    np.testing.assert_allclose(update_bias(jnp.zeros(3), jnp.array([0.5, 0.2, 0.3]), 0.1), [-0.1, 0.1, 0.1])
    np.testing.assert_array_equal(update_bias(jnp.ones(4), jnp.full(4, 0.25), 0.1), jnp.ones(4))
    x, router, *_ = problem(batch=64)
    logits = x @ router

    @jax.jit
    def load(bias: jax.Array) -> jax.Array:
        return jnp.bincount(route(logits, 2, True, bias)[1].reshape(-1), length=8) / (2 * logits.size / 8)

    bias = jnp.zeros(8)
    before = load(bias)
    for _ in range(300):
        bias = update_bias(bias, load(bias), 1e-3)
    assert before.max() > 0.2
    assert load(bias).max() < 0.14
