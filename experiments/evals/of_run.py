"""Suites over a model that is being trained, or just was: what `codelm eval` measures, without a checkpoint between."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import jax

from codelm.errors import UserError
from codelm.lm import LM
from codelm.sandbox import Pool
from experiments.evals import catalogue, harness, places, rows
from experiments.evals.catalogue import Data
from experiments.evals.targets import Local


def check(suites: Sequence[str]) -> None:
    """Refuse before training what would be refused after it."""
    for spec in suites:
        catalogue.check(spec)
    if suites and jax.process_count() > 1:
        raise UserError(
            "evaluation.suites needs all of the model in one process: leave it empty on several hosts, and measure "
            "checkpoints with `codelm eval RUN --suite …`"
        )


def measure(lm: LM, run: Path, suites: Sequence[str], most: int) -> dict[str, float]:
    """The figures of every suite, as eval/SUITE/FIGURE; what was measured stays where `codelm eval` leaves it."""
    whole = replace(lm, model=jax.device_get(lm.model)) if jax.device_count() > 1 else lm
    with ThreadPoolExecutor(1) as thread:  # in which training's mesh is not set
        return thread.submit(_measure, whole, run, suites, most).result()


def _measure(lm: LM, run: Path, suites: Sequence[str], most: int) -> dict[str, float]:
    lm = replace(lm, model=jax.device_put(lm.model, jax.devices()[0]))
    made = {spec: catalogue.part(catalogue.make(spec, Data(run=run)), most) for spec in suites}
    settings, found = harness.Settings(), {}
    executes = any(suite.executes for suite in made.values())
    with Pool() if executes else nullcontext() as pool, closing(Local(lm, run.name)) as target:
        for spec, suite in made.items():
            folder = places.folder(places.of_model(run, lm.source), spec, settings, most)
            _make_room(folder, str(target.identity["weights"]))
            figures = harness.measure(suite, target, settings, folder, pool).result["figures"]
            found |= {f"eval/{suite.name}/{name}": figure["value"] for name, figure in figures.items()}
    return found


def _make_room(folder: Path, weights: str) -> None:
    """What was measured of other weights at this step, before the run was changed, is hidden under their name."""
    if (folder / rows.HEADER).is_file():
        before = rows.read_header(folder)["model"]["weights"]
        if before != weights:
            folder.rename(folder.with_name(f".{folder.name}-{before}"))
