"""The kernel that reads pages: interpreted, it writes what the simple decoder writes; compiled for TPUs that are not
here, it works on the pages that it was given and copies none."""

import importlib.util
import logging
import math
import re
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel as kernels
from jax.sharding import AxisType, NamedSharding

from codelm import attention, paged, views
from codelm.cache import Heads, Rows, Rule
from codelm.config import ModelConfig, dial
from codelm.lm import LM
from codelm.model import create
from codelm.windows import layer_windows
from infer import programs
from infer.engine import Engine, Options
from infer.programs import Choosing, Sight, Steering, Targets
from infer.request import MOST_STOPS, Drafts, Request
from infer.sampling import Sampling, settings
from train.topologies import parse

AXES = ("data", "fsdp", "expert", "tensor", "context")
SLIDING = {"sliding_window": 5, "full_attention_every": 2, "attention_softcap": 30.0}


def config_of(**changes: Any) -> ModelConfig:
    small = {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 128, "max_seq_len": 64}
    return dial(ModelConfig(**{**small, "compute_dtype": "float32", **changes}), 64)


def mesh_of(devices: Any, **sizes: int) -> jax.sharding.Mesh:
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    return jax.make_mesh(shape, AXES, (AxisType.Explicit,) * 5, devices=devices[: math.prod(shape)])


# --- Interpreted -----------------------------------------------------------------------------------------------------


class Loaded:
    """A buffer that is reshaped once it has been read: the interpreter cannot read through a reshape."""

    def __init__(self, buffer: Any) -> None:
        self.buffer, self.dtype, self.shape = buffer, buffer.dtype, buffer.shape

    def reshape(self, *shape: int) -> "Loaded":
        self.shape = shape
        return self

    def __getitem__(self, at: Any) -> jax.Array:
        return self.buffer[...].reshape(self.shape)[at]


def store(buffer: Any, value: jax.Array, mask: jax.Array) -> None:
    """The interpreter mistakes what a mask leaves out for what is out of bounds."""
    buffer[...] = jnp.where(mask, value, buffer[...])


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paged, "platform", lambda: "tpu")
    wait = kernels.MultiPageAsyncCopyDescriptor.wait
    monkeypatch.setattr(kernels.MultiPageAsyncCopyDescriptor, "wait", lambda copy: Loaded(wait(copy)))
    named = {name: getattr(pltpu, name) for name in dir(pltpu)}
    monkeypatch.setattr(kernels, "pltpu", SimpleNamespace(**named | {"store": store}))
    with pltpu.force_tpu_interpret_mode():
        yield


