"""Over a mesh the engine writes what it writes on one device, each device with its own share of rows and key heads."""

import logging
from contextlib import nullcontext

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import codelm
from experiments.parity import FIXTURES
from infer.engine import Engine, Options
from infer.request import Drafts, Request
from infer.sampling import Sampling

AXES = ("data", "fsdp", "expert", "tensor", "context")
SMALL = {"context": 64, "page": 4, "chunk": 8, "steps": 4}


def engine_of(case: str, sizes: dict[str, int], options: Options) -> Engine:
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    mesh = jax.make_mesh(shape, AXES, (AxisType.Explicit,) * 5, devices=jax.devices()[: np.prod(shape)])
    with jax.set_mesh(mesh) if sizes else nullcontext():
        return Engine(codelm.load(FIXTURES / case, compute_dtype="float32"), options)


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        # Half of its layers slide.
        pytest.param("gemma2", {"data": 2, "tensor": 2}, marks=pytest.mark.slow),
        # Two rows, which do not split over four.
        pytest.param("qwen3_moe", {"fsdp": 2, "expert": 2, "tensor": 2}, marks=pytest.mark.slow),
        ("llama_head_dim", {"data": 2, "context": 2}),  # one key head
    ],
)
def test_it_writes_what_transformers_wrote(case: str, sizes: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
    reference = np.load(FIXTURES / case / "reference.npz")
    prompt, greedy = reference["prompt"].tolist(), reference["greedy"].tolist()
    engine = engine_of(case, sizes, Options(rows=2, speculate="always", widths=(4,), **SMALL))
    # Drafts that are right but for one token.
    drafts = Drafts(expected=[*greedy[:3], 1, *greedy[4:]])
    streams = [engine.submit(Request(prompt + greedy[:i], len(greedy) - i, drafts=drafts)) for i in (0, 5)]
    assert [stream.text().ids for stream in streams] == [greedy[i:] for i in (0, 5)]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]  # which hide behind a retry
    assert engine.stats().accepted[0]


def test_rows_and_key_heads_are_split_and_nothing_is_compiled_twice() -> None:
    engine = engine_of("llama_gqa", {"data": 2, "tensor": 2}, Options(rows=2, **SMALL))
    engine.warm_up()
    streams = [engine.submit(Request([1, 2, 3, 4 + i], 8, share=False)) for i in range(2)]
    assert [len(stream.text().ids) for stream in streams] == [8, 8]
    assert engine.stats().compilations == 0
    view, pages = engine.device.writer.memory[0].key, engine.device.pages[0].values
    (rows, kv_heads, *_), (*_, pairs, _) = (whole.sharding.shard_shape(whole.shape) for whole in (view, pages))
    assert (rows, kv_heads, pairs) == (1, 1, 2)  # of two rows, two key heads, two keys and values


@pytest.mark.parametrize("cache", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_what_it_draws_is_what_one_device_draws(cache: str) -> None:
    def written(sizes: dict[str, int]) -> list[list[int]]:
        engine = engine_of("llama_gqa", sizes, Options(rows=2, cache=cache, **SMALL))
        steered = Sampling(temperature=1.5, logit_bias={7: 2.0}, top_k=30)
        ways = [Sampling(temperature=1.0), steered]
        return [s.text().ids for s in [engine.submit(Request([1, 2, 3], 8, way, seed=5)) for way in ways]]

    assert written({"data": 2, "tensor": 2}) == written({})
