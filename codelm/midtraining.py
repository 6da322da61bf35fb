"""The config of long-context mid-training, out of that of the whole experiment."""

from dataclasses import replace
from typing import Any, cast

from codelm.config import Config, ModelConfig, RopeConfig, resolve

# What mid-training changes by design: a state of pretraining may go on with other values of these.
CHANGES = ("data", "model.rope", "model.max_seq_len", "train", "midtrain", "evaluation", "mesh")


def midtrained(config: Config) -> Config:
    """The experiment as it is during mid-training, resolved."""
    config, middle = resolve(config), config.midtrain
    before = config.data
    seq_len = middle.seq_len or 4 * before.seq_len
    batch_size = middle.batch_size or max(before.batch_size * before.seq_len // seq_len, 1)
    sources = before.sources
    if middle.level:
        sources = tuple(source if source.corpus else replace(source, level=middle.level) for source in sources)
    data = replace(before, seq_len=seq_len, batch_size=batch_size, sources=sources)
    rope = stretched(config.model, before.seq_len, seq_len, middle.rope_theta, middle.rope_scaling)
    train = replace(
        config.train,
        steps=middle.steps,
        learning_rate=middle.learning_rate or config.train.learning_rate / 3,
        warmup_steps=middle.warmup_steps or middle.steps // 20,
        decay_fraction=1.0,
        accumulate=config.train.accumulate if batch_size % config.train.accumulate == 0 else 1,
        batch_warmup_steps=0,
        start="",
    )
    model = replace(config.model, rope=rope, max_seq_len=max(config.model.max_seq_len, seq_len))
    return resolve(replace(config, model=model, data=data, train=train))


def stretched(model: ModelConfig, before: int, after: int, theta: float, scaling: str) -> RopeConfig:
    """Positions for rows longer than a model was trained at.

    Unless told otherwise the base grows so that the slowest rotation, which tells far positions apart, turns over the
    new length as it did over the old: by the ratio to the power d / (d - 2) (the "NTK-aware" rule).
    """
    ratio, rope = after / before, model.rope
    if scaling in ("", "none"):
        grown = rope.theta * max(ratio, 1.0) ** (model.head_dim / (model.head_dim - 2))
        return replace(rope, theta=theta or grown)
    kind = cast(Any, scaling)
    return replace(rope, theta=theta or rope.theta, scaling=kind, factor=max(ratio, 1.0), original_seq_len=before)
