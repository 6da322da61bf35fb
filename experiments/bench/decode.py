"""How fast a model reads a prompt and decodes on a CPU, next to transformers and llama.cpp; a line of JSON a size.

    codelm bench decode --torch_python PATH --llama_python PATH     # Pythons that have what follows
    codelm bench decode --sizes 20m --llama_types f32 f16 q8_0      # one size, and llama.cpp with smaller weights too
    codelm bench decode                                             # ours alone, where the peers are not installed

Batch 1, greedy, float32 weights of Llama's shape, random, the same for all: they go through our export. transformers
needs torch, transformers and safetensors; llama.cpp needs llama_cpp (`CMAKE_ARGS=-DGGML_NATIVE=ON pip install
llama-cpp-python`), gguf and safetensors. All take turns, a prompt each, so that what else the machine does slows all
alike; the first turn does not count. Nothing is drafted: random weights repeat themselves as no model does. Prefill is
the prompt's tokens over the seconds to the first new one; decode is the other new ones over the seconds they took.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from codelm import cli, huggingface_weights, model
from codelm.arithmetic import count_parameters
from codelm.commandline import parse
from codelm.config import Config, DataConfig, ModelConfig, TokenizerConfig, resolve
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model_commands import values
from experiments.bench.peers import asking, interpreter
from infer.engine import Engine
from infer.engine import Options as EngineOptions
from infer.request import Request

HERE = Path(__file__).parent
THREADS = len(os.sched_getaffinity(0))
VOCAB_SIZE = 32_000
STEPS = 16  # of ours, tokens decoded in one call
CHECKED = 16  # first new tokens, in which all that compute in float32 must agree
# The depth dial's shapes: heads of 64, grouped keys and values, tied embeddings. So every parameter is read for every
# token: what a second reads of memory is 4 bytes x parameters x tokens/s. The middle one is the preset 150m.
SHAPES = {
    "20m": ModelConfig(depth=9, width=320),
    "150m": ModelConfig(depth=14, width=896),
    "500m": ModelConfig(depth=18, width=1536),
}


@dataclass(frozen=True)
class Options:
    """Measure decoding and reading of a prompt on a CPU: batch 1, float32, random weights of Llama's shape."""

    sizes: tuple[Literal["20m", "150m", "500m"], ...] = ("20m", "150m", "500m")
    """Millions of parameters."""
    prompt_tokens: int = 128
    new_tokens: int = 64
    turns: int = 4
    """Of each, after one that does not count."""
    torch_python: str = ""
    """An interpreter with torch and transformers; empty = this one, if it has them."""
    llama_python: str = ""
    """An interpreter with llama_cpp, gguf and safetensors; empty = this one, if it has them."""
    caches: tuple[Literal["dynamic", "static", "compiled"], ...] = ("dynamic", "static")
    """Of transformers; compiled is static, its step compiled by torch."""
    llama_types: tuple[Literal["f32", "f16", "q8_0"], ...] = ("f32",)
    """Weights of llama.cpp; only f32 must give our tokens."""


class Run(NamedTuple):
    """A prompt continued."""

    tokens: list[int]
    prefill_seconds: float
    """To the first new token."""
    decode_seconds: float
    """From the first new token to the last."""


Side = Callable[[list[int], int], Run]


def decode(argv: list[str], prog: str) -> None:
    options = parse(Options, argv, prog)
    if options.prompt_tokens < 1 or options.new_tokens < CHECKED or options.turns < 1:
        raise UserError(f"--prompt_tokens and --turns must be at least 1, --new_tokens at least {CHECKED}")
    jax.config.update("jax_platforms", "cpu")
    for size in options.sizes:
        print(json.dumps({"size": size, **measured(SHAPES[size], options)}), flush=True)


def measured(shape: ModelConfig, options: Options) -> dict[str, Any]:
    config = config_of(shape, options.prompt_tokens + options.new_tokens)
    lm = LM(config, model.create(config, seed=0), None, "llama")
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, options.prompt_tokens).tolist()
    with peers(lm, options) as (theirs, about):
        engine = Engine(lm, EngineOptions(rows=1, steps=STEPS, speculate="never"))
        warm_up = engine.warm_up()
        sides = {"ours": partial(ours, engine), **theirs}
        runs: dict[str, list[Run]] = {name: [] for name in sides}
        for turn in range(options.turns + 1):
            for name, side in sides.items():
                run = side(prompt, options.new_tokens)
                runs[name] += [run] if turn else []
    return {
        **figures(runs, options),
        "warm_up_seconds": round(warm_up, 1),
        "compiled_after": engine.stats().compilations,
        "parameters": count_parameters(config).total,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "cores": THREADS,
        "load": round(os.getloadavg()[0], 1),
        "jax": jax.__version__,
        **about,
    }


