"""How much of a GPU's peak training reaches, by size and length of rows, and which choices get there; a line of JSON.

    make install EXTRAS="cuda"
    .venv/bin/python -m experiments.bench.gpu                             # one GPU, all cases, within 9 minutes
    .venv/bin/python -m experiments.bench.gpu --cases 1.3b:8192           # one of them, with more of its choices

It has not been run on a GPU so far: only `--platform cpu --tiny` has, which a test runs.

Each case is a shipped config (configs/base_*.py) on one device, its batch in one part: random tokens, each row one
document. Tried are attention kernels, remat policies and how many logits the loss holds at a time, each with the most
tokens a step that fit. What is tried is a process of its own, so that its memory is given back and what fails in it
(out of memory, a kernel that refuses or does not compile) is told and passed over. MFU is that of training: model
FLOPs without recomputation over the published dense bfloat16 peak. `by_kind`, `by_phase` and `operations` say where the
rest went (see `codelm profile`).
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import tyro

from codelm import config_io, loss
from codelm.config import Config, MeshConfig, ModelConfig, TokenizerConfig, resolve
from experiments.profile_command import content
from train.profiling import profile
from train.trainer import mesh_of

ROOT = Path(__file__).parents[2]
CASES = ("1.3b:8192", "1.3b:2048", "400m:8192", "400m:2048", "150m:8192", "150m:2048")
TINY = ModelConfig(depth=2, width=64, heads=2, kv_heads=2, head_dim=32, mlp_width=128)
STEPS = 5
OPERATIONS = 8  # of the best choice, in the line
OUT_OF_MEMORY = "out of memory"
DETAILS = ("by_kind", "by_phase", "operations")  # told of the best choice alone
KEPT = ("seconds", "tokens_per_second", "mfu", "peak_flops", "peak", "device", "rows", "seq_len", "busy")


@dataclass(frozen=True)
class Choice:
    """How a step is computed."""

    attention: str
    remat: str
    logits: int = loss.LOGITS
    """That the loss holds at a time."""


# In the order in which they are tried: what is likely best first, for the time may not do for all.
CHOICES = (
    Choice("pallas", "matmuls"),
    Choice("xla", "matmuls"),
    Choice("pallas", "full"),
    Choice("pallas", "matmuls", 2**28),
    Choice("pallas", "none"),
)


@dataclass(frozen=True)
class Options:
    """Measure training on one GPU."""

    cases: tuple[str, ...] = CASES
    """size:length of rows."""
    attention: tuple[str, ...] = ("pallas", "xla")
    """The choices with these."""
    tokens: tuple[int, ...] = (65_536, 32_768, 16_384, 8_192)
    """In a step; the first that fits."""
    seconds: float = 540.0
    """For everything; what there was no time for is named."""
    platform: str = ""
    """cpu, gpu; empty = what JAX finds."""
    tiny: bool = False
    """A tiny model in place of each, to see that this works."""


@dataclass(frozen=True)
class Trial:
    case: str
    choice: Choice
    tokens: int
    platform: str
    tiny: bool


def main() -> None:
    options = tyro.cli(Options)
    # Read when a process first uses the GPU; this one never does.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    found: dict[str, list[dict[str, Any]]] = {case: [] for case in options.cases}
    for case, told in trials(options):
        found[case].append(told)
        print(json.dumps({"case": case} | {k: told[k] for k in told if k not in DETAILS}), file=sys.stderr, flush=True)
    print(json.dumps({"jax": jax.__version__, "cases": {case: summary(tried) for case, tried in found.items()}}))
    if not any("mfu" in told for tried in found.values() for told in tried):
        raise SystemExit("nothing could be measured: the reasons are above")


def trials(options: Options) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case with the first choice, then with the second, and so on, until the time is over."""
    end = time.monotonic() + options.seconds
    for choice in (choice for choice in CHOICES if choice.attention in options.attention):
        for case in options.cases:
            for tokens in options.tokens:
                told = asdict(choice) | {"tokens": tokens}
                if time.monotonic() > end:
                    yield case, told | {"error": "no time left"}
                    break
                told |= alone(Trial(case, choice, tokens, options.platform, options.tiny), end - time.monotonic())
                yield case, told
                if told.get("error") != OUT_OF_MEMORY:
                    break


def alone(trial: Trial, seconds: float) -> dict[str, Any]:
    """The trial in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=tried, args=(trial, theirs))
    process.start()
    theirs.close()
    try:
        told = ours.recv() if ours.poll(max(seconds, 0.0)) else {"error": "no time left"}
    except EOFError:
        process.join()
        told = {"error": f"the process ended with {process.exitcode}"}
    process.terminate()
    process.join()
    return told


def tried(trial: Trial, answer: Connection) -> None:
    try:
        answer.send(measured(trial))
    except Exception as error:  # whatever it is, the other trials go on
        said = f"{type(error).__name__}: {error}"
        short = "RESOURCE_EXHAUSTED" in said or "out of memory" in said.lower()
        answer.send({"error": OUT_OF_MEMORY if short else said.splitlines()[0][:300]})


def measured(trial: Trial) -> dict[str, Any]:
    if trial.platform:
        jax.config.update("jax_platforms", trial.platform)
    loss.LOGITS = trial.choice.logits  # this process does nothing else
    config = config_of(trial)
    with tempfile.TemporaryDirectory() as folder, mesh_of(config) as mesh:
        told = content(config, profile(config, mesh, STEPS, Path(folder)), Path(folder))
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {name: told[name] for name in (*KEPT, *DETAILS)} | {"peak_bytes": memory}


def config_of(trial: Trial) -> Config:
    """The shipped config on one device, with this choice."""
    size, length = trial.case.split(":")
    config = config_io.load(ROOT / "configs" / f"base_{size.replace('.', '_')}.py")
    if trial.tiny:
        config = replace(config, model=TINY, tokenizer=TokenizerConfig(vocab_size=512))
    seq_len = int(length) // (32 if trial.tiny else 1)
    choice: Any = {"attention": trial.choice.attention, "remat": trial.choice.remat}
    return resolve(
        replace(
            config,
            model=replace(config.model, max_seq_len=seq_len, **choice),
            data=replace(config.data, seq_len=seq_len, batch_size=max(trial.tokens // seq_len, 1)),
            train=replace(config.train, accumulate=1, batch_warmup_steps=0),
            mesh=MeshConfig(),
        )
    )


def summary(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The best choice in full, and what else there was."""
    best = max((told for told in tried if told.get("mfu")), key=lambda told: told["mfu"], default={})
    best = best | {"operations": best["operations"][:OPERATIONS]} if best else {}
    others = [{name: told[name] for name in told if name not in DETAILS} for told in tried]
    return {"best": best, "tried": others}


if __name__ == "__main__":
    main()