def test_the_kernel_writes_what_the_simple_decoder_writes(interpreted: None) -> None:
    """Over a mesh; more tokens than the window, chunks that are not full, two rows of different lengths."""
    prompts, config = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [7, 8]], config_of(**SLIDING)
    expected = LM(config, create(config, 0), None, "codelm").complete(prompts, 5)
    with jax.set_mesh(mesh_of(jax.devices(), data=2, tensor=2)):
        options = Options(rows=2, context=32, page=4, chunk=8, steps=4, speculate="always", widths=(4,))
        engine = Engine(LM(config, create(config, 0), None, "codelm"), options)
    assert engine.device.reads_pages
    # One draft is right but for its third token, the other throughout.
    drafts = [Drafts(expected=ids) for ids in ([*expected[0][:2], 0, *expected[0][3:]], expected[1])]
    streams = [engine.submit(Request(prompts[i], 5, drafts=drafts[i])) for i in range(2)]
    assert [stream.text().ids for stream in streams] == expected
    assert engine.stats().accepted[0] >= 2
    assert len(set(expected[0] + expected[1])) > 3  # not one token over and over


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (5, 0.7)])
def test_what_is_new_is_written_and_all_that_is_seen_is_read(window: int, softcap: float, interpreted: None) -> None:
    """Against the definition, over pages full of other things. The last of the second row's three is padding."""
    random = np.random.default_rng(0)
    pages = random.normal(size=(9, 4, 4, 128)).astype(np.float32)
    query, key, value = (random.normal(size=(2, 3, heads, 128)).astype(np.float32) for heads in (4, 2, 2))
    starts, tables = np.array([4, 0], np.int32), np.array([[6, 1, 3], [0, 5, 2]], np.int32)
    positions, segments = np.array([[10, 11, 12], [2, 3, 4]]), np.array([[0, 0, 0], [0, 0, -1]])
    expected = pages.copy()
    for row, i in zip(*np.nonzero(segments == 0), strict=True):
        slot = positions[row, i] - starts[row]
        expected[tables[row, slot // 4], slot % 4] = np.stack([key[row, i], value[row, i]], axis=1).reshape(4, 128)
    slots = paged.Slots({window: starts}, {window: tables})
    rule = Rule(0.1, window, softcap, "auto")
    rows = Rows(jnp.asarray(positions), jnp.asarray(segments))
    heads = Heads(*(jnp.asarray(x) for x in (query, key, value)))
    mixed, memory = slots.attend(views.Pages(jnp.asarray(pages), None), heads, rows, rule)
    np.testing.assert_array_equal(memory.values[:8], expected[:8])  # the last is nobody's
    for row, i in zip(*np.nonzero(segments == 0), strict=True):
        end = positions[row, i] - starts[row] + 1
        seen = expected[tables[row]].reshape(-1, 2, 2, 128)[max(end - window, 0) if window else 0 : end]
        for head in range(4):
            scores = 0.1 * seen[:, head // 2, 0] @ query[row, i, head]
            weights = np.exp(softcap * np.tanh(scores / softcap) if softcap else scores)
            np.testing.assert_allclose(mixed[row, i, head], weights @ seen[:, head // 2, 1] / weights.sum(), atol=2e-5)


# --- Compiled for TPUs -----------------------------------------------------------------------------------------------

LAYER = 65_536 * 16 * 2 * 2 * 2 * 128  # bytes of a layer's pages on a chip: too many for a chip's fast memory


def compiled(topology: str, rows: int, tokens: int) -> Any:
    """Decoding of so many rows or, of one, reading a chunk: of a small model with real heads, over four chips."""
    config = config_of(width=256, heads=8, kv_heads=4, max_seq_len=1024, compute_dtype="bfloat16", **SLIDING)
    mesh, windows = mesh_of(parse(topology).devices, data=2, tensor=2), set(layer_windows(config))

    def there(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, x.sharding.spec))

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int32)

    with jax.set_mesh(mesh):
        assert paged.reads_pages(config, "bfloat16", rows * 64)
        model = jax.tree.map(there, jax.eval_shape(lambda: create(config, 0).apart()))
        pages = jax.eval_shape(lambda: views.make_pages(config, dict.fromkeys(windows, 65_536), 16, "bfloat16"))
        leaves, tree = jax.tree.flatten(model)
        sight = Sight({w: zeros(rows) for w in windows}, {w: zeros(rows, 64) for w in windows})
        given = (tree, leaves, jax.tree.map(there, pages), (), sight)
        targets = Targets({w: zeros(rows, tokens) for w in windows}, zeros(rows, tokens))
        shape = rows, config.vocab_size
        plain = Steering(np.zeros(shape, bool), zeros(*shape), np.zeros(shape, np.float32), np.ones(shape, bool))
        how = settings([Sampling()] * rows, [0] * rows), zeros(rows), plain, np.int32(0)
        if rows > 1:
            stops = zeros(rows, MOST_STOPS)
            call = (*given, targets, zeros(rows), zeros(rows), zeros(rows), stops, Choosing(*how), "bfloat16")
            return programs.decode.trace(*call).lower().compile()
        call = (*given, targets, zeros(1, tokens), zeros(1), np.int32(1), Choosing(*how), np.bool_(True), "bfloat16")
        return programs.extend.trace(*call).lower().compile()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu compiles for TPUs: the extra tpu")
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")  # a TPU program, read without a TPU
@pytest.mark.parametrize(
    ("topology", "rows", "tokens"),
    [pytest.param("v5e:2x2", 8, 8, marks=pytest.mark.slow), ("v6e:2x2", 8, 8), ("v5e:2x2", 1, 256)],
)
def test_compiled_for_a_tpu_it_works_on_the_pages_that_it_was_given(topology: str, rows: int, tokens: int) -> None:
    program = compiled(topology, rows, tokens)
    text, memory = program.as_text(), program.memory_analysis()
    assert text.count('custom_call_target="tpu_custom_call"') == 2  # one a layer
    assert memory.alias_size_in_bytes == 2 * LAYER
    assert memory.temp_size_in_bytes < LAYER / 100
    made = re.findall(r" = bf16\[65536,16,4,128\]\S* ([\w-]+)\(", text)
    assert "scatter" in made
    assert not {kind for kind in made if kind.startswith(("copy", "transpose", "reshape", "convert", "gather"))}


# --- What it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "dtype", "entries", "sizes", "reason"),
    [
        ({"head_dim": 64}, "float32", 64, {}, "heads of 128, not 64"),
        ({"compute_dtype": "bfloat16"}, "float32", 64, {}, "in the dtype that computes (bfloat16), not float32"),
        ({}, "int8", 64, {}, "in the dtype that computes (float32), not int8"),
        ({"heads": 6, "kv_heads": 3}, "float32", 64, {}, "not 3 / 1"),
        ({"kv_heads": 1}, "float32", 64, {"tensor": 2}, "not 1 / 2"),
        ({}, "float32", 2**18, {}, "262,144 pages are more than it holds (131,072): take larger pages"),
    ],
)
def test_what_the_kernel_cannot_do_is_left_to_views_with_a_warning(
    changes: dict[str, Any],
    dtype: str,
    entries: int,
    sizes: dict[str, int],
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attention.log_once.cache_clear()
    monkeypatch.setattr(paged, "platform", lambda: "tpu")
    with jax.set_mesh(mesh_of(jax.devices(), **sizes)) if sizes else nullcontext():
        assert paged.reads_pages(config_of(), "float32", 64)
        assert not paged.reads_pages(config_of(**changes), dtype, entries)
    (record,) = [x for x in caplog.records if x.levelno == logging.WARNING]
    assert record.getMessage().startswith("decoding: views instead of the paged kernel on tpu: ")
    assert record.getMessage().endswith(reason)


def test_without_a_tpu_views_are_nothing_to_be_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "codelm.attention")
    attention.log_once.cache_clear()
    assert not paged.reads_pages(config_of(), "float32", 64)
    told = "decoding: views instead of the paged kernel on cpu: it needs a TPU and this is cpu"
    assert [(x.levelname, x.getMessage()) for x in caplog.records] == [("INFO", told)]