def config_of(shape: ModelConfig, length: int) -> ModelConfig:
    whole = replace(shape, compute_dtype="float32", remat="none", unroll=shape.depth)
    rows = DataConfig(seq_len=length)
    return resolve(Config(model=whole, tokenizer=TokenizerConfig(vocab_size=VOCAB_SIZE), data=rows)).model


def figures(runs: dict[str, list[Run]], options: Options) -> dict[str, Any]:
    """Tokens a second, how many times theirs ours is, and whether all say the same."""
    prefill = {n: options.prompt_tokens / median(run.prefill_seconds for run in each) for n, each in runs.items()}
    decode = {n: (options.new_tokens - 1) / median(run.decode_seconds for run in each) for n, each in runs.items()}
    exact = [each for name, each in runs.items() if not name.startswith("llama.cpp") or name.endswith("f32")]
    return {
        "prefill_tokens_per_second": {name: round(rate, 1) for name, rate in prefill.items()},
        "decode_tokens_per_second": {name: round(rate, 1) for name, rate in decode.items()},
        "prefill_ratio": {name: round(prefill["ours"] / rate, 2) for name, rate in prefill.items() if name != "ours"},
        "decode_ratio": {name: round(decode["ours"] / rate, 2) for name, rate in decode.items() if name != "ours"},
        f"same_first_{CHECKED}": len({tuple(run.tokens[:CHECKED]) for each in exact for run in each}) == 1,
        "same_tokens": {name: agreeing(each[0].tokens, runs["ours"][0].tokens) for name, each in runs.items()},
    }


def agreeing(first: list[int], second: list[int]) -> int:
    """How many tokens are the same before the first that is not."""
    return next((at for at, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), len(first))


def ours(engine: Engine, prompt: list[int], new_tokens: int) -> Run:
    stream = engine.submit(Request(prompt, new_tokens, share=False))
    tokens = stream.text().ids
    return Run(tokens, stream.timing.to_first_token, stream.timing.decode)


@contextmanager
def peers(lm: LM, options: Options) -> Iterator[tuple[dict[str, Side], dict[str, Any]]]:
    """Those that are installed, with the model loaded, and what they say of themselves."""
    torch = interpreter(options.torch_python, ("torch", "transformers"), "--torch_python")
    llama = interpreter(options.llama_python, ("llama_cpp", "gguf", "safetensors"), "--llama_python")
    sides: dict[str, Side] = {}
    about: dict[str, Any] = {"torch": None, "transformers": None, "llama_cpp_python": None}
    with tempfile.TemporaryDirectory() as made, ExitStack() as open_peers:
        folder = Path(made) / "model"
        if torch or llama:
            # No token ends a text: as many come as were asked for.
            ends = {"bos_token_id": None, "eos_token_id": None}
            huggingface_weights.save_parameters(values(lm), lm.config, lm.family, folder, extra=ends)
        if torch:
            ask = open_peers.enter_context(asking(torch, HERE / "decode_torch.py"))
            about |= ask({"folder": str(folder), "threads": THREADS})
            check_size(lm, about)
            for cache in options.caches:
                sides[f"transformers {cache}"] = partial(continued, ask, {"cache": cache})
        if llama:
            for kind in options.llama_types:
                file = Path(made) / f"{kind}.gguf"
                convert(llama, folder, file, kind)
                ask = open_peers.enter_context(asking(llama, HERE / "decode_llama.py"))
                about |= ask({"file": str(file), "threads": THREADS, "context": lm.config.max_seq_len})
                check_size(lm, about)
                sides[f"llama.cpp {kind}"] = partial(continued, ask, {})
        yield sides, about


def continued(ask: Callable[[dict[str, Any]], dict[str, Any]], how: dict[str, Any], prompt: list[int], n: int) -> Run:
    return Run(**ask({"prompt": prompt, "new_tokens": n, **how}))


def convert(python: str, folder: Path, file: Path, kind: str) -> None:
    if subprocess.run([python, str(HERE / "gguf_files.py"), str(folder), str(file), kind]).returncode:
        raise UserError(f"{python} could not write a GGUF file: what it said is above")


def check_size(lm: LM, about: dict[str, Any]) -> None:
    """The same model has as many parameters there."""
    ours = count_parameters(lm.config).total
    if (theirs := about.pop("parameters")) != ours:
        raise UserError(f"not the same model: {theirs:,} parameters in the peer, {ours:,} here")


if __name__ == "__main__":
    sys.exit(cli.main(["bench", "decode", *sys.argv[1:]]))
