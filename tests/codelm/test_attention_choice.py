"""codelm.attention: which backend is taken, what is said about it, and what each refuses."""

import functools
import logging

import jax
import jax.numpy as jnp
import pytest

from codelm import attention
from codelm.errors import UserError
from tests.codelm.test_attention import DOCUMENTS, mesh_of, packed_rows, self_attend, tensors


@pytest.fixture(autouse=True)
def _log_afresh():
    attention.log_once.cache_clear()


def test_the_choice_is_logged_once(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "codelm.attention")
    arrays, rows = tensors(2, 24, 4, 2), packed_rows(DOCUMENTS)
    for _ in range(3):
        self_attend(arrays, rows)
    assert [(x.levelname, x.getMessage()) for x in caplog.records] == [("INFO", "attention: xla on cpu")]
    self_attend(arrays, rows, backend="xla")
    assert caplog.messages[1:] == ["attention: xla, as asked, on cpu"]


def choice(monkeypatch, platform, rows=2048, same=True, dtype=jnp.bfloat16, width=64, mesh=None, **options):
    """Traces a call as on that platform; the backends stand aside. Returns the one that was taken."""
    taken = []

    def stand_in(name, query, *_):
        taken.append(name)
        return query

    monkeypatch.setattr(attention, "platform", lambda: platform)
    monkeypatch.setattr(attention, "LOCAL", {name: functools.partial(stand_in, name) for name in attention.LOCAL})

    def call(query, key, positions, segments):
        if same:
            return self_attend((query, key, key), (positions, segments), **options)
        names = ("query_positions", "key_positions", "query_segments", "key_segments")
        copies = dict(zip(names, (positions, positions + 0, segments, segments), strict=True))
        return attention.attend(query, key, key, **copies, scale=1.0, **options)

    heads = [jax.ShapeDtypeStruct((2, rows, n, width), dtype) for n in (4, 2)]
    places = [jax.ShapeDtypeStruct((2, rows), jnp.int32)] * 2
    with jax.set_mesh(mesh) if mesh else functools.partial(jax.named_scope, "alone")():
        jax.eval_shape(call, *heads, *places)
    return taken[0]


REFUSALS = [
    ("tpu", {"rows": 2100}, "multiple of 128"),
    ("tpu", {"same": False}, "not one row order"),
    ("tpu", {"rows": 2048 + 128, "mesh": {"context": 2}}, "multiple of 128"),
    ("gpu", {"rows": 2100}, "multiple of 128"),
    ("gpu", {"same": False}, "not one row order"),
    ("gpu", {"window": 100}, "no window"),
    ("gpu", {"softcap": 30.0}, "no soft-cap"),
    ("gpu", {"dtype": jnp.float32}, "bfloat16 or float16"),
    ("gpu", {"width": 256}, "128 or less"),
    ("gpu", {"mesh": {"context": 2}}, "no context parallelism"),
]


@pytest.mark.parametrize(("platform", "call", "reason"), REFUSALS, ids=[f"{x[0]}-{x[1]}" for x in REFUSALS])
def test_what_a_kernel_cannot_do_is_refused_when_asked_for_and_warned_about_when_not(
    platform, call, reason, caplog, monkeypatch
):
    kernel = attention.KERNELS[platform]
    call = call | ({"mesh": mesh_of(**call["mesh"])} if "mesh" in call else {})
    with pytest.raises(UserError, match=f"{kernel}.*refuses.*{reason}"):
        choice(monkeypatch, platform, backend=kernel, **call)
    assert choice(monkeypatch, platform, **call) == "xla"
    (record,) = [x for x in caplog.records if x.levelno == logging.WARNING]
    assert f"xla instead of {kernel} on {platform}" in record.getMessage()
    assert reason in record.getMessage()


def test_auto_takes_the_kernel_of_the_platform(monkeypatch):
    assert [choice(monkeypatch, platform) for platform in ("tpu", "gpu", "cpu")] == ["splash", "pallas", "xla"]
    assert choice(monkeypatch, "tpu", window=100, softcap=30.0, mesh=mesh_of(context=2)) == "splash"


def test_decoding_on_a_tpu_is_no_cause_for_a_warning(caplog, monkeypatch):
    assert choice(monkeypatch, "tpu", rows=1) == "xla"
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]


def test_a_long_sequence_that_context_does_not_divide_is_warned_about(caplog, monkeypatch):
    assert choice(monkeypatch, "cpu", rows=2049, mesh=mesh_of(context=2)) == "xla"
    assert "does not divide over context" in caplog.text


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("cudnn", "no segment ids"),
        ("splash", "needs a TPU and this is cpu"),
        ("pallas", "needs a GPU and this is cpu"),
        ("splush", "no attention backend 'splush'.*did you mean 'splash'"),
    ],
)
def test_a_backend_that_cannot_run_here_is_an_error(backend, message):
    arrays, rows = tensors(2, 24, 4, 2), packed_rows(DOCUMENTS)
    with pytest.raises(UserError, match=message):
        self_attend(arrays, rows, backend=backend)
