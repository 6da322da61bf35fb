"""The loss is the textbook one, in value and gradient, on one device and on any mesh, never holding all the logits."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from codelm.loss import Stats, cross_entropy, token_losses

AXES = ("data", "fsdp", "expert", "tensor", "context")
BATCH = ("data", "fsdp", "expert")
MESHES = [
    {"data": 2, "tensor": 4},
    {"fsdp": 2, "context": 2, "tensor": 2},
    {"expert": 2, "fsdp": 2, "tensor": 2},
    {"context": 8},
]


def problem(batch: int = 4, sequence: int = 8, width: int = 16, vocabulary: int = 40, dtype: Any = jnp.float32):
    """Hidden, head, targets, weights: some weights 0, some fractional; half the targets are the argmax."""
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(batch, sequence, width)), dtype)
    head = jnp.asarray(rng.normal(size=(vocabulary, width)), jnp.float32)
    best = np.argmax(np.asarray(hidden, np.float64) @ np.asarray(head, np.float64).T, axis=-1)
    other = rng.integers(vocabulary, size=(batch, sequence))
    targets = np.where(rng.random((batch, sequence)) < 0.5, best, other)
    weights = rng.choice([0.0, 0.5, 1.0], size=(batch, sequence))
    return hidden, head, jnp.asarray(targets, jnp.int32), jnp.asarray(weights, jnp.float32)


def reference(hidden, head, targets, weights, z_weight=0.0, logit_multiplier=1.0, softcap=0.0):
    """The definition, in NumPy float64: loss, stats, per-token losses."""
    hidden, head, weights = (np.asarray(x, np.float64) for x in (hidden, head, weights))
    logits = logit_multiplier * hidden @ head.T
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    lse = np.log(np.exp(logits).sum(-1))
    losses = lse - np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    cross = (weights * losses).sum()
    z = z_weight * (weights * lse**2).sum()
    correct = (weights * (logits.argmax(-1) == np.asarray(targets))).sum()
    return (cross + z) / weights.sum(), Stats(cross, z, weights.sum(), correct), losses


def naive(hidden, head, targets, weights, z_weight=0.0, logit_multiplier=1.0, softcap=0.0):
    """The same in plain jnp, all logits at once: what gradients are compared with."""
    logits = logit_multiplier * hidden @ head.T
    if softcap:
        logits = softcap * jnp.tanh(logits / softcap)
    lse = jax.nn.logsumexp(logits, -1)
    losses = lse - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return jnp.sum(weights * (losses + z_weight * lse**2)) / jnp.sum(weights)


def gradients(function: Callable[..., Any], *arguments: Any, has_aux: bool = False, **options: Any):
    return jax.jit(jax.grad(lambda *a: function(*a, **options), (0, 1), has_aux=has_aux))(*arguments)


OPTIONS: list[dict[str, float]] = [
    {},
    {"z_weight": 0.1},
    {"softcap": 3.0},
    {"logit_multiplier": 0.3},
    {"z_weight": 0.1, "softcap": 3.0, "logit_multiplier": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_stats_match_float64(options):
    arguments = problem()
    loss, stats = cross_entropy(*arguments, **options, chunk=8)
    expected, expected_stats, losses = reference(*arguments, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(stats, expected_stats, rtol=1e-5)
    assert 0 < stats.correct < stats.weight
    assert all(x.dtype == jnp.float32 for x in (loss, *stats))
    options = {name: value for name, value in options.items() if name != "z_weight"}
    np.testing.assert_allclose(token_losses(*arguments[:3], **options, chunk=8), losses, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_match_the_naive_version(options):
    arguments = problem()
    ours, _ = gradients(cross_entropy, *arguments, has_aux=True, **options, chunk=8)
    for got, want in zip(ours, gradients(naive, *arguments, **options), strict=True):
        assert float(jnp.abs(want).max()) > 1e-3
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_gradients_through_each_tokens_loss():
    """Whatever the losses go into, which the sum's own gradient cannot know."""
    hidden, head, targets, weights = problem()
    own = functools.partial(token_losses, softcap=3.0, logit_multiplier=0.3, chunk=8)

    def naive_losses(hidden, head):
        logits = 3.0 * jnp.tanh(0.3 * hidden @ head.T / 3.0)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]

    def square(losses):
        return jnp.sum(weights * losses**2)

    ours = jax.jit(jax.grad(lambda *a: square(own(*a, targets)), (0, 1)))(hidden, head)
    for got, want in zip(ours, jax.grad(lambda *a: square(naive_losses(*a)), (0, 1))(hidden, head), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_gradient_scales_with_what_the_loss_goes_into():
    arguments = problem()
    once, _ = gradients(cross_entropy, *arguments, has_aux=True)
    thrice = jax.grad(lambda *a: -3.0 * cross_entropy(*a, *arguments[2:])[0], (0, 1))(*arguments[:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(-3.0 * a, b, rtol=1e-5, atol=1e-6), once, thrice)


@functools.cache
def in_chunks(chunk):
    """Of 32 tokens."""
    step = jax.jit(
        jax.value_and_grad(functools.partial(cross_entropy, z_weight=0.1, chunk=chunk), (0, 1), has_aux=True)
    )
    return step(*problem())


@pytest.mark.parametrize("chunk", [1, 5, 7, 31, 32, 33, 1024])
def test_the_chunk_size_changes_nothing(chunk):
    got, want = in_chunks(chunk), in_chunks(16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_no_weight_at_all_is_a_loss_of_zero():
    hidden, head, targets, weights = problem()
    (loss, stats), grads = jax.value_and_grad(cross_entropy, (0, 1), has_aux=True)(
        hidden, head, targets, 0 * weights, z_weight=0.1
    )
    assert loss == 0
    np.testing.assert_array_equal(stats, np.zeros(4))
    assert all(bool(jnp.all(gradient == 0)) for gradient in grads)


def test_tokens_without_weight_do_not_matter():
    hidden, head, targets, weights = problem()
    elsewhere = jnp.where(weights == 0, -1, targets)  # not even a token id
    loss, stats = cross_entropy(hidden, head, targets, weights)
    other_loss, other_stats = cross_entropy(hidden + 7.0 * (weights == 0)[..., None], head, elsewhere, weights)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(other_stats, stats, rtol=1e-6)
    grads, _ = gradients(cross_entropy, hidden, head, elsewhere, weights, has_aux=True)
    assert bool(jnp.all(grads[0][weights == 0] == 0))


def test_a_tie_goes_to_the_lower_id():
    """An untrained head of zeros is not always right."""
    hidden, head, targets, weights = problem()
    _, stats = cross_entropy(hidden, 0 * head, targets, jnp.ones_like(weights))
    assert stats.correct == jnp.sum(targets == 0)


def test_large_logits_do_not_overflow():
    hidden, head, targets, weights = problem()
    (loss, _), grads = jax.value_and_grad(cross_entropy, (0, 1), has_aux=True)(
        hidden, head, targets, weights, logit_multiplier=1e4
    )
    assert bool(jnp.isfinite(loss))
    assert all(bool(jnp.all(jnp.isfinite(gradient))) for gradient in grads)


@pytest.mark.parametrize("head_dtype", [jnp.float32, jnp.bfloat16])
def test_bfloat16_hidden_keeps_float32_statistics(head_dtype):
    hidden, head, targets, weights = problem(sequence=64, dtype=jnp.bfloat16)
    head = head.astype(head_dtype)
    loss, stats = cross_entropy(hidden, head, targets, weights, chunk=16)
    # The product sees the head in bfloat16; from there on nothing may be rounded to it.
    expected, expected_stats, _ = reference(hidden, head.astype(jnp.bfloat16), targets, weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(stats, expected_stats, rtol=1e-5)
    ours, _ = gradients(cross_entropy, hidden, head, targets, weights, has_aux=True, chunk=16)
    assert [gradient.dtype for gradient in ours] == [hidden.dtype, head.dtype]
    wide = (hidden.astype(jnp.float32), head.astype(jnp.bfloat16).astype(jnp.float32))
    for got, want in zip(ours, gradients(naive, *wide, targets, weights), strict=True):
        got = np.asarray(got, np.float32)
        assert np.linalg.norm(got - want) < 5e-3 * np.linalg.norm(want)


def test_the_head_gradient_is_summed_in_float32():
    """4096 chunks, each adding the same small amount: a bfloat16 sum would stop growing at 256 of them."""
    tokens = 4096
    hidden, head = jnp.ones((1, tokens, 1), jnp.bfloat16), jnp.zeros((2, 1), jnp.bfloat16)
    targets, weights = jnp.zeros((1, tokens), jnp.int32), jnp.ones((1, tokens))
    (_, gradient), _ = gradients(cross_entropy, hidden, head, targets, weights, has_aux=True, chunk=1)
    np.testing.assert_allclose(np.asarray(gradient, np.float32)[:, 0], [-0.5, 0.5], rtol=1e-2)


def test_all_logits_are_never_held():
    batch, sequence, width, vocabulary = 4, 1024, 32, 8192
    arguments = problem(batch=1, sequence=1, width=width, vocabulary=vocabulary)
    shapes = [(batch, sequence, width), (vocabulary, width), (batch, sequence), (batch, sequence)]
    abstract = [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in zip(shapes, arguments, strict=True)]

    def temporary(function: Callable[..., Any], **options: Any) -> int:
        step = jax.jit(jax.value_and_grad(lambda *a: function(*a, **options), (0, 1), has_aux=bool(options)))
        memory = step.lower(*abstract).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    logits = 4 * batch * sequence * vocabulary
    assert temporary(naive) >= logits
    assert temporary(cross_entropy, chunk=128) < logits / 6


SHARDED: dict[str, Any] = {"z_weight": 0.1, "softcap": 5.0, "logit_multiplier": 0.5, "chunk": 3}
sharded_step = jax.jit(jax.value_and_grad(lambda *a: cross_entropy(*a, **SHARDED), (0, 1), has_aux=True))
each_token = jax.jit(lambda *a: token_losses(*a, softcap=5.0))
# In bfloat16 once: how an array is split and what is rounded have nothing to do with each other.
NARROW = [pytest.param(sizes, jnp.bfloat16, marks=[pytest.mark.slow] * (sizes != MESHES[1])) for sizes in MESHES]


@pytest.mark.parametrize(("sizes", "dtype"), [*((sizes, jnp.float32) for sizes in MESHES), *NARROW], ids=str)
def test_sharded_equals_single_device(sizes, dtype):
    arguments = problem(batch=8, dtype=dtype)
    want, losses = sharded_step(*arguments), each_token(*arguments[:3])
    mesh = jax.make_mesh([sizes.get(axis, 1) for axis in AXES], AXES, axis_types=(AxisType.Explicit,) * len(AXES))
    specs = [P(BATCH, "context", None), P("tensor", "fsdp"), P(BATCH, "context"), P(BATCH, "context")]
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(x, jax.NamedSharding(mesh, s)) for x, s in zip(arguments, specs, strict=True)]
        got, sharded_losses = sharded_step(*sharded), each_token(*sharded[:3])
        assert [jax.typeof(x).sharding.spec for x in (*got[1], sharded_losses)] == [*specs[:2], P(BATCH, "context")]
    # In bfloat16 the two may round a logit's gradient differently.
    rtol, atol = (1e-5, 1e-6) if dtype == jnp.float32 else (1e-2, 1e-4)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=rtol, atol=atol)
    np.testing.assert_allclose(sharded_losses, losses, rtol=1e-5, atol=1e-5)


def test_the_layout_of_the_arguments_is_the_callers_business():
    """Replicated arguments give the same loss, and gradients in the layout they came in."""
    arguments = problem(batch=8)
    want = gradients(cross_entropy, *arguments, has_aux=True)[0]
    with jax.set_mesh(jax.make_mesh((2, 1, 1, 4, 1), AXES)):
        replicated = [jax.reshard(x, P(*[None] * x.ndim)) for x in arguments]
        got = gradients(cross_entropy, *replicated, has_aux=True)[0]
        assert all(gradient.sharding.is_fully_replicated for gradient in got)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)
