"""How fast a small model trains on a CPU, next to transformers and torch in the same run; one line of JSON.

    .venv/bin/python -m experiments.bench.train_cpu --torch-python PATH     # PATH: a Python that has both of them
    .venv/bin/python -m experiments.bench.train_cpu                         # ours alone, where they are not installed

Both take turns, some steps each, and wait while it is the other's: what else the machine does slows both alike. The
first step after waiting does not count: a virtual machine gives memory back within seconds, and training never waits.
The step is the one that training runs: loss, gradient, clipping, AdamW, and in ours also the guard and the norms that
are recorded.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import tyro

from codelm.arithmetic import count_parameters, training_flops_per_token
from codelm.config import Config, DataConfig, ModelConfig, TokenizerConfig, TrainConfig, resolve
from codelm.errors import UserError
from experiments.bench.peers import asking, interpreter
from train.profiling import random_part
from train.step import make_steps
from train.trainer import fresh_state

PEER = Path(__file__).with_name("train_cpu_torch.py")


@dataclass(frozen=True)
class Options:
    """Measure training of a Llama-shaped model of 20M parameters in float32."""

    depth: int = 8
    width: int = 320
    mlp_width: int = 896
    vocab_size: int = 32_000
    batch_size: int = 8
    seq_len: int = 512
    turns: int = 4
    """Of each, after one that does not count."""
    steps: int = 4
    """Measured in a turn, after one that does not count."""
    torch_python: str = ""
    """An interpreter with torch and transformers; empty = this one, if it has them."""
    torch_compile: bool = False
    """Let torch compile its model."""


def main() -> None:
    options = tyro.cli(Options)
    jax.config.update("jax_platforms", "cpu")
    config = config_of(options)
    tokens = options.batch_size * options.seq_len
    flops = training_flops_per_token(config.model, options.seq_len)
    step, compile_seconds = ours(config)
    with peer(config, options) as (torch_step, about):
        times = measured([step] if torch_step is None else [step, torch_step], options)
    rates = [tokens / median(each) for each in times]
    speed = rates + [None] * (2 - len(rates))
    line = {
        "tokens_per_second": rounded(speed[0]),
        "torch_tokens_per_second": rounded(speed[1]),
        "ratio": rates[0] / rates[1] if len(rates) == 2 else None,
        "gflops": rounded(speed[0], flops / 1e9),
        "torch_gflops": rounded(speed[1], flops / 1e9),
        "compile_seconds": round(compile_seconds, 2),
        "parameters": count_parameters(config.model).total,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
        **about,
    }
    print(json.dumps(line))


def rounded(rate: float | None, factor: float = 1.0) -> float | None:
    return None if rate is None else round(rate * factor, 1)


def config_of(options: Options) -> Config:
    heads = options.width // 64
    model = ModelConfig(
        depth=options.depth,
        width=options.width,
        heads=heads,
        kv_heads=heads,
        head_dim=64,
        mlp_width=options.mlp_width,
        compute_dtype="float32",
        remat="none",
        unroll=options.depth,
    )
    data = DataConfig(seq_len=options.seq_len, batch_size=options.batch_size)
    tokenizer = TokenizerConfig(vocab_size=options.vocab_size)
    return resolve(Config(model=model, tokenizer=tokenizer, data=data, train=TrainConfig(warmup_steps=0)))


def measured(steps: list[Callable[[], float]], options: Options) -> list[list[float]]:
    """Seconds of the steps of each."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(options.turns + 1):
        for step, seconds in zip(steps, times, strict=True):
            taken = [step() for _ in range(options.steps + 1)]
            seconds += taken[1:] if turn else []
    return times


def ours(config: Config) -> tuple[Callable[[], float], float]:
    """Does a step and returns its seconds; and what compiling it took."""
    batch = random_part(config)
    state, whole = fresh_state(config), make_steps(config).whole
    before = time.perf_counter()
    compiled: Any = whole
    compiled = compiled.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - before

    def step() -> float:
        nonlocal state
        before = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        return time.perf_counter() - before

    return step, compile_seconds


@contextmanager
def peer(config: Config, options: Options) -> Iterator[tuple[Callable[[], float] | None, dict[str, Any]]]:
    """torch's step in a process of its own, and what it says of itself; None where torch is not installed."""
    python = interpreter(options.torch_python, ("torch", "transformers"), "--torch-python")
    if python is None:
        yield None, {"torch": None, "transformers": None}
        return
    with asking(python, PEER) as ask:
        about = ask(peer_options(config, options))
        ours = count_parameters(config.model).total
        if (theirs := about.pop("parameters")) != ours:
            raise UserError(f"not the same model: {theirs:,} parameters in torch, {ours:,} here")
        yield lambda: ask({})["seconds"], about | {"torch_compile": options.torch_compile}


def peer_options(config: Config, options: Options) -> dict[str, Any]:
    """The same model and optimizer in the words of transformers and torch."""
    model, train = config.model, config.train
    return {
        "model": {
            "hidden_size": model.width,
            "intermediate_size": model.mlp_width,
            "num_hidden_layers": model.depth,
            "num_attention_heads": model.heads,
            "num_key_value_heads": model.kv_heads,
            "head_dim": model.head_dim,
            "vocab_size": model.vocab_size,
            "max_position_embeddings": config.data.seq_len,
            "rms_norm_eps": model.norm_eps,
            "tie_word_embeddings": model.tied_embeddings,
        },
        "adamw": {
            "lr": train.learning_rate,
            "betas": (train.beta1, train.beta2),
            "eps": train.epsilon,
            "weight_decay": train.weight_decay,
        },
        "grad_clip": train.grad_clip,
        "batch_size": config.data.batch_size,
        "seq_len": config.data.seq_len,
        "compile": options.torch_compile,
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
