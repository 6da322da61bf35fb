"""What drafts save: tokens for each pass through the weights, and time next to decoding without them.

    .venv/bin/codelm bench speculation --tokenizer runs/quickstart            # 150M parameters
    .venv/bin/codelm bench speculation --tokenizer runs/quickstart --size 20m

Batch 1, greedy, float32. What is written is real: how files of this repository go on, and what commits made of regions
of them; the model is one of that size that computes everything and then writes that text (see `scripted`), so that
drafts are as often right as for a model that writes what the authors wrote. One line of JSON for each kind of draft:

- continuation: a file goes on after its first tokens; drafts come from looking back in it, and in three others of its
  folder.
- edits: a region is written anew; drafts come from the region as it was.
- draft model: a file goes on; a model of 20M parameters drafts, and has as many tokens right as it is told to: that is
  assumed, not measured.
- noise: tokens at random, in which nothing repeats. What drafting costs where it is no use.

The ratio is of seconds from the first token to the last, without drafts over with, the median over texts, which take
turns; and over all texts together.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

import codelm
from codelm import model
from codelm.caches import keep_compiled
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.lm import LM
from codelm.tokenizer import Tokenizer
from experiments.bench import edit_history
from experiments.bench.decode import SHAPES, config_of
from experiments.bench.scripted import scripted, write
from infer.engine import Engine, Options
from infer.request import Drafts, Request

PROMPT = 1024  # tokens
OPEN = 3  # other files to look for drafts in


@dataclass(frozen=True)
class BenchOptions:
    """Measure what drafts save."""

    tokenizer: Path
    """A run, checkpoint or Hugging Face folder whose tokenizer spells the texts."""
    size: Literal["20m", "150m", "500m"] = "150m"
    texts: int = 16
    """Of each kind."""
    new: int = 192
    """Tokens of a text at most."""
    agreement: float = 0.7
    """Share of its tokens that the draft model has right."""


class Text(NamedTuple):
    prompt: list[int]
    ids: list[int]
    """What is written."""
    drafts: Drafts


def speculation(argv: Sequence[str], prog: str) -> None:
    options = parse(BenchOptions, argv, prog)
    tokenizer = codelm.load(options.tokenizer).tokenizer
    if tokenizer is None:
        raise UserError(f"{options.tokenizer} has no tokenizer")
    keep_compiled()
    rng = np.random.default_rng(0)
    kinds = {
        "continuation": continuations(tokenizer, options),
        "edits": edited(tokenizer, options),
        "noise": [noise(rng, options) for _ in range(options.texts)],
    }
    engine = engine_of(options.size)
    for kind, texts in kinds.items():
        print(json.dumps({"bench": "speculation", "kind": kind, **measured(engine, texts, options)}), flush=True)
    engine = engine_of(options.size, draft=True)
    texts = [text._replace(drafts=Drafts()) for text in kinds["continuation"]]
    record = {"agreement": options.agreement, **measured(engine, texts, options, options.agreement)}
    print(json.dumps({"bench": "speculation", "kind": "draft model", **record}), flush=True)


def engine_of(size: str, draft: bool = False) -> Engine:
    def of(size: str) -> LM:
        config = config_of(SHAPES[size], 2 * PROMPT)
        return scripted(LM(config, model.create(config, seed=0), None, "llama"))

    engine = Engine(of(size), Options(rows=1), draft=of("20m") if draft else None)
    engine.warm_up()
    return engine


def continuations(tokenizer: Tokenizer, options: BenchOptions) -> list[Text]:
    """Of the largest files, those that a developer is likeliest to be in, with others of the folder open."""
    sizes = {name: (edit_history.ROOT / name).stat().st_size for name in edit_history.files()}
    names = sorted(sizes, key=lambda name: -sizes[name])

    def ids(name: str) -> list[int]:
        return tokenizer.encode((edit_history.ROOT / name).read_text())

    texts = []
    for name in names[: options.texts]:
        beside = [other for other in names if Path(other).parent == Path(name).parent and other != name][:OPEN]
        whole = ids(name)
        drafts = Drafts([ids(other) for other in beside])
        texts.append(Text(whole[:PROMPT], whole[PROMPT : PROMPT + options.new], drafts))
    return texts


def edited(tokenizer: Tokenizer, options: BenchOptions) -> list[Text]:
    """One edit of a file at most, so that they are of many."""
    found = []
    for name in edit_history.files():
        for edit in edit_history.edits(name):
            new, old = tokenizer.encode(edit.new), tokenizer.encode(edit.old)
            if 48 <= len(new) <= options.new and len(old) >= 48 and edit.before:
                prompt = tokenizer.encode(edit.before)[-PROMPT // 2 :]
                found.append(Text(prompt, new, Drafts(expected=old)))
                break
        if len(found) == options.texts:
            break
    return found


def noise(rng: np.random.Generator, options: BenchOptions) -> Text:
    ids = rng.integers(0, 4096, PROMPT + options.new).tolist()
    return Text(ids[:PROMPT], ids[PROMPT:], Drafts())


def measured(engine: Engine, texts: Sequence[Text], options: BenchOptions, agreement: float = 1.0) -> dict[str, Any]:
    ratios, passes, plain_seconds, seconds = [], 0, 0.0, 0.0
    rng = np.random.default_rng(1)
    before = engine.stats()
    for text in [texts[0], *texts]:  # the first does not count
        write(engine.device, text.prompt, text.ids)
        if engine.drafter:
            wrong = rng.random(len(text.ids)) > agreement
            drafted = [1 if off else token for off, token in zip(wrong, text.ids, strict=True)]
            write(engine.drafter.device, text.prompt, drafted)
        plain, _ = run(engine, text._replace(drafts=None))  # type: ignore[arg-type]
        with_drafts, taken = run(engine, text)
        ratios.append(plain / with_drafts)
        passes, plain_seconds, seconds = passes + taken, plain_seconds + plain, seconds + with_drafts
    after = engine.stats()
    return {
        "size": options.size,
        "texts": len(texts),
        "tokens": sum(len(text.ids) for text in texts),
        "tokens_per_pass": round(sum(len(text.ids) - 1 for text in [texts[0], *texts]) / passes, 2),
        "ratio_median": round(median(ratios[1:]), 2),
        "ratio_least": round(min(ratios[1:]), 2),
        "ratio_of_all": round(plain_seconds / seconds, 2),
        "plain_tokens_per_s": round(sum(len(text.ids) - 1 for text in [texts[0], *texts]) / plain_seconds, 1),
        "accepted_by_position": list(shares(before.drafted, after.drafted, before.accepted, after.accepted)),
    }


def shares(*counts: Sequence[int]) -> Iterator[float]:
    for drafted, drafted_after, accepted, accepted_after in zip(*counts, strict=True):
        if drafted_after > drafted:
            yield round((accepted_after - accepted) / (drafted_after - drafted), 2)


def run(engine: Engine, text: Text) -> tuple[float, int]:
    """Seconds from the first token to the last, and passes."""
    before = engine.stats().passes
    stream = engine.submit(Request(text.prompt, len(text.ids), drafts=text.drafts, share=False))
    if (ids := stream.text().ids) != text.ids:
        raise RuntimeError(f"not the script: {ids[:20]} instead of {text.ids[:20]}")
    return stream.timing.decode, engine.stats().passes - before
