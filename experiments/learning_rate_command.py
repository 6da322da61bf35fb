"""codelm lr-range: a run of a config whose learning rate grows, and which rate to take."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from codelm.commandline import parse_with_config
from codelm.config import Config, resolve
from codelm.errors import UserError
from codelm.model import create
from codelm.progress import Bar
from codelm.publish import check_writable, write_atomically
from data.feed import feed
from data.loader_options import LoaderOptions
from experiments import curves
from experiments.curves import Axes, Series
from experiments.learning_rate_range import Suggestion, Values, suggest, until_hopeless
from train.optimizers import optimizer
from train.state import State, new_state
from train.step import Batch, Metrics, sums_of, updated
from train.trainer import mesh_of


@dataclass(frozen=True)
class RangeOptions(LoaderOptions):
    """Train with a learning rate that grows by the same factor every step, and say which peak rate to try."""

    low: float = 1e-5
    """Rate of the first step."""
    high: float = 1.0
    """Rate of the last step; the run ends before, where its loss is twice its best."""
    steps: int = 100
    """Steps from one to the other."""
    out: Path | None = None
    """Write a page with the plot."""


def learning_rate_range(argv: list[str], prog: str) -> None:
    options = parse_with_config(RangeOptions, argv, prog)
    if not 0 < options.low < options.high < math.inf:
        raise UserError(f"--low and --high are rates, the first below the second: not {options.low}, {options.high}")
    if options.steps < 20:
        raise UserError(f"--steps must be at least 20, not {options.steps}: their losses are smoothed")
    if options.out:
        check_writable(options.out)
    config = resolve(options.config)
    rates, losses = np.geomspace(options.low, options.high, options.steps), []
    loader = options.loader()
    with mesh_of(config) as mesh, Bar("learning rates", options.steps, "steps") as bar:
        batches = feed(loader, mesh, 0, options.steps) if mesh else loader.batches(0, options.steps)
        for loss in until_hopeless(losses_at(config, rates, batches)):
            losses.append(loss)
            bar.advance(1)
    try:
        found = suggest(rates, np.array(losses))
    except UserError:
        if options.out:  # to see what there is
            write_atomically(options.out, page(config.name, rates, losses, None).encode())
        raise
    print(json.dumps(content(rates, losses, found)) if options.json else text(found, options.high))
    if options.out:
        write_atomically(options.out, page(config.name, rates, losses, found).encode())


def losses_at(config: Config, rates: Values, batches: Iterable[Batch]) -> Iterator[float]:
    """The loss of each batch, before its update with the rate of that step."""
    grown, guard = jnp.asarray(rates, jnp.float32), replace(config.train.guard, deviations=0.0)
    train = replace(config.train, learning_rate=1.0, schedule="constant", warmup_steps=0, guard=guard)
    config = replace(config, train=train)
    transform = optax.chain(optimizer(config.model, train), optax.scale_by_schedule(lambda step: grown[step]))

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        return updated(config, transform, state, sums_of(config, state.model, batch))

    state = new_state(create(config.model, config.seed), transform, guard.window)
    for batch in batches:
        state, metrics = step(state, batch)
        yield float(metrics["loss"])


def content(rates: Values, losses: list[float], found: Suggestion) -> dict[str, Any]:
    diverges = found.diverges if math.isfinite(found.diverges) else None
    told = {"rate": found.rate, "steepest": found.steepest, "diverges": diverges}
    shown = [loss if math.isfinite(loss) else None for loss in losses]
    return told | {"rates": rates[: len(losses)].tolist(), "losses": shown}


def text(found: Suggestion, high: float) -> str:
    diverges = f"{found.diverges:.2g}" if math.isfinite(found.diverges) else f"not up to {high:g}: raise --high"
    why = "a tenth of where it rises" if math.isfinite(found.diverges) else "where it falls fastest"
    return (
        f"the loss falls fastest at {found.steepest:.2g}\n"
        f"it rises again past       {diverges}\n"
        f"try --train.learning_rate {found.rate:.2g} ({why}), and its neighbours in a sweep"
    )


def page(name: str, rates: Values, losses: list[float], found: Suggestion | None) -> str:
    shown = rates[: len(losses)].tolist()
    lines, marks = [Series("each step", shown, losses, line=False, points=True, colour=6)], []
    if found:
        lines.append(Series("smoothed", shown[: len(found.smooth)], found.smooth.tolist(), colour=0))
        marks = [(found.steepest, f"steepest {found.steepest:.2g}"), (found.rate, f"try {found.rate:.2g}")]
        marks += [(found.diverges, f"rises {found.diverges:.2g}")] if math.isfinite(found.diverges) else []
    axes = Axes("Loss while the learning rate grows", "learning rate", "nats/token", log_x=True, marks=tuple(marks))
    return curves.page(f"Learning rates of {name}", [("Range test", curves.chart(lines, axes))])
