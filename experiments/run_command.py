"""`codelm run`: an experiment from its config to its report."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from codelm.caches import CACHE, keep_compiled
from codelm.commandline import ConfigOption, parse_with_config
from codelm.errors import UserError
from data import inputs
from experiments.distributed import ProcessOptions, joined


@dataclass(frozen=True)
class RunOptions(ProcessOptions):
    """Run an experiment: corpus, tokenizer, pretraining, mid-training, evaluation, report. The same command goes on
    from where the last one stopped. Any field of the config can be set by its dotted path. On several hosts it is the
    same command on each, with --distributed or an own --process."""

    config: ConfigOption
    dir: Path = inputs.RUNS
    """Folder of runs; this one is DIR/name."""
    cache: Path = CACHE
    """Folder for tokens and rows, which are made once."""
    may_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD …")] = ()
    """Fields that may differ from those that the checkpoint in the folder was trained by."""
    workers: int = 0
    """Processes that make batches; 0 = a thread."""
    platform: str = ""
    """Where to compute: cpu, gpu or tpu; empty = what JAX finds."""


def run(argv: list[str], prog: str) -> None:
    options = parse_with_config(RunOptions, argv, prog)
    from experiments import results, stages
    from experiments.run import Settings
    from experiments.run import run as run_all
    from train.signals import Stopped

    settings = Settings(options.dir, options.cache, options.may_change, options.workers)

    def advice() -> str:
        at = stages.where_to_go_on(options.config, inputs.run_folder(options.config, options.dir))
        return f"run the same command on all hosts again, it goes on from {at}"

    try:
        with joined(options, advice):
            keep_compiled(options.cache)
            find_devices(options.platform)
            folder = run_all(options.config, settings)
            if jax.process_index() == 0:
                print(results.told(folder))
                print(f"\nreport: {folder / 'report.html'}")
    except Stopped as stop:
        print(stop, file=sys.stderr)
        if stop.by == "SIGINT":
            raise KeyboardInterrupt from stop


def find_devices(platform: str) -> None:
    if platform:
        jax.config.update("jax_platforms", platform)
    try:
        jax.devices()
    except RuntimeError as error:
        asked, said = platform or jax.config.jax_platforms, str(error).splitlines()[0]
        because = f" ({said})" if len(said) <= 150 else ""
        raise UserError(f"no {asked} devices here{because}; try --platform cpu") from error
