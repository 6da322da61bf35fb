"""How often documents get a hole, and how they are then written: {0, .5, .9} of them × PSM, SPM or both.

    codelm sweep experiments/ablations/fim_rate.py --dir runs/fim_rate
    python -m experiments.ablations.fim_rate runs/fim_rate > experiments/ablations/fim_rate.md

Without holes there is nothing to write one way or the other, so the three cells of rate 0 are one config; it is run
with three seeds instead, which shows what a seed alone changes. The second command measures every run on the same
held-out files: bits per byte from left to right, and nats for each token of a middle, written prefix first and suffix
first. Its table, and what it does and does not show, is in fim_rate.md.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codelm import formats
from codelm import lm as models
from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.formats import Role
from codelm.lm import LM
from data import spans
from data.spans import NoSpan
from experiments import records
from experiments.evals import compare, likelihood, source_files, statistics
from experiments.evals.catalogue import Data
from experiments.evals.rows import Row
from experiments.evals.statistics import Parts
from experiments.evals.suite import Metric
from experiments.evals.targets import Local, token_nats
from experiments.sweeps import Sweep, chain, over, product

HOLES = 400
FILES = 60  # whose bits are counted
LONGEST = 224  # tokens of a document with its hole: within the rows that were trained on
_MODES: tuple[Mode, ...] = ("psm", "spm")
_METRICS: Mapping[str, Metric] = {"bits_per_byte": "bits", "psm": "bits", "spm": "bits"}
_BASELINE = "quickstart-rate=0.5-spm=0.5"


def sweep() -> Sweep:
    without = product(over("data.fim.rate", 0.0), over("seed", 0, 1, 2))
    with_holes = product(over("data.fim.rate", 0.5, 0.9), over("data.fim.spm", 0.0, 1.0, 0.5))
    return Sweep("configs/quickstart.py", chain(without, with_holes))


@dataclass(frozen=True)
class Hole:
    prefix: str
    middle: str
    suffix: str


def holes(run: Path) -> list[Hole]:
    """Between two random characters of a piece of a held-out file, as the runs were trained; the same every time."""
    rng, found = np.random.default_rng(0xAB1A), []
    files = source_files.files(Data(run=run), "middles")
    while len(found) < HOLES:
        text = files[int(rng.integers(len(files)))].text
        start = int(rng.integers(max(len(text) - 2 * LONGEST, 1)))
        piece = text[start : start + 2 * LONGEST]
        span = spans.characters(piece, rng)
        if not isinstance(span, NoSpan) and piece[slice(*span)].strip():
            first, last = span
            found.append(Hole(piece[:first], piece[first:last], piece[last:]))
    return found


def measured(lm: LM, run: Path, found: Sequence[Hole]) -> dict[str, Parts]:
    """Of one run, by figure."""
    return statistics.parts([*_of_middles(lm, found), *_of_files(lm, run)], _METRICS, ())


def _of_middles(lm: LM, found: Sequence[Hole]) -> Iterator[Row]:
    assert lm.tokenizer is not None
    family = formats.family(lm.prompt_format)
    for number, hole in enumerate(found):
        for mode in _MODES:
            document = formats.fim(family, lm.tokenizer, hole.prefix, hole.suffix, hole.middle, mode=mode)
            middle = np.equal(document.roles, Role.MIDDLE)[1:]
            nats = token_nats(lm.model, document.ids)[middle]
            # "bytes" is what a mean is weighted by: here tokens.
            yield Row(f"{number}", 0, 0, [], "", {mode: float(nats.mean()), "bytes": float(len(nats))})


def _of_files(lm: LM, run: Path) -> Iterator[Row]:
    with closing(Local(lm, run.name)) as target:
        for task in likelihood.bits_per_byte(Data(run=run)).tasks[:FILES]:
            losses = target.losses(task.prompt.prefix)
            size = losses.ends[-1] - losses.begin
            bits = float(losses.nats.sum(dtype=np.float64)) / math.log(2)
            yield Row(task.id, 0, 0, [], "", {"bits_per_byte": bits / size, "bytes": float(size)})


def table(found: Mapping[str, Mapping[str, Parts]]) -> str:
    """In Markdown: every figure with its interval, and the difference from the baseline with its p-value."""
    names = list(_METRICS)
    lines = [
        "| run | " + " | ".join(f"{name} | Δ (p)" for name in names) + " |",
        "| --- |" + " --- | --- |" * len(names),
    ]
    for run, figures in found.items():
        cells = []
        for name in names:
            figure = statistics.figure(figures[name])
            cells.append(f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]")
            if run == _BASELINE:
                cells.append("–")
                continue
            change = compare.difference(found[_BASELINE][name], figures[name], lower_is_better=True)
            cells.append(f"{change.value:+.3f} ({change.p:.2g})")
        lines.append(f"| {run.removeprefix('quickstart-')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(folder: Path) -> None:
    runs = [record.folder for record in records.load_all([folder]) if record.result]
    if folder / _BASELINE not in runs:
        raise UserError(f"{folder} lacks a finished {_BASELINE}: codelm sweep {__file__} --dir {folder} first")
    asked, found = holes(folder / _BASELINE), {}
    for run in runs:
        print(run.name, file=sys.stderr, flush=True)
        found[run.name] = measured(models.load(run), folder / _BASELINE, asked)
    print(table(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
