"""The pieces `make demo` is made of: they learn, they look where they should, and the demo says what it saw."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codelm import config_io
from codelm.config import Config, CorpusConfig, DataConfig, ModelConfig, MoEConfig, TokenizerConfig, TrainConfig, dial
from codelm.lm import LM
from codelm.model import Transformer, create
from data.rows import Arrays
from experiments import demo
from tests.data.made_corpus import repositories
from train.step import loss_and_routing, make_step, optimizer, schedule

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


def test_only_what_has_weight_is_learnt(model: Transformer) -> None:
    """The mean over weighted tokens, by hand; and a document does not read its neighbour."""
    rows = batch(np.random.default_rng(0).integers(0, 50, 60).astype(np.int32), 16, 2, 0)
    rows["loss_weights"] = np.zeros((2, 16), np.float32)
    rows["loss_weights"][0, 3:7] = 1.0
    logits = jax.nn.log_softmax(model(jnp.asarray(rows["tokens"])))
    expected = -np.mean([logits[0, t, rows["targets"][0, t]] for t in range(3, 7)])
    assert float(jax.jit(loss_and_routing)(model, rows)[0]) == pytest.approx(float(expected), rel=1e-4)
    packed = {
        **rows,
        "segment_ids": np.array([[0] * 3 + [1] * 13] * 2, np.int32),
        "positions": np.array([[*range(3), *range(13)]] * 2, np.int32),
    }
    alone = model(jnp.asarray(rows["tokens"][:1, 3:7]))
    logits = jax.nn.log_softmax(alone)
    expected = -np.mean([logits[0, t, rows["targets"][0, 3 + t]] for t in range(4)])
    assert float(jax.jit(loss_and_routing)(model, packed)[0]) == pytest.approx(float(expected), rel=1e-4)


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


def test_a_step_learns_by_heart() -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 60).astype(np.int32)
    model = create(TINY, 0)
    transform = optimizer(TrainConfig(steps=60, learning_rate=5e-3, warmup_steps=5))
    state, step = transform.init(model), make_step(transform)
    losses = []
    for n in range(60):
        model, state, value = step(model, state, batch(tokens, 16, 8, n))
        losses.append(float(value))
    assert losses[0] == pytest.approx(np.log(50), abs=0.3)
    assert losses[-1] < 1.0
    assert LM(TINY, model, None, "codelm").generate(tokens[:12].tolist(), 3) == tokens[12:15].tolist()


def test_router_biases_even_out_the_load() -> None:
    """A router that starts lopsided: after some steps its bias, which no gradient moves, has spread the tokens."""
    moe = MoEConfig(experts=4, top_k=1, expert_width=32, balance="bias", balance_weight=0.02)
    model = create(dataclasses.replace(TINY, moe=moe), 0)
    model.blocks.router[...] = model.blocks.router[...].at[:, :, 0].add(0.3)
    transform = optimizer(TrainConfig(steps=40, learning_rate=1e-6, warmup_steps=1))
    state, step = transform.init(model), make_step(transform)
    tokens = np.random.default_rng(0).integers(0, 50, 400).astype(np.int32)
    rows, routed = batch(tokens, 16, 8, 0), jax.jit(loss_and_routing)
    before = routed(model, rows)[1].load.max()
    for n in range(40):
        model, state, _ = step(model, state, batch(tokens, 16, 8, n))
    after = routed(model, rows)[1].load.max()
    assert np.abs(model.blocks.router_bias[...]).max() > 0.05
    assert after < before - 0.1


def test_schedule_by_hand() -> None:
    rate = schedule(TrainConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_fraction=0.2))
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 50: 1.0, 80: 1.0, 90: 0.5, 100: 0.0}
    for step, value in expected.items():
        assert float(rate(step)) == pytest.approx(value, abs=1e-6), step


def test_norms_and_embedding_do_not_decay() -> None:
    train = TrainConfig(steps=10, learning_rate=1.0, warmup_steps=0, weight_decay=0.5, decay_fraction=0.0)
    transform, model = optimizer(train), create(TINY, 0)
    nothing = jax.tree.map(np.zeros_like, model)
    updates, _ = transform.update(nothing, transform.init(model), model)
    sizes = {jax.tree_util.keystr(path): np.abs(u).max() for path, u in jax.tree_util.tree_leaves_with_path(updates)}
    kept = {path for path in sizes if "norm" in path or "embedding" in path}
    assert len(kept) == 4
    assert {path for path, size in sizes.items() if size > 0} == sizes.keys() - kept


def test_unigram_entropy_by_hand() -> None:
    """Counts 3 and 1, plus one each: 4/6 and 2/6."""
    value = demo.unigram_entropy(np.array([0, 0, 0, 1]), np.array([0, 1]), 2)
    assert value == pytest.approx(-(np.log(4 / 6) + np.log(2 / 6)) / 2)


def test_the_demo_shows_what_it_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The whole of `make demo` in small: every printed figure comes from the run."""
    folder = repositories(tmp_path / "code", count=10, files=8)
    small = Config(
        corpus=CorpusConfig(sources=(f"repositories:{folder}",)),
        model=dataclasses.replace(TINY, vocab_size=640),
        tokenizer=TokenizerConfig(vocab_size=640),
        data=DataConfig(seq_len=32, batch_size=8),
        train=TrainConfig(steps=20),
    )
    monkeypatch.setattr(config_io, "load", lambda path: small)
    monkeypatch.setattr(demo, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(demo, "CACHE", tmp_path / "cache")
    demo.main()
    out = capsys.readouterr().out
    assert "corpus: 80 files" in out
    assert "train: 72 files" in out
    assert "validation: 8 files" in out
    assert out.count("tokens/s") == 10
    assert "unigram entropy" in out
    assert out.count("--- the model continues") == len(demo.PROMPTS)
    assert "--- the model fills the hole" in out
