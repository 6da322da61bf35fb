"""`codelm report`: the pages of runs, made anew."""

from dataclasses import dataclass
from pathlib import Path

from codelm.commandline import parse
from experiments import records
from experiments.compare import Runs
from experiments.report import write_report


@dataclass(frozen=True)
class ReportOptions:
    """Make RUN/report.html anew, with what has been evaluated since: a page that needs no other file and no network."""

    runs: Runs
    """Run folders, and folders of runs."""
    benchmarks: Path | None = None
    """Folder of benchmark files, to show the tasks of suites beside what was written; by default CODELM_BENCHMARKS,
    else those that an evaluation has fetched."""


def report(argv: list[str], prog: str) -> None:
    options = parse(ReportOptions, argv, prog)
    for record in records.load_all(list(options.runs)):
        print(write_report(record.folder, options.benchmarks))
