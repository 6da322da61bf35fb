"""Operations against sums done by hand, and blocks against a mask that is written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from codelm.attention import Rows, Rule, splash
from codelm.config import Config, DataConfig, MeshConfig, ModelConfig, MoEConfig, TokenizerConfig, resolve
from train.flops import flops_on_device
from train.planning import like_batch
from train.step import make_steps
from train.trainer import like_state, mesh_of

NO_EXPERTS = MoEConfig()


def test_products_in_loops_and_in_what_is_recomputed() -> None:
    """Forward, once more, and two products backward: 4 products of 2 * 8 * 16 * 16, five times."""

    @jax.checkpoint
    def layer(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sin(x @ w)

    def loss(ws: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, w: (layer(x, w), None), x, ws)[0].sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(jnp.ones((5, 16, 16)), jnp.ones((8, 16)))
    assert flops_on_device(traced.jaxpr, {}, NO_EXPERTS) == 5 * 4 * (2 * 8 * 16 * 16)


def test_devices_share_what_is_split_and_repeat_what_is_not() -> None:
    mesh = jax.make_mesh((2, 4), ("data", "tensor"))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.ones((8, 16)), P("data", None))
        w = jax.device_put(jnp.ones((16, 32)), P(None, "tensor"))
        split = jax.jit(lambda x, w: x @ w).trace(x, w)
        repeated = jax.jit(lambda w: jnp.ones((8, 16)) @ w).trace(jax.device_put(jnp.ones((16, 32)), P()))
    whole = 2 * 8 * 16 * 32
    assert flops_on_device(split.jaxpr, dict(mesh.shape), NO_EXPERTS) == whole / 8
    assert flops_on_device(repeated.jaxpr, dict(mesh.shape), NO_EXPERTS) == whole


@pytest.mark.parametrize(
    ("queries", "keys", "window", "kernel"),
    [(512, 512, 0, "fwd"), (256, 1024, 0, "dkv"), (1024, 1024, 256, "fwd"), (1024, 1024, 256, "dkv")],
)
def test_blocks_of_attention(queries: int, keys: int, window: int, kernel: str) -> None:
    """A share of the blocks in which any query sees any key."""
    dealt = queries // 2 if keys > queries else queries  # over an even number of devices, in halves
    block = next(size for size in (512, 256, 128) if dealt % size == 0)
    seen = np.tril(np.ones((keys, keys), bool))
    if window:
        seen &= ~np.tril(np.ones((keys, keys), bool), -window)
    blocks = sum(seen[i : i + block, j : j + block].any() for i in range(0, keys, block) for j in range(0, keys, block))
    blocks = blocks * queries / keys
    batch, heads, width = 2, 4, 128
    query = jnp.zeros((batch, queries, heads, width), jnp.bfloat16)
    key = jnp.zeros((batch, keys, 2, width), jnp.bfloat16)
    at, of = jnp.zeros((batch, queries), jnp.int32), jnp.zeros((batch, keys), jnp.int32)
    rows = Rows(at, of, at, of)
    rule = Rule(1.0, window, 0.0, True)

    def attended(query: jax.Array) -> jax.Array:
        context = "context" if keys > queries else None
        return splash(query, key, key, rows, rule, context, interpret=True).astype(jnp.float32).sum()

    if keys > queries:
        mesh = jax.make_mesh((keys // queries,), ("context",), devices=jax.devices()[: keys // queries])
        with jax.set_mesh(mesh):
            run = jax.shard_map(jax.grad(attended), in_specs=P(), out_specs=P(), check_vma=False)
            traced = jax.jit(run).trace(query)
    else:
        traced = jax.jit(jax.grad(attended)).trace(query)
    products = 2 + 4 + 3  # forward, and for keys and values, and for queries
    expected = products * 2 * batch * heads * blocks * block**2 * width
    delta = 2 * batch * heads * queries * width  # what came out times its gradient
    assert flops_on_device(traced.jaxpr, {}, NO_EXPERTS) == pytest.approx(expected + delta)


def test_a_whole_step() -> None:
    """Six a parameter of the products and a token, attention over all keys (xla does not leave the later ones out)."""
    model = ModelConfig(depth=3, width=64, heads=4, kv_heads=2, head_dim=16, mlp_width=96, vocab_size=512, remat="none")
    data, mesh_config = DataConfig(seq_len=32, batch_size=8), MeshConfig(data=2, fsdp=2, tensor=2)
    config = resolve(Config(model=model, tokenizer=TokenizerConfig(vocab_size=512), data=data, mesh=mesh_config))
    with mesh_of(config) as mesh:
        assert mesh is not None
        traced = make_steps(config).whole.trace(like_state(config), like_batch(config, mesh))
        counted = flops_on_device(traced.jaxpr, dict(mesh.shape), NO_EXPERTS)
    tokens, width = 8 * 32, 64
    layer = width * 16 * (4 + 2 + 2 + 4) + 3 * width * 96
    attention = 2 * 2 * 3 * (4 * 16) * 32  # scores and values; forward, and twice as much backward
    by_hand = tokens * (6 * (3 * layer + 512 * width) + 3 * attention) / 8
    assert counted == pytest.approx(by_hand)


def test_experts_are_evenly_used() -> None:
    moe = MoEConfig(experts=8, top_k=2)
    rows, groups = 64 * 2, 4  # room for all assignments of 64 tokens, on a device with half of the experts
    sizes = jnp.full(groups, 16)

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(x, w, sizes).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(jnp.ones((rows, 16)), jnp.ones((groups, 16, 32)))
    filled = 64  # a half of the assignments
    assert flops_on_device(traced.jaxpr, {}, moe) == 3 * 2 * filled * 16 * 32
