"""What token healing is worth: random spans of held-out files filled with and without it; one line of JSON each.

    .venv/bin/python -m experiments.bench.healing runs/quickstart --spans 500

A span begins and ends between any two characters, which is where an editor's cursor stands, and where tokens that were
cut at the cursor are unlike any the model was trained on. The middle is at most `longest` characters; the model writes
the likeliest tokens and has to stop by itself. A session's prefix-first prompt has what is before the cursor in its
line in the middle, behind the suffix: "session" says what that does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import numpy as np
import tyro

import codelm
from codelm.format_table import Mode
from codelm.lm import LM
from data import dataset
from infer.completing import engine_of
from infer.prompts import family_of
from infer.request import Finish
from infer.session import Session
from train.held_out import SPLIT
from train.infilling import similarity

HEALED = ("", "prefix", "both")


@dataclass(frozen=True)
class Options:
    """Fill random spans of a run's held-out files with and without token healing."""

    run: Annotated[Path, tyro.conf.Positional]
    spans: int = 300
    longest: int = 40
    """Characters of a middle."""
    around: int = 600
    """Characters of the file on either side."""
    seed: int = 0


def main() -> None:
    options = tyro.cli(Options)
    lm = codelm.load(options.run)
    spans = choose(options)
    for mode in family_of(lm).fim:
        for heal in HEALED if mode == "spm" else (*HEALED, "session"):
            filled = fill(lm, spans, options.longest, mode, heal)
            pairs = [(text, middle) for (text, _), (_, middle, _) in zip(filled, spans, strict=True)]
            figures = {
                "exact": mean(text == middle for text, middle in pairs),
                "begins_right": mean(text[:1] == middle[:1] for text, middle in pairs),
                "similarity": mean(similarity(text, middle) for text, middle in pairs),
                "stopped": mean(finish == "stop" for _, finish in filled),
            }
            said = {name: round(value, 4) for name, value in figures.items()}
            print(json.dumps({"bench": "healing", "mode": mode, "heal": heal or "none", "spans": len(spans), **said}))


def fill(
    lm: LM, spans: Sequence[tuple[str, str, str]], longest: int, mode: Mode, heal: str
) -> list[tuple[str, Finish | None]]:
    """What is written for each, and why it ends."""
    if heal == "session":
        answers = [Session(engine_of(lm), a + b, mode=mode).complete(len(a), longest) for a, _, b in spans]
        return [(answer.text(), answer.finish) for answer in answers]
    filled = lm.infill([a for a, _, _ in spans], [b for _, _, b in spans], longest, mode=mode, heal=heal)
    return [(each.text, each.finish) for each in filled]


def choose(options: Options) -> list[tuple[str, str, str]]:
    """Prefix, middle and suffix of spans in held-out files, each as likely as any other."""
    rows = dataset.load(options.run / "corpus").split(SPLIT)
    rng = np.random.default_rng(options.seed)
    spans = []
    while len(spans) < options.spans:
        text = dataset.document_of(rows[int(rng.integers(len(rows)))]).text
        if len(text) < 2 * options.longest:
            continue
        start = int(rng.integers(1, len(text) - options.longest))
        end = start + int(rng.integers(1, options.longest + 1))
        spans.append((text[max(start - options.around, 0) : start], text[start:end], text[end : end + options.around]))
    return spans


if __name__ == "__main__":
    main()
