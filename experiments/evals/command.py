"""`codelm eval`: a model, wherever it is, through suites."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from codelm import config_io
from codelm.caches import keep_compiled
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.sandbox import Pool
from experiments import records
from experiments.evals import catalogue, contamination, harness, places, source_files
from experiments.evals.catalogue import SUITES, Data
from experiments.evals.endpoint import Endpoint
from experiments.evals.suite import Suite
from experiments.evals.tables import table
from experiments.evals.targets import Heal, Local, Target, local

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|HF_DIR|URL")]
_URL = ("http://", "https://")


@dataclass(frozen=True)
class EvalOptions:
    """Measure a model by suites of tasks, and say how sure the figures are.

    What was measured stays in a folder for each suite: every sample as a row, and the same command goes on where it
    was interrupted. Suites are listed above; some take a file: repository:FOLDER.
    """

    model: Model
    """A run, a checkpoint, a Hugging Face folder, or http://… of a server that speaks OpenAI's completions."""
    suite: str
    """Suites, with commas between them: humaneval,infill-single."""
    k: str = "1"
    """The k of pass@k, with commas between them: 1,10."""
    n: int = 1
    """Samples of each task."""
    temperature: float = 0.0
    """0 takes the likeliest token; from two samples on it has to be more."""
    top_p: float = 1.0
    """Choose among the likeliest tokens that make up this share."""
    seed: int = 0
    max_new_tokens: int = 0
    """The most tokens of an answer; 0 = the suite's."""
    limit: int = 0
    """Only the first so many tasks of each suite; 0 = all. Figures of a part are no figures of the suite."""
    out: Path | None = None
    """Folder for the results; by default RUN/evals/STAGE-STEP, and evals/NAME for a server."""
    benchmarks: Path | None = None
    """Folder of benchmark files; by default CODELM_BENCHMARKS, else they are fetched from where they are published."""
    mode: Literal["", "psm", "spm"] = ""
    """Which comes first, prefix or suffix; empty = as the model's makers do."""
    heal: Heal = "prefix"
    """Where to take back tokens that a hole may have cut, and write them again whole."""
    format: str = ""
    """The prompt format; empty = the model's own. For a server: holes are written in it instead of sent as a suffix."""
    name: str = ""
    """For a server: the model's name there; empty = the first it has."""
    contamination: bool = False
    """Look for each suite's tasks in the run's training corpus, and give the figures with and without those found."""
    at_once: int = 16
    """Samples in the works at a time."""
    unsafe_sandbox: bool = False
    """Run what models write without bubblewrap: it can then read your files and use the network. Only in a container
    that holds nothing of value."""


def evaluate(argv: Sequence[str], prog: str) -> None:
    if {"-h", "--help"} & set(argv):
        print(_listed())
    options = parse(EvalOptions, argv, prog)
    run = None if options.model.startswith(_URL) else Path(options.model)
    data = Data(options.benchmarks, run=run)
    specs = [spec.strip() for spec in options.suite.split(",") if spec.strip()]
    if not specs:
        raise UserError(f"which suites? --suite {next(iter(SUITES))}; `{prog} --help` lists them")
    suites = {spec: catalogue.part(catalogue.make(spec, data), options.limit) for spec in specs}
    settings = harness.Settings(
        options.n,
        _numbers(options.k),
        options.temperature,
        options.top_p,
        options.max_new_tokens,
        options.seed,
        options.at_once,
    )
    for suite in suites.values():
        harness.check(suite, settings)
    with ExitStack() as stack:
        pool = None
        if any(suite.executes for suite in suites.values()):
            pool = stack.enter_context(Pool(unsafe=options.unsafe_sandbox))
            _say(f"sandbox: {'; '.join(pool.protections)}")
        target = stack.enter_context(closing(_target(options, run)))
        out = options.out or _out(run, target)
        for spec, suite in suites.items():
            folder = places.folder(out, spec, settings, options.limit, _asked_otherwise(options))
            _say(f"{suite.name}: {suite.about}; {suite.postprocessing.name}: {suite.postprocessing.about}")
            found = _contamination(suite, run) if options.contamination else None
            measured = harness.measure(suite, target, settings, folder, pool, found)
            print(table(measured))
            _say(f"{folder}")


def _numbers(given: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in given.split(",")}))
    except ValueError:
        raise UserError(f"--k takes numbers with commas between them, such as 1,10, not {given!r}") from None


def _target(options: EvalOptions, run: Path | None) -> Target:
    mode = options.mode or None
    if run is None:
        key = os.environ.get("OPENAI_API_KEY", "")
        return Endpoint(options.model, options.name, options.format, mode, key=key)
    keep_compiled()
    return local(run, mode, options.heal, options.format)


def _out(run: Path | None, target: Target) -> Path:
    if run is not None and isinstance(target, Local):
        return places.of_model(run, target.lm.source)
    return Path(places.EVALS) / str(target.identity["name"]).replace("/", "-")


def _asked_otherwise(options: EvalOptions) -> list[str]:
    """What of the prompt is not as usual, for names."""
    heal = "" if options.heal == EvalOptions.heal else f"heal-{options.heal}"
    return [part for part in (options.format, options.mode, heal) if part]


def _contamination(suite: Suite, run: Path | None) -> dict[str, Any]:
    """Of all the corpora that a run was trained on."""
    if run is None:
        raise UserError("--contamination looks through the corpus of a run; what a server was trained on is not known")
    folder = source_files.run_of(run, "a corpus to look for tasks in: leave --contamination out")
    corpora = records.corpora(folder, config_io.load(folder / records.CONFIG))
    return contamination.joined([contamination.check(suite, Path(corpus)) for corpus in corpora])


def _listed() -> str:
    width = max(map(len, SUITES)) + 2
    lines = [f"  {name:{width}}{about}" for name, (_, about) in SUITES.items()]
    return "\n".join(["suites:", "", *lines, ""])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
