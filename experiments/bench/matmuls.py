"""What training in fewer bits costs in loss: a config trained in full and in eight bits, and what each leaves.

    .venv/bin/python -m experiments.bench.matmuls                     # quickstart; some ten minutes on two cores
    .venv/bin/python -m experiments.bench.matmuls --steps 300 --seed 1

One JSON line for each: the mean loss of the last tenth of the steps, that on held-out text, and tokens/s (on a CPU
eight bits win no time). The optimizer is plain AdamW under a cosine, the same for all.
"""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import tyro
from jaxtyping import Array, Float

from codelm import config_io
from codelm.caches import CACHE
from codelm.config import Config, resolve
from codelm.data_config import FimConfig
from codelm.model import Transformer, create
from codelm.train_config import TrainConfig
from data import inputs
from data.loader import Loader, make
from train.losses import Batch, losses

HELD_OUT = 8  # batches


@dataclass(frozen=True)
class Options:
    """Train a config with its products in full, in int8 and in fp8."""

    config: Path = Path("configs/quickstart.py")
    steps: int = 0
    """0 = those of the config."""
    seed: int = 0
    """Of the first values; the batches stay."""
    matmuls: tuple[Literal["", "int8", "fp8"], ...] = ("", "int8", "fp8")
    dir: Path = inputs.RUNS
    cache: Path = CACHE


def main() -> None:
    options = tyro.cli(Options)
    config = resolve(config_io.load(options.config))
    config = replace(config, train=replace(config.train, steps=options.steps or config.train.steps))
    corpus = inputs.own_corpus(config, options.dir)
    tokenizer = inputs.tokenizer(config, corpus, options.dir)
    load = partial(make, corpus=str(corpus.folder), tokenizer=tokenizer, cache=options.cache)
    plain = replace(config, data=replace(config.data, fim=FimConfig(rate=0.0), metadata=0.0))
    seen, unseen = load(config), load(plain, split="validation")
    for matmuls in options.matmuls:
        train = replace(config.train, matmuls=matmuls)
        print(json.dumps({"matmuls": matmuls, **trained(config, train, options.seed, seen, unseen)}), flush=True)


def trained(config: Config, train: TrainConfig, seed: int, seen: Loader, unseen: Loader) -> dict[str, float]:
    """The figures of one training."""
    rate = optax.warmup_cosine_decay_schedule(0.0, train.learning_rate, train.warmup_steps, train.steps)
    transform = optax.chain(optax.clip_by_global_norm(train.grad_clip), optax.adamw(rate, train.beta1, train.beta2))
    params: Any = create(config.model, seed)  # a module is a pytree, which optax's own types do not know
    state = transform.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(model: Transformer, state: optax.OptState, batch: Batch) -> tuple[Any, optax.OptState, Float[Array, ""]]:
        (_, aux), gradient = jax.value_and_grad(losses, has_aux=True)(model, train, batch)
        params: Any = model
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, aux.parts["loss"]

    values, start = [], 0.0
    for batch in seen.batches(0, train.steps):
        params, state, value = step(params, state, batch)
        values.append(float(value))
        start = start or time.monotonic()  # when the first is done, which compiles
    speed = (train.steps - 1) * seen.batch_size * seen.seq_len / (time.monotonic() - start)
    whole = jax.jit(lambda model, batch: losses(model, replace(train, matmuls=""), batch)[1].parts["loss"])
    held_out = [float(whole(params, batch)) for batch in unseen.batches(0, HELD_OUT)]
    last = values[-max(train.steps // 10, 1) :]
    return {
        "loss": round(float(np.mean(last)), 4),
        "held_out": round(float(np.mean(held_out)), 4),
        "tokens_per_second": round(speed),
    }


if __name__ == "__main__":
    main()
