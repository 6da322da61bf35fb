"""How the engine serves many at once: tokens a second, where time goes, and what a batch does to those who wait.

    .venv/bin/codelm bench serving                       # random weights of 20M parameters
    .venv/bin/codelm bench serving --run runs/quickstart # a model with a tokenizer: its stages too

Nothing is drafted: random weights repeat themselves as no model does. One line of JSON each:
- throughput: so many requests at once, each a prompt and greedy tokens; tokens a second over all of them.
- stages: of one completion at a time, the median milliseconds of each stage, from text to text.
- classes: completions at a cursor that come at random while a batch of long prompts and long answers runs, with the
  service classes and without: milliseconds to the first token and to the last, counted from arrival.
"""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

import codelm
from codelm import model
from codelm.commandline import parse
from codelm.lm import LM
from experiments.bench.decode import SHAPES, config_of
from infer.engine import Engine, Options
from infer.request import Priority, Request, Timing

LONGEST = 1536  # tokens of a batch's prompt and answer


@dataclass(frozen=True)
class BenchOptions:
    """Measure the engine under load."""

    run: str = ""
    """A run, checkpoint or Hugging Face folder; empty = random weights."""
    size: Literal["20m", "150m", "500m"] = "20m"
    """Of random weights."""
    prompt: int = 256
    """Tokens of a prompt."""
    new: int = 64
    """Tokens of an answer."""
    at_once: tuple[int, ...] = (1, 8, 32)
    arrivals: int = 60
    """Completions at a cursor that are timed beside a batch, with the classes and without."""
    every: float = 0.5
    """Seconds between them, on average."""


def serving(argv: Sequence[str], prog: str) -> None:
    options = parse(BenchOptions, argv, prog)
    lm = codelm.load(options.run, "float32") if options.run else random_model(options.size)
    for record in itertools.chain(throughput(lm, options), stages(lm, options), classes(lm, options)):
        print(json.dumps({"bench": "serving", "model": options.run or options.size, **record}), flush=True)


def random_model(size: str) -> LM:
    config = config_of(SHAPES[size], LONGEST)
    return LM(config, model.create(config, seed=0), None, "llama")


def throughput(lm: LM, options: BenchOptions) -> Iterator[dict[str, Any]]:
    for count in options.at_once:
        engine = Engine(lm, Options(rows=count, context=options.prompt + options.new, share=False, speculate="never"))
        warm = engine.warm_up()
        requests = [request(lm, options.prompt, options.new, seed) for seed in range(count)]
        began = time.perf_counter()
        written = sum(len(text.ids) for text in [s.text() for s in [engine.submit(each) for each in requests]])
        seconds = time.perf_counter() - began
        yield {
            "measure": "throughput",
            "at_once": count,
            "new_tokens_per_s": round(written / seconds, 1),
            "prompt_tokens_per_s": round(count * options.prompt / seconds, 1),
            "warm_up_s": round(warm, 1),
            "compilations_after": engine.stats().compilations,
        }


def stages(lm: LM, options: BenchOptions) -> Iterator[dict[str, Any]]:
    """Of text that ends in the middle of a file, where the model has a tokenizer."""
    if lm.tokenizer is None:
        return
    text = Path(__file__).read_text()
    engine = Engine(lm, Options(context=options.prompt + options.new, share=False, speculate="never"))
    engine.warm_up()
    found: dict[str, list[float]] = {}
    for at in range(400, 400 + 20 * 20, 20):
        began = time.perf_counter()
        ids = lm.tokenizer.encode(text[:at])[-options.prompt :]
        tokenised = time.perf_counter()
        stream = engine.submit(Request(ids, options.new))
        ids = stream.text().ids
        ended = time.perf_counter()
        lm.tokenizer.decode(ids)
        timing = stream.timing
        for stage, seconds in {
            "tokenise": tokenised - began,
            "queue": timing.queue,
            "prefill": timing.prefill,
            "decode": timing.decode,
            "detokenise": time.perf_counter() - ended,
        }.items():
            found.setdefault(stage, []).append(1e3 * seconds)
    yield {"measure": "stages", **{f"{stage}_ms": round(median(values), 3) for stage, values in found.items()}}


def classes(lm: LM, options: BenchOptions) -> Iterator[dict[str, Any]]:
    """The same arrivals with the classes and without, and by themselves."""
    for name, with_classes, batch in (("alone", True, 0), ("with", True, 6), ("without", False, 6)):
        engine = Engine(lm, Options(context=LONGEST, classes=with_classes, share=False, speculate="never"))
        engine.warm_up()
        engine.start()
        began = time.perf_counter()
        timings = beside_a_batch(engine, options, batch)
        seconds = time.perf_counter() - began
        engine.close()
        first, last = ([1e3 * value for value in values] for values in zip(*map(waits, timings), strict=True))
        yield {
            "measure": "classes",
            "classes": name,
            "batch": batch,
            "first_token_p50_ms": round(float(np.percentile(first, 50)), 1),
            "first_token_p95_ms": round(float(np.percentile(first, 95)), 1),
            "last_token_p50_ms": round(float(np.percentile(last, 50)), 1),
            "last_token_p95_ms": round(float(np.percentile(last, 95)), 1),
            "all_tokens_per_s": round(engine.stats().new_tokens / seconds, 1),
        }


def waits(timing: Timing) -> tuple[float, float]:
    return timing.to_first_token, timing.finished - timing.arrived


def beside_a_batch(engine: Engine, options: BenchOptions, batch: int) -> list[Timing]:
    """Timings of completions of 20 tokens; the batch always has so many long requests in hand."""
    rng = np.random.default_rng(0)
    seeds = itertools.count(10**6)
    long = [engine.submit(request(engine.lm, 1024, 512, next(seeds), "batch")) for _ in range(batch)]
    streams = []
    for seed in range(options.arrivals):
        time.sleep(float(rng.exponential(options.every)))
        long = [
            engine.submit(request(engine.lm, 1024, 512, next(seeds), "batch")) if stream.finished else stream
            for stream in long
        ]
        streams.append(engine.submit(request(engine.lm, options.prompt, 20, seed)))
    for stream in streams:
        stream.text()
    for stream in long:
        stream.cancel()
    return [stream.timing for stream in streams]


def request(lm: LM, prompt: int, new: int, seed: int, priority: Priority = "interactive") -> Request:
    ids = np.random.default_rng(seed).integers(0, lm.config.vocab_size, prompt).tolist()
    return Request(ids, new, priority=priority)
