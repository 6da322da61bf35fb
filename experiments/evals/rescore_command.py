"""`codelm eval rescore`: the scores of a measurement anew, from what the model wrote, without the model."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from codelm.commandline import parse
from codelm.errors import UserError
from codelm.progress import Bar
from codelm.sandbox import Pool
from experiments.evals import catalogue, harness, rows, tables
from experiments.evals.catalogue import Data
from experiments.records import run_around

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


@dataclass(frozen=True)
class RescoreOptions:
    """Score again what a model wrote: after a suite's scoring has changed, or to check a result somebody else gives.

    Prints the figures as they come out now, and every sample that is scored otherwise than its row says.
    """

    folder: Folder
    """Of one measurement, such as runs/quickstart/evals/midtrain-16/humaneval."""
    suite: str = ""
    """The suite as it was asked for, where that was NAME:FILE; empty = the one that the folder names."""
    benchmarks: Path | None = None
    """Folder of benchmark files; by default CODELM_BENCHMARKS."""
    unsafe_sandbox: bool = False
    """Run what the model wrote without bubblewrap: it can then read your files and use the network."""


def rescore(argv: Sequence[str], prog: str) -> None:
    options = parse(RescoreOptions, argv, prog)
    measured = rows.load(options.folder)
    suite = catalogue.make(options.suite or measured.suite, Data(options.benchmarks, run=run_around(options.folder)))
    if suite.source != measured.header["suite"]["sha256"]:
        raise UserError(f"{options.folder} was measured on other tasks than {suite.name} has here: give the same file")
    with ExitStack() as stack:
        pool = stack.enter_context(Pool(unsafe=options.unsafe_sandbox)) if suite.executes else None
        bar = stack.enter_context(Bar(f"scoring {suite.name}", len(measured.rows), "samples"))
        anew = list(harness.rescored(suite, measured.rows, pool, lambda: bar.advance(1)))
    ks = sorted({int(name.split("@")[1]) for name in measured.result["figures"] if "@" in name}) or [1]
    overlapping = measured.header["contamination"].get("overlapping")
    result = harness.summary(anew, suite, ks, overlapping)
    print(tables.table(replace(measured, result=result)), end="")
    changed = [row for row, before in zip(anew, measured.rows, strict=True) if row != before]
    print(f"{len(changed):,} of {len(anew):,} samples are scored otherwise than their rows say")
    for row in changed[:20]:
        print(f"  {row.task} sample {row.sample}: {dict(row.scores)} {row.reason}", file=sys.stderr)
