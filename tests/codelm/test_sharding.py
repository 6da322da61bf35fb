"""The ways of moving arrays over a mesh that are our own."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from codelm import sharding
from codelm.config import ModelConfig, dial
from codelm.model import create
from codelm.sharding import dealt, dealt_back, sum_scattered, without

AXES = ("data", "fsdp", "expert", "tensor", "context")


def mesh_of(**sizes: int) -> jax.sharding.Mesh:
    return jax.make_mesh(tuple(sizes.get(axis, 1) for axis in AXES), AXES, axis_types=(AxisType.Explicit,) * 5)


def test_a_dimension_whole_along_an_axis() -> None:
    assert without(P(("data", "fsdp", "expert"), "context"), "fsdp") == P(("data", "expert"), "context")
    assert without(P(("data", "fsdp"), None, "fsdp"), "fsdp") == P("data", None, None)
    assert without(P(("fsdp", "data"), "context"), "context") == P(("fsdp", "data"), None)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(
    ("fsdp", "dimension", "shape"), [(8, 1, (3, 16)), (2, 0, (12, 5)), (8, 1, (2, 8)), (1, 0, (4, 3))]
)
def test_sums_are_those_of_numpy_whatever_the_platform(
    platform: str, fsdp: int, dimension: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An odd share (the third case) cannot be halved, and one device has nobody to sum with."""
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    x = np.random.default_rng(0).normal(size=(fsdp, *shape)).astype(np.float32)
    out = P("fsdp", None) if dimension == 0 else P(None, "fsdp")
    with jax.set_mesh(mesh_of(fsdp=fsdp, data=8 // fsdp)):
        run = jax.shard_map(lambda x: sum_scattered(x[0], "fsdp", dimension), in_specs=P("fsdp"), out_specs=out)
        got = jax.jit(run)(jax.device_put(x, P("fsdp")))
        assert jax.typeof(got).sharding.spec == out
    np.testing.assert_allclose(got, x.sum(axis=0), rtol=1e-5, atol=1e-6)


def collectives(function: Callable, *arguments: jax.Array) -> list[str]:
    """What a compiled function passes between devices: kind and elements."""
    text = jax.jit(function).lower(*arguments).compile().as_text() or ""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf" = (?:\()?\w+\[([\d,]*)\].*? ({kinds})(?:-start)?\(", text)
    return [f"{kind} {np.prod([int(d) for d in size.split(',') if d] or [1]):.0f}" for size, kind in found]


def test_the_embedding_table_is_never_whole_on_a_device() -> None:
    """Nor is its gradient: what changes hands is what was looked up."""
    config = dial(ModelConfig(depth=1, width=64, heads=2, kv_heads=2, head_dim=32, compute_dtype="float32"), 4096)
    tokens = jnp.zeros((8, 16), jnp.int32)
    with jax.set_mesh(mesh_of(fsdp=4, data=2)):
        model = create(config, 0)
        placed = jax.device_put(tokens, P(("data", "fsdp", "expert"), "context"))

        def looked_up(model, tokens):
            return (model.embed(tokens) ** 2).sum()

        found = collectives(jax.grad(looked_up), model, placed)
    table, rows = 4096 * 64, 8 * 16 * 64
    sizes = [int(each.split()[1]) for each in found]
    # The table's gradient is summed over data, each device having a fourth of its width.
    assert sorted(size for size in sizes if size > rows) == [table // 4]
    assert any(kind.startswith("all-to-all") for kind in found)


def test_shares_are_dealt_from_the_front_and_from_the_end() -> None:
    mesh = jax.make_mesh((4,), ("context",), devices=jax.devices()[:4])
    rows = jnp.arange(16)[None]  # two shares of two on each device

    def halves(x: jax.Array) -> tuple[jax.Array, ...]:
        early, late = dealt(x, "context", 4)
        return early, late, dealt_back(early, late, "context", 4)

    split = P(None, "context")
    run = jax.shard_map(halves, mesh=mesh, in_specs=split, out_specs=(split, split, split))
    early, late, back = jax.jit(run)(jax.device_put(rows, NamedSharding(mesh, split)))
    assert early[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]  # shares 0, 1, 2, 3
    assert late[0].tolist() == [14, 15, 12, 13, 10, 11, 8, 9]  # and 7, 6, 5, 4
    assert back.tolist() == rows.tolist()
