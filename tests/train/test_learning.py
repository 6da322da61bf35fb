"""Training learns: by heart, with balanced routers, with every optimizer; and a model starts as it should."""

import dataclasses

import jax
import numpy as np
import pytest

from codelm.config import Config, ModelConfig, MoEConfig, TrainConfig, dial
from codelm.lm import LM
from codelm.model import Transformer, create
from data.rows import Arrays
from train.losses import losses
from train.state import State
from train.step import make_steps
from train.trainer import fresh_state

TINY = dial(ModelConfig(depth=2, width=64, heads=4, kv_heads=2, head_dim=16, mlp_width=96, compute_dtype="float32"), 50)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return create(TINY, 0)


def batch(tokens: np.ndarray, seq_len: int, rows: int, step: int) -> Arrays:
    """Random windows of a text, all of it learnt."""
    starts = np.random.default_rng((0, step)).integers(0, len(tokens) - seq_len, rows)
    windows = tokens[starts[:, None] + np.arange(seq_len + 1)]
    shape = (rows, seq_len)
    return Arrays(
        tokens=windows[:, :-1],
        targets=windows[:, 1:],
        loss_weights=np.ones(shape, np.float32),
        positions=np.broadcast_to(np.arange(seq_len, dtype=np.int32), shape),
        segment_ids=np.zeros(shape, np.int32),
    )


def test_the_model_does_not_see_the_future(model: Transformer) -> None:
    ids = jax.random.randint(jax.random.key(0), (1, 12), 0, 50)
    changed = ids.at[0, 8:].set((ids[0, 8:] + 1) % 50)
    before, after = np.asarray(model(ids)), np.asarray(model(changed))
    np.testing.assert_allclose(before[0, :8], after[0, :8], atol=1e-6)
    assert np.abs(before[0, 8] - after[0, 8]).max() > 1e-3


def test_initialisation_keeps_the_stream_at_unit_scale() -> None:
    deep = create(dataclasses.replace(TINY, depth=16), 0)
    logits = np.asarray(deep(jax.random.randint(jax.random.key(0), (2, 32), 0, 50)))
    assert 0.05 < logits.std() < 0.5  # a tied head of std 0.02 on a normed stream of width 64: 0.16


def trained(config: Config, tokens: np.ndarray, steps: int) -> tuple[State, list[float]]:
    state, step, found = fresh_state(config), make_steps(config).whole, []
    for n in range(steps):
        state, metrics = step(state, batch(tokens, 16, 8, n))
        found.append(float(metrics["loss"]))
    return state, found


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [("adamw", 5e-3), *(pytest.param(o, 5e-3, marks=pytest.mark.slow) for o in ("muon", "adafactor"))],
)
def test_it_learns_by_heart(optimizer: str, rate: float) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 60).astype(np.int32)
    train = TrainConfig(steps=60, learning_rate=rate, warmup_steps=5, optimizer=optimizer)  # type: ignore[arg-type]
    state, found = trained(Config(model=TINY, train=train), tokens, 60)
    assert found[0] == pytest.approx(np.log(50), abs=0.3)
    assert found[-1] < 1.0
    assert (
        LM(dataclasses.replace(TINY, max_seq_len=32), state.model, None, "codelm").generate(tokens[:12].tolist(), 3)
        == tokens[12:15].tolist()
    )


def test_router_biases_even_out_the_load() -> None:
    """A router that starts lopsided: after some steps its bias, which no gradient moves, has spread the tokens."""
    moe = MoEConfig(experts=4, top_k=1, expert_width=32, balance="bias", balance_weight=0.02)
    train = TrainConfig(steps=40, learning_rate=1e-6, warmup_steps=1)
    config = Config(model=dataclasses.replace(TINY, moe=moe), train=train)
    state, step = fresh_state(config), make_steps(config).whole
    state.model.blocks.router[...] = state.model.blocks.router[...].at[:, :, 0].add(0.3)
    tokens = np.random.default_rng(0).integers(0, 50, 400).astype(np.int32)
    rows = batch(tokens, 16, 8, 0)
    routed = jax.jit(lambda model, rows: losses(model, train, rows)[1].routing.load.max())
    before = routed(state.model, rows)
    for n in range(40):
        state, _ = step(state, batch(tokens, 16, 8, n))
    after = routed(state.model, rows)
    assert np.abs(state.model.blocks.router_bias[...]).max() > 0.05
    assert after < before - 0.1
