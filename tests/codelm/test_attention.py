"""codelm.attention: every backend, mesh and packing gives what a loop over queries and keys in float64 gives."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from codelm import attention
from codelm.errors import UserError

DOCUMENTS = [(7, 10, 7), (24,)]  # lengths of the documents of each packed row
AXES = ("data", "fsdp", "expert", "tensor", "context")


def reference(arrays, rows, scale, window=0, softcap=0.0):
    """Attention by its definition, one query and one key at a time."""
    query, key, value = (np.asarray(x, np.float64) for x in arrays)
    query_at, key_at, query_in, key_in = (np.asarray(x) for x in rows)
    out = np.zeros(query.shape)
    group = query.shape[2] // key.shape[2]
    for b, i, n in np.ndindex(query.shape[:3]):
        scores, values = [], []
        for j in range(key.shape[1]):
            if query_in[b, i] != key_in[b, j] or key_at[b, j] > query_at[b, i]:
                continue
            if window and key_at[b, j] <= query_at[b, i] - window:
                continue
            score = scale * query[b, i, n] @ key[b, j, n // group]
            scores.append(softcap * np.tanh(score / softcap) if softcap else score)
            values.append(value[b, j, n // group])
        if scores:
            weights = np.exp(np.array(scores) - max(scores))
            out[b, i, n] = weights @ np.array(values) / weights.sum()
    return out


def packed_rows(documents):
    """Positions that restart and segments that count up."""
    positions = [np.concatenate([np.arange(length) for length in lengths]) for lengths in documents]
    segments = [np.repeat(np.arange(len(lengths)), lengths) for lengths in documents]
    return jnp.array(positions, jnp.int32), jnp.array(segments, jnp.int32)


def tensors(batch, rows, heads, kv_heads, width=8, dtype=jnp.float32, seed=0):
    random = np.random.default_rng(seed)
    return tuple(jnp.asarray(random.normal(size=(batch, rows, n, width)), dtype) for n in (heads, kv_heads, kv_heads))


def self_attend(arrays, rows, **options: Any):
    positions, segments = rows
    both: dict[str, Any] = {"query_positions": positions, "key_positions": positions}
    both |= {"query_segments": segments, "key_segments": segments}
    return attention.attend(*arrays, **both | {"scale": 0.3} | options)


def out_and_gradients(function, *arrays):
    """The output, and the gradients of a sum in which each element weighs differently."""

    @jax.jit
    def both(*arrays):
        out, pullback = jax.vjp(function, *arrays)
        weights = weights_of(out).astype(out.dtype)
        return (out, *pullback(jax.reshard(weights, jax.typeof(out).sharding) if explicit() else weights))

    return both(*arrays)


def weights_of(out):
    return jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)


def explicit():
    return not jax.sharding.get_abstract_mesh().empty


def assert_all_close(got, expected, tolerance=2e-5):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=tolerance, atol=tolerance)


def in_chunks(monkeypatch, chunk=5):
    """Makes xla take `chunk` queries at a time at most (24 rows: four chunks of five and a padded one)."""
    monkeypatch.setattr(attention, "SCORES", 0)
    monkeypatch.setattr(attention, "MIN_CHUNK", chunk)


# --- The definition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("softcap", [0.0, 0.7])
@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
def test_xla_is_attention_by_its_definition(heads, kv_heads, window, softcap, chunked, monkeypatch):
    if chunked:
        in_chunks(monkeypatch)
    arrays = tensors(2, 24, heads, kv_heads)
    attend = jax.jit(functools.partial(self_attend, window=window, softcap=softcap))
    for documents in ([(24,), (24,)], DOCUMENTS):
        positions, segments = rows = packed_rows(documents)
        expected = reference(arrays, (positions, positions, segments, segments), 0.3, window, softcap)
        assert_all_close([attend(arrays, rows)], [expected])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("window", [0, 4, 10])
def test_parts_of_rows_in_order_see_all_they_may(window, chunked, monkeypatch):
    monkeypatch.setattr(attention, "SPLIT_FROM", 24)
    if chunked:
        in_chunks(monkeypatch)
    arrays, read = tensors(2, 24, 4, 2), []
    chunk_of = attention.chunked
    monkeypatch.setattr(attention, "chunked", lambda *a: read.append(a[1].shape[1]) or chunk_of(*a))
    positions, segments = rows = packed_rows(DOCUMENTS)
    got = self_attend(arrays, rows, window=window, softcap=0.7)
    assert read == [min(6 * part, 6 + window - 1 if window and part > 1 else 24) for part in (1, 2, 3, 4)]
    assert_all_close([got], [reference(arrays, (positions, positions, segments, segments), 0.3, window, 0.7)])
    # Other rows, of which nobody said that they are in order, are read whole.
    read.clear()
    self_attend(arrays, rows, key_positions=positions + 0)
    assert read == [24]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (4, 0.7)])
def test_gradients_are_those_of_the_definition(window, softcap, chunked, monkeypatch):
    if chunked:
        in_chunks(monkeypatch)
    arrays, rows = tensors(2, 12, 4, 2, width=4), packed_rows([(5, 7), (12,)])
    where = (rows[0], rows[0], rows[1], rows[1])
    options = {"window": window, "softcap": softcap}
    gradients = out_and_gradients(lambda *x: self_attend(x, rows, **options), *arrays)[1:]
    weights = np.asarray(weights_of(arrays[0]), np.float64)
    for which, gradient in enumerate(gradients):
        direction = np.random.default_rng(which).normal(size=gradient.shape)
        step = [1e-5 * direction if i == which else 0.0 for i in range(3)]
        loss = []
        for sign in (1, -1):
            moved = [np.asarray(x, np.float64) + sign * d for x, d in zip(arrays, step, strict=True)]
            loss.append(np.sum(weights * reference(moved, where, 0.3, **options)))
        slope = (loss[0] - loss[1]) / 2e-5
        np.testing.assert_allclose(np.sum(np.asarray(gradient, np.float64) * direction), slope, rtol=1e-4)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient(chunked, monkeypatch):
    if chunked:
        in_chunks(monkeypatch)
    query, key, value = tensors(1, 24, 4, 2)
    positions = jnp.arange(24, dtype=jnp.int32)[None]
    segments = jnp.where(positions % 3 == 0, 1, 2)
    rows = {"query_positions": positions, "key_positions": positions, "query_segments": segments}
    rows["key_segments"] = jnp.full_like(segments, 2)
    attend: Any = functools.partial(attention.attend, scale=0.3)
    out, *gradients = out_and_gradients(lambda *x: attend(*x, **rows, window=9, softcap=0.7), query, key, value)
    assert not np.asarray(out[:, ::3]).any()
    assert np.asarray(out[:, 2::3]).all()
    assert not np.asarray(gradients[0][:, ::3]).any()
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("window", [0, 4])
def test_packed_is_each_document_alone(window):
    arrays, rows = tensors(2, 24, 4, 2), packed_rows(DOCUMENTS)
    packed = out_and_gradients(lambda *x: self_attend(x, rows, window=window), *arrays)
    weights = weights_of(arrays[0])

    @jax.jit
    def document(alone, positions, weights):
        rows = (positions, jnp.zeros_like(positions))
        out, pullback = jax.vjp(lambda *x: self_attend(x, rows, window=window), *alone)
        return (out, *pullback(weights))

    for b, lengths in enumerate(DOCUMENTS):
        ends = np.cumsum(lengths)
        for start, end in zip(ends - lengths, ends, strict=True):
            alone = [x[b : b + 1, start:end] for x in arrays]
            positions = jnp.arange(end - start, dtype=jnp.int32)[None]
            expected = document(alone, positions, weights[b : b + 1, start:end])
            assert_all_close([x[b : b + 1, start:end] for x in packed], expected)


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize("at_once", [1, 3])
def test_decoding_from_a_cache_is_the_full_pass(window, at_once):
    """Slots in another order than the positions, some unused and full of rubbish."""
    query, key, value = tensors(2, 12, 4, 2)
    positions, segments = packed_rows([(12,), (12,)])
    full = jax.jit(functools.partial(self_attend, window=window))((query, key, value), (positions, segments))
    step = jax.jit(functools.partial(attention.attend, scale=0.3, window=window))
    slots = np.random.default_rng(1).permutation(16)[:12]
    cache_key, cache_value = (jnp.full((2, 16, 2, 8), 50.0).at[:, slots].set(x) for x in (key, value))
    slot_positions = jnp.zeros((2, 16), jnp.int32).at[:, slots].set(positions)
    for start in range(0, 12, at_once):
        now = slice(start, start + at_once)
        written = jnp.full((2, 16), -1).at[:, slots[: start + at_once]].set(0)
        rows = {"query_positions": positions[:, now], "key_positions": slot_positions}
        rows |= {"query_segments": segments[:, now], "key_segments": written}
        got = step(query[:, now], cache_key, cache_value, **rows)
        assert_all_close([got], [full[:, now]])


def test_bfloat16_is_summed_in_float32(monkeypatch):
    """Chunks only change the order of sums, so they must not add the error of a bfloat16 accumulator."""
    wide, rows = tensors(1, 512, 2, 1), packed_rows([(512,)])
    narrow = [x.astype(jnp.bfloat16) for x in wide]
    exact = out_and_gradients(lambda *x: self_attend(x, rows), *(x.astype(jnp.float32) for x in narrow))
    in_chunks(monkeypatch, chunk=4)
    chunked = out_and_gradients(lambda *x: self_attend(x, rows), *narrow)
    assert all(x.dtype == jnp.bfloat16 for x in chunked)
    for got, expected in zip(chunked, exact, strict=True):
        error = np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected)
        assert error < 0.005


@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_with_the_sequence_not_with_its_square(backward):
    def temporaries(rows):
        shapes = [jax.ShapeDtypeStruct((1, rows, n, 8), jnp.float32) for n in (2, 1, 1)]
        shapes += [jax.ShapeDtypeStruct((1, rows), jnp.int32)] * 2
        function = gradients_of_auto() if backward else jax.jit(lambda *x: self_attend(x[:3], x[3:]))
        memory: Any = function.lower(*shapes).compile().memory_analysis()
        return memory.temp_size_in_bytes

    small, large = temporaries(8192), temporaries(32768)
    assert large < 5 * small  # four times the sequence; the scores alone would be sixteen times as many
    assert large < 32768**2  # a quarter of what one head's scores take


# --- Over a mesh -----------------------------------------------------------------------------------------------------


def mesh_of(**sizes):
    devices = np.array(jax.devices()[: math.prod(sizes.values())]).reshape(tuple(sizes.values()))
    return jax.sharding.Mesh(devices, tuple(sizes), axis_types=(AxisType.Explicit,) * len(sizes))


SIZES = [
    {"data": 2, "tensor": 2, "context": 2},
    {"context": 4},
    {"fsdp": 2, "context": 4},
    {"data": 2, "expert": 2, "tensor": 2},
    {"data": 1, "fsdp": 1, "expert": 1, "tensor": 1, "context": 1},
]


@pytest.mark.parametrize(
    ("sizes", "placed", "chunked"),
    [(sizes, True, False) for sizes in SIZES]
    + [pytest.param(sizes, False, True, marks=[pytest.mark.slow] * (sizes != SIZES[0])) for sizes in SIZES],
    ids=str,
)
def test_sharded_is_one_device(sizes, placed, chunked, monkeypatch):
    if chunked:
        in_chunks(monkeypatch)
    arrays, rows = tensors(4, 24, 4, 2), packed_rows(DOCUMENTS * 2)
    options = {"window": 9, "softcap": 0.7}
    single = out_and_gradients(lambda *x: self_attend(x, rows, **options), *arrays)
    batch = tuple(name for name in AXES[:3] if name in sizes) or None
    context, tensor = (name if name in sizes else None for name in ("context", "tensor"))
    with jax.set_mesh(mesh_of(**sizes)):
        if placed:
            arrays = [jax.reshard(x, P(batch, context, tensor, None)) for x in arrays]
            rows = [jax.reshard(x, P(batch, context)) for x in rows]
        out, *gradients = out_and_gradients(lambda *x: self_attend(x, rows, **options), *arrays)
    assert_all_close([out, *gradients], single)
    if placed:
        expected = NamedSharding(mesh_of(**sizes), P(batch, context, tensor, None))
        assert all(x.sharding.is_equivalent_to(expected, 4) for x in (out, *gradients))


@pytest.mark.parametrize(("batch", "slots"), [(4, 16), (4, 15), (1, 16)])
def test_decoding_over_a_mesh(batch, slots):
    """One query cannot be cut over context, one prompt not over data, 15 slots over nothing."""
    query, key, value = tensors(batch, slots, 4, 2)
    positions = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32), (batch, slots))
    zeros = jnp.zeros_like(positions)
    rows = {"query_positions": positions[:, -1:], "key_positions": positions}
    rows |= {"query_segments": zeros[:, -1:], "key_segments": zeros}
    full = jax.jit(self_attend)((query, key, value), (positions, zeros))
    with jax.set_mesh(mesh_of(data=2, tensor=2, context=2)):
        got = jax.jit(functools.partial(attention.attend, scale=0.3))(query[:, -1:], key, value, **rows)
    assert_all_close([got], [full[:, -1:]])


def test_inside_another_shard_map_only_the_axes_left_are_used():
    arrays, rows = tensors(4, 24, 4, 2), packed_rows(DOCUMENTS * 2)
    single = self_attend(arrays, rows)
    for inside in ({"data"}, {"data", "context"}):
        with jax.set_mesh(mesh_of(data=2, context=4)):
            split = jax.shard_map(
                lambda *x: self_attend(x[:3], x[3:]),
                in_specs=P("data"),
                out_specs=P("data"),
                axis_names=inside,
                check_vma=False,
            )
            got = jax.jit(split)(*(jax.reshard(x, P("data")) for x in (*arrays, *rows)))
        assert_all_close([got], [single])


def test_key_heads_must_divide_over_tensor():
    arrays, rows = tensors(2, 24, 4, 1), packed_rows(DOCUMENTS)
    with jax.set_mesh(mesh_of(tensor=2)), pytest.raises(UserError, match="1 key heads do not divide over tensor=2"):
        self_attend(arrays, rows)


# --- The kernels -----------------------------------------------------------------------------------------------------


def on_platform(monkeypatch, name):
    """As on that platform, the kernels interpreted."""
    monkeypatch.setattr(attention, "platform", lambda: name)
    for kernel in ("splash", "pallas"):
        interpreted = functools.partial(getattr(attention, kernel), interpret=True)
        monkeypatch.setitem(attention.LOCAL, kernel, interpreted)


@pytest.mark.parametrize(
    ("platform", "backend", "window", "softcap"),
    [
        ("tpu", "splash", 0, 0.0),
        ("tpu", "splash", 50, 0.7),
        ("gpu", "pallas", 0, 0.0),
    ],
)
def test_kernels_agree_with_xla(platform, backend, window, softcap, monkeypatch):
    wide, rows = tensors(2, 256, 4, 2, width=32), packed_rows([(30, 130, 96), (256,)])
    # The GPU kernel takes no float32. Both are fed the same rounded numbers.
    dtype, tolerance = (jnp.float32, 2e-5) if backend == "splash" else (jnp.float16, 1e-2)
    arrays = [x.astype(dtype) for x in wide]
    options = {"window": window, "softcap": softcap}
    expected = out_and_gradients(lambda *x: self_attend(x, rows, **options), *(x.astype(jnp.float32) for x in arrays))
    on_platform(monkeypatch, platform)
    got = out_and_gradients(lambda *x: self_attend(x, rows, backend=backend, **options), *arrays)
    assert got[0].dtype == dtype
    assert_all_close(got, expected, tolerance)


@pytest.mark.parametrize(
    ("window", "length", "sizes"),
    [
        (0, 512, {"tensor": 2, "context": 2}),
        (150, 512, {"tensor": 2, "context": 2}),
        pytest.param(0, 1024, {"context": 4}, marks=pytest.mark.slow),
        (0, 768, {"context": 3}),  # which cannot be dealt out
    ],
)
def test_splash_over_context_agrees_with_xla(window, length, sizes, monkeypatch):
    arrays, rows = tensors(2, length, 2, 2, width=16), packed_rows([(100, length - 100), (length,)])
    expected = out_and_gradients(lambda *x: self_attend(x, rows, window=window), *arrays)
    on_platform(monkeypatch, "tpu")
    with jax.set_mesh(mesh_of(**sizes)):
        got = out_and_gradients(lambda *x: self_attend(x, rows, window=window, backend="splash"), *arrays)
    assert_all_close(got, expected)


def gradients_of_auto(**options):
    return jax.jit(
        jax.grad(lambda *x: self_attend(x[:3], x[3:], **options).astype(jnp.float32).sum(), argnums=(0, 1, 2))
    )


@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")  # a TPU program, read without a TPU
@pytest.mark.parametrize(
    "sizes", [{"data": 4}, pytest.param({"tensor": 2, "context": 2}, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(("width", "window", "softcap"), [(64, 0, 0.0), (128, 700, 30.0), (256, 0, 30.0)])
def test_splash_compiles_for_a_tpu(sizes, width, window, softcap, monkeypatch):
    pytest.importorskip("libtpu", reason="TPU programs are compiled by libtpu: pip install libtpu")
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs on a TPU here, so there is none to lock
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = jax.sharding.Mesh(
        np.array(devices).reshape(tuple(sizes.values())), tuple(sizes), axis_types=(AxisType.Explicit,) * len(sizes)
    )
    batch, context, tensor = (name if name in sizes else None for name in ("data", "context", "tensor"))

    def shape(spec, dtype, *dimensions):
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=NamedSharding(mesh, spec))

    heads = [shape(P(batch, context, tensor, None), jnp.bfloat16, 4, 2048, n, width) for n in (4, 2, 2)]
    rows = [shape(P(batch, context), jnp.int32, 4, 2048)] * 2
    with jax.set_mesh(mesh):
        compiled = gradients_of_auto(window=window, softcap=softcap).trace(*heads, *rows).lower().compile()
    kernels = (compiled.as_text() or "").count('custom_call_target="tpu_custom_call"')
    assert kernels == 3 * (2 if context else 1)  # forward, dq, dkv; once for each half that a device is dealt


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_the_gpu_kernel_lowers_without_a_gpu():
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1, 1), ("data", "tensor"), abstract_device=device)
    heads = [jax.ShapeDtypeStruct((2, 512, n, 128), jnp.bfloat16) for n in (4, 2, 2)]
    rows = [jax.ShapeDtypeStruct((2, 512), jnp.int32)] * 2
    with jax.sharding.use_abstract_mesh(mesh):
        lowered = gradients_of_auto().trace(*heads, *rows).lower(lowering_platforms=("cuda",))
    assert all(name in lowered.as_text() for name in ("mha_forward", "mha_backward"))


def test_query_heads_must_share_key_heads_evenly():
    arrays, rows = tensors(2, 24, 4, 3), packed_rows(DOCUMENTS)
    with pytest.raises(UserError, match="4 query heads cannot share 3 key heads"):
        self_attend(arrays, rows)
