"""How much of an accelerator's memory bandwidth decoding reaches: one request, greedy, bfloat16; a line of JSON.

    make install EXTRAS="cuda"
    .venv/bin/python -m experiments.bench.decode_gpu                     # 1.5B parameters, shaped as Qwen2.5-Coder
    .venv/bin/python -m experiments.bench.decode_gpu --tiny --steps 8    # anywhere, to see that it runs

It has not been run on a GPU so far: only `--tiny` on a CPU has, which a test runs.

A token reads every weight once (tied embeddings count once, as the head) and the keys and values of what is before it.
The share is of what a plain copy on the same device reaches, measured beside it, and of the published peak where the
device is one we know. Drafts are off: this is about one pass.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from codelm import model
from codelm.arithmetic import count_parameters
from codelm.caches import keep_compiled
from codelm.config import ModelConfig
from codelm.hardware import chip_of
from codelm.lm import LM
from infer.engine import Engine, Options
from infer.request import Request

LARGE = ModelConfig(
    depth=28,
    width=1536,
    heads=12,
    kv_heads=2,
    head_dim=128,
    mlp_width=8960,
    vocab_size=151_936,
    tied_embeddings=True,
    qkv_bias=True,
    max_seq_len=2048,
    compute_dtype="bfloat16",
    param_dtype="bfloat16",
    remat="none",
)
TINY = ModelConfig(
    depth=2, width=64, heads=2, kv_heads=1, head_dim=32, mlp_width=128, vocab_size=512, max_seq_len=256, remat="none"
)


@dataclass(frozen=True)
class BenchOptions:
    tiny: bool = False
    """A small model, to see that it runs."""
    prompt: int = 128
    new: int = 128
    steps: int = 32
    """Tokens decoded in one call to the device."""
    turns: int = 5


def main() -> None:
    options = tyro.cli(BenchOptions, description=__doc__)
    keep_compiled()
    print(json.dumps(measured(options)))


def measured(options: BenchOptions) -> dict[str, Any]:
    config = TINY if options.tiny else LARGE
    lm = LM(config, model.create(config, seed=0), None, "qwen2")
    engine = Engine(lm, Options(rows=1, context=options.prompt + options.new, steps=options.steps, speculate="never"))
    warm_up = engine.warm_up()
    ids = np.random.default_rng(0).integers(0, config.vocab_size, options.prompt).tolist()
    seconds = []
    for _ in range(options.turns + 1):
        stream = engine.submit(Request(ids, options.new, share=False))
        stream.text()
        seconds.append(stream.timing.decode / (options.new - 1))
    moved, device = read_by_a_token(config, options.prompt + options.new // 2), jax.devices()[0]
    rate = moved / median(seconds[1:])
    chip = chip_of(device.device_kind)
    copied = copy_rate(2**24 if options.tiny else 2**31)
    return {
        "bench": "decode_gpu",
        "device": device.device_kind,
        "jax": jax.__version__,
        "parameters": count_parameters(config).total,
        "tokens_per_s": round(1 / median(seconds[1:]), 1),
        "bytes_a_token": moved,
        "bytes_per_s": rate,
        "copy_bytes_per_s": copied,
        "share_of_copy": round(rate / copied, 3),
        "share_of_peak": round(rate / chip[1].bandwidth, 3) if chip else None,
        "warm_up_s": round(warm_up, 1),
        "compilations_after": engine.stats().compilations,
    }


def read_by_a_token(config: ModelConfig, length: int) -> int:
    size = jnp.dtype(config.compute_dtype).itemsize
    cache = 2 * config.depth * config.kv_heads * config.head_dim * length
    return size * (count_parameters(config).total + cache)


def copy_rate(size: int) -> float:
    """Bytes read and written a second by adding one to an array."""
    array = jnp.zeros(size // 4, jnp.float32)
    add: Callable[..., Any] = jax.jit(lambda x: x + 1)
    add(array).block_until_ready()
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        add(array).block_until_ready()
        taken.append(time.perf_counter() - began)
    return 2 * size / median(taken)


if __name__ == "__main__":
    main()
