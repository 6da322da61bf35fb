"""What a keystroke costs: a file's history typed again, with a completion asked for after every key.

    .venv/bin/codelm bench keystrokes --tokenizer runs/quickstart --llama_python PATH   # beside llama.cpp, where it is
    .venv/bin/codelm bench keystrokes --tokenizer runs/quickstart --size 20m            # a smaller model

The trace is of what commits made of a file of this repository: every letter typed, every backspace, moves, pastes. The
model has random weights of that size; what it suggests is never what is typed, so every key is a call of the model, and
there is nothing to draft. One line of JSON each:

- typing: by layout (PSM, SPM), with sessions and without: tokens read for a keystroke, the median and the 95th
  percentile, milliseconds to the first token from the key on, and what a move of the cursor and its rest cost. Without
  sessions each prompt is read anew, of a few keys only. llama.cpp keeps what a prompt has in common with the one
  before, as its server does.
- mixed: completions of 20 tokens, from key to last token, while two long requests of the batch class run; in windows of
  2K and 8K tokens.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import codelm
from codelm import formats, huggingface_weights, model
from codelm.caches import keep_compiled
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.lm import LM
from codelm.model_commands import values
from experiments.bench import edit_history
from experiments.bench.decode import SHAPES, THREADS, config_of, convert
from experiments.bench.edit_history import Key
from experiments.bench.peers import Ask, asking, interpreter
from infer.engine import Engine, Options
from infer.request import Request
from infer.session import Session

HERE = Path(__file__).parent
MODES: tuple[Mode, ...] = ("psm", "spm")


@dataclass(frozen=True)
class BenchOptions:
    """Measure what a keystroke costs."""

    tokenizer: Path
    """A run, checkpoint or Hugging Face folder whose tokenizer spells the file."""
    file: str = "data/command.py"
    """Of this repository, with a history of commits."""
    size: Literal["20m", "150m", "500m"] = "150m"
    keys: int = 200
    """Keystrokes: letters typed and backspaces."""
    alone: int = 8
    """Of them, how many are also timed without sessions, and by a peer that reads everything again."""
    context: int = 4096
    mixed: tuple[int, ...] = (2048, 8192)
    """Windows in tokens, for completions beside a batch."""
    llama_python: str = ""
    """An interpreter with llama_cpp, gguf and safetensors; empty = this one, if it has them."""


class Stroke(NamedTuple):
    read: int
    seconds: float


def keystrokes(argv: Sequence[str], prog: str) -> None:
    options = parse(BenchOptions, argv, prog)
    keep_compiled()
    texts = edit_history.versions(options.file)
    lm = spelled(options, options.context)
    engine = Engine(lm, Options(rows=2, speculate="never"))
    engine.warm_up()
    for mode in MODES:
        strokes = typed(engine, texts, options, mode)
        report("typing", options, mode=mode, side="sessions", **strokes)
        anew = typed(Engine(lm, Options(rows=2, share=False, speculate="never")), texts, options, mode, anew=True)
        report("typing", options, mode=mode, side="read anew", **anew)
    if python := interpreter(options.llama_python, ("llama_cpp", "gguf", "safetensors"), "--llama_python"):
        for mode in MODES:
            report("typing", options, mode=mode, side="llama.cpp", **beside(python, lm, texts, options, mode))
    for size in options.mixed:
        report("mixed", options, window=size, **mixed(spelled(options, size), texts, options))


def report(measure: str, options: BenchOptions, **figures: Any) -> None:
    print(json.dumps({"bench": "keystrokes", "measure": measure, "size": options.size, **figures}), flush=True)


def spelled(options: BenchOptions, length: int) -> LM:
    tokenizer = codelm.load(options.tokenizer).tokenizer
    if tokenizer is None:
        raise UserError(f"{options.tokenizer} has no tokenizer")
    config = config_of(SHAPES[options.size], length)
    return LM(config, model.create(config, seed=0), tokenizer, "llama", prompt_format="codelm")


def trace(texts: Sequence[str], keys: int) -> Iterator[Key]:
    """Of the last versions, as many as there are keystrokes wanted; they begin with the text that `start` gives."""
    strokes = 0
    for old, new in itertools.pairwise(texts[start(texts, keys) :]):
        for key in edit_history.keys(old, new):
            yield key
            strokes += key.kind in ("type", "delete")
            if strokes == keys:
                return


def start(texts: Sequence[str], keys: int) -> int:
    """The latest version from which on there are so many keystrokes."""
    counts = [
        sum(key.kind in ("type", "delete") for key in edit_history.keys(a, b)) for a, b in itertools.pairwise(texts)
    ]
    later = list(itertools.accumulate(counts[::-1]))
    return max(len(counts) - 1 - next((i for i, n in enumerate(later) if n >= keys), len(later) - 1), 0)


def typed(
    engine: Engine, texts: Sequence[str], options: BenchOptions, mode: Mode, anew: bool = False
) -> dict[str, Any]:
    """With `anew`, only the first keys are timed, each by a prompt as `lm.infill` makes it."""
    session = Session(engine, texts[start(texts, options.keys)], mode=mode, anchored=not anew)
    strokes: list[Stroke] = []
    rests: list[Stroke] = []
    for key in trace(texts, options.keys):
        began = time.perf_counter()
        session.edit(key.start, key.end, key.text)
        cursor = key.start + len(key.text)
        if key.kind in ("type", "delete"):
            answer = session.complete(cursor, 1)
            answer.text()
            strokes.append(Stroke(read_by(answer.timing), answer.timing.first - began))
        elif not anew:  # the editor is idle for a moment: what is around the cursor is read meanwhile
            before = engine.stats().read_tokens
            session.rest(cursor)
            rests.append(Stroke(engine.stats().read_tokens - before, time.perf_counter() - began))
        if anew and len(strokes) == options.alone:
            break
    return {**figures(strokes), **{f"rest_{name}": value for name, value in figures(rests).items()}}


def read_by(timing: Any) -> int:
    return timing.prompt_tokens - timing.cached_tokens


def figures(strokes: Sequence[Stroke]) -> dict[str, Any]:
    if not strokes:
        return {}
    read, seconds = zip(*strokes, strict=True)
    return {
        "keys": len(strokes),
        "read_p50": float(np.percentile(read, 50)),
        "read_p95": float(np.percentile(read, 95)),
        "first_token_p50_ms": round(1e3 * float(np.percentile(seconds, 50)), 1),
        "first_token_p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 1),
    }


def beside(python: str, lm: LM, texts: Sequence[str], options: BenchOptions, mode: Mode) -> dict[str, Any]:
    """llama.cpp with the same weights and the whole file in every prompt."""
    assert lm.tokenizer is not None
    family = formats.family("codelm")
    text, strokes = texts[start(texts, options.keys)], []
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        ask = loaded(python, lm, Path(made), stack)
        for key in trace(texts, options.keys):
            text = text[: key.start] + key.text + text[key.end :]
            cursor = key.start + len(key.text)
            if key.kind not in ("type", "delete"):
                continue
            began = time.perf_counter()
            prompt = formats.fim(family, lm.tokenizer, text[:cursor], text[cursor:], mode=mode).ids
            ask({"prompt": prompt, "new_tokens": 1, "reuse": True})
            strokes.append(Stroke(0, time.perf_counter() - began))
            if mode == "psm" and len(strokes) == 3 * options.alone:  # each takes seconds
                break
    return {name: value for name, value in figures(strokes).items() if not name.startswith("read")}


def loaded(python: str, lm: LM, made: Path, stack: ExitStack) -> Ask:
    ends = {"bos_token_id": None, "eos_token_id": None}
    huggingface_weights.save_parameters(values(lm), lm.config, lm.family, made / "model", extra=ends)
    convert(python, made / "model", made / "f32.gguf", "f32")
    ask = stack.enter_context(asking(python, HERE / "decode_llama.py"))
    ask({"file": str(made / "f32.gguf"), "threads": THREADS, "context": lm.config.max_seq_len})
    return ask


def mixed(lm: LM, texts: Sequence[str], options: BenchOptions) -> dict[str, Any]:
    """From key to last token, while a batch runs; the file's versions after one another fill the window."""
    engine = Engine(lm, Options(rows=4, speculate="never"))
    engine.warm_up()
    engine.start()
    rng, length = np.random.default_rng(0), lm.config.max_seq_len

    def long() -> Any:
        ids = rng.integers(0, 4096, length // 2).tolist()
        return engine.submit(Request(ids, length // 4, priority="batch"))

    first = start(texts, options.keys)
    filled = "".join(texts)[: 3 * length]
    session, batch, seconds = Session(engine, filled + texts[first]), [long(), long()], []
    for key in itertools.islice(trace(texts, options.keys), 60):
        batch = [long() if stream.finished else stream for stream in batch]
        at = key.start + len(filled)
        began = time.perf_counter()
        session.edit(at, key.end + len(filled), key.text)
        if key.kind not in ("type", "delete"):
            session.rest(at + len(key.text))
            continue
        session.complete(at + len(key.text), 20).text()
        seconds.append(1e3 * (time.perf_counter() - began))
    for stream in batch:
        stream.cancel()
    engine.close()
    return {
        "completions": len(seconds),
        "p50_ms": round(float(np.percentile(seconds, 50)), 1),
        "p95_ms": round(float(np.percentile(seconds, 95)), 1),
    }
