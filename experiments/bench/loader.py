"""How fast rows are made, and whether training ever waits for them.

    .venv/bin/python -m experiments.bench.loader                     # tokens/s of one core, by chooser; the stall
    .venv/bin/python -m experiments.bench.loader --seq-len 8192

What is expected: re-encoding the parts of a document with a hole is most of the work, and SentencePiece encodes about
1M tokens/s; rows without holes are copied, which is an order of magnitude faster.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from codelm import config_io
from codelm.caches import CACHE
from codelm.config import Config, resolve
from codelm.data_config import FimConfig, SpansConfig
from data import inputs
from data.loader import Loader, make
from train.step import make_steps
from train.trainer import fresh_state

NEEDED = 500_000  # tokens/s: about what a 150M model takes on one H100
CORES = 16  # beside it


@dataclass(frozen=True)
class Options:
    """Measure the loader on the corpus of a config."""

    config: Path = Path("configs/quickstart.py")
    seq_len: int = 2048
    seconds: float = 3.0
    """For each figure."""
    steps: int = 12
    """Of training, for the stall; at the config's own row length."""
    dir: Path = inputs.RUNS
    cache: Path = CACHE


def main() -> None:
    options = tyro.cli(Options)
    config = resolve(config_io.load(options.config))
    corpus = inputs.own_corpus(config, options.dir)
    tokenizer = inputs.tokenizer(config, corpus, options.dir)

    def loader(**data: Any) -> Loader:
        changed = replace(config, data=replace(config.data, **data))
        return make(changed, str(corpus.folder), tokenizer, cache=options.cache)

    table = Table("holes", "tokens/s of one core", "rows waste", f"cores for {NEEDED:,} tokens/s", box=None)
    for name, fim in _kinds():
        made = loader(seq_len=options.seq_len, batch_size=16, fim=fim)
        rate, waste = throughput(made, options.seconds)
        table.add_row(name, f"{rate:,.0f}", f"{waste:.2%}", f"{NEEDED / rate:.2f} of {CORES}")
    Console().print(table)
    for workers in (0, 1, 2):
        rate = piped(loader(seq_len=options.seq_len, batch_size=16), workers, options.seconds)
        print(f"through batches(workers={workers}): {rate:,.0f} tokens/s")
    wait, spent = stall(config, loader(), options.steps)
    print(f"training {config.name} here waits {wait:.2%} of {spent:.1f} s for batches made ahead by a thread")


def _kinds() -> Iterator[tuple[str, FimConfig]]:
    yield "none", FimConfig(rate=0.0)
    yield "characters, rate 0.5", FimConfig(rate=0.5)
    for name in asdict(SpansConfig()):
        spans = SpansConfig(**{**asdict(SpansConfig(characters=0.0)), name: 1.0})
        yield f"{name}, rate 1", FimConfig(rate=1.0, spans=spans)


def throughput(loader: Loader, seconds: float) -> tuple[float, float]:
    """Tokens a second in this process, the median over batches, and the share of positions that hold nothing."""
    loader.batch(0)
    times, empty, step, start = [], [], 1, time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        batch = loader.batch(step)
        times.append(time.perf_counter() - before)
        empty.append(float((batch["segment_ids"] < 0).mean()))
        step += 1
    return loader.batch_size * loader.seq_len / median(times), sum(empty) / len(empty)


def piped(loader: Loader, workers: int, seconds: float) -> float:
    """Tokens a second out of the iterator that training uses, after its first batches."""
    batches = loader.batches(workers=workers)
    for _ in range(2 * workers + 2):
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    rate = count * loader.batch_size * loader.seq_len / (time.perf_counter() - start)
    batches.close()
    return rate


def stall(config: Config, loader: Loader, steps: int) -> tuple[float, float]:
    """Share of a real training loop that is spent waiting for its next batch, and how long the loop was."""
    state, step = fresh_state(config), make_steps(config).whole
    waited = total = 0.0
    for number, batch in enumerate(_timed(loader.batches(0, steps + 1))):
        before = time.perf_counter()
        state, metrics = step(state, batch[0])
        metrics["loss"].block_until_ready()
        if number:  # the first compiles
            waited, total = waited + batch[1], total + batch[1] + time.perf_counter() - before
    return waited / total, total


def _timed(batches: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Each batch, and how long it was waited for."""
    while True:
        before = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - before


if __name__ == "__main__":
    main()
