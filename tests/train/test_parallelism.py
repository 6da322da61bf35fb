"""The step of training over axes that split the sequence and the experts, against the same step on one device.

Rows are packed, with documents that lie across the devices' shares of the sequence, and the model's positions are
stretched by YaRN, as mid-training stretches them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from codelm.config import Config, DataConfig, MeshConfig, ModelConfig, MoEConfig, RopeConfig, TrainConfig, dial
from data.rows import Arrays
from train.profiling import on_mesh
from train.step import make_steps
from train.trainer import fresh_state, mesh_of

VOCAB, ROWS, LENGTH = 48, 8, 32
DOCUMENTS = (11, 3, 9, 6)  # a row's; what they leave is padding
YARN = RopeConfig(scaling="yarn", factor=4.0, original_seq_len=LENGTH // 4)
DENSE = dial(
    ModelConfig(
        depth=2,
        width=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        mlp_width=64,
        rope=YARN,
        compute_dtype="float32",
        remat="full",
    ),
    VOCAB,
)
EXPERTS = dataclasses.replace(
    DENSE, moe=MoEConfig(experts=4, expert_width=32, shared_experts=1, balance_weight=0.1, router_z_weight=0.01)
)
# Where a gradient is nearly nothing AdamW makes a whole step of its sign, which is rounding's: not with this epsilon.
TRAIN = TrainConfig(steps=10, learning_rate=1e-2, warmup_steps=0, epsilon=1e-3, grad_clip=0.5, z_loss=1e-3)


def packed() -> Arrays:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCAB, (ROWS, LENGTH + 1)).astype(np.int32)
    positions, segments = np.zeros((ROWS, LENGTH), np.int32), np.full((ROWS, LENGTH), -1, np.int32)
    for row in range(ROWS):
        at = 0
        for segment, length in enumerate(np.roll(DOCUMENTS, row)):
            positions[row, at : at + length], segments[row, at : at + length] = np.arange(length), segment
            at += length
    weights = ((rng.random((ROWS, LENGTH)) < 0.9) & (segments >= 0)).astype(np.float32)
    return Arrays(
        tokens=ids[:, :-1], targets=ids[:, 1:], loss_weights=weights, positions=positions, segment_ids=segments
    )


def stepped(config: Config, mesh: Mesh | None) -> tuple[dict[str, float], Any]:
    """Figures of a step, and the model after two: the second has an optimizer with a history."""
    rows, state, step = on_mesh(packed(), mesh), fresh_state(config), make_steps(config).whole
    state, metrics = step(state, rows)
    state, _ = step(state, rows)
    return {name: float(value) for name, value in metrics.items()}, jax.tree.map(np.asarray, state.model)


@pytest.mark.parametrize(
    ("model", "axes"),
    [
        (DENSE, {"context": 4, "fsdp": 2}),
        (EXPERTS, {"expert": 2, "fsdp": 2, "context": 2}),
    ],
    ids=["context", "experts"],
)
def test_the_step_is_that_of_one_device(model: ModelConfig, axes: dict[str, int]) -> None:
    data = DataConfig(seq_len=LENGTH, batch_size=ROWS)
    config = Config(model=model, train=TRAIN, data=data, mesh=MeshConfig(**({"data": 1} | axes)))
    figures, after = stepped(config, None)
    with mesh_of(config) as mesh:
        split_figures, split_after = stepped(config, mesh)
    assert {"loss", "grad_norm", "grad_norm/attention"} <= set(figures)
    assert split_figures == pytest.approx(figures, rel=1e-5, abs=1e-7)
    leaves = jax.tree_util.tree_leaves_with_path(after)
    for (path, want), got in zip(leaves, jax.tree.leaves(split_after), strict=True):
        close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(want).max()}
        np.testing.assert_allclose(got, want, **close, err_msg=jax.tree_util.keystr(path))
