"""Some steps of training under JAX's profiler, and where their time went. No corpus: the batches are random tokens."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from codelm.config import Config
from data.feed import batch_sharding, rows_here, to_devices
from data.rows import Arrays
from train import traces
from train.operations import Operation, operations
from train.state import State
from train.step import Batch, make_steps, through
from train.trainer import fresh_state

WARM_UP = 2  # steps after which a step takes as long as the next


class Row(NamedTuple):
    """Operations of one kind, from one line, that do the same: those of the layers, for example."""

    operation: Operation
    names: list[str]
    """As XLA calls them, the one that took longest first."""
    seconds: float
    """A step and device; on a CPU, of all threads."""
    count: float
    """A step and device; on a CPU, by all threads."""


@dataclass(frozen=True)
class Profile:
    """See the module."""

    step_seconds: list[float]
    """Without the profiler: under it XLA launches a GPU's kernels one by one, not as a graph."""
    traced_seconds: list[float]
    """Of as many steps under it."""
    rows: list[Row]
    """Longest first."""
    places: int
    """Devices that the trace shows, or threads of a CPU."""
    on_devices: bool
    file: Path
    """The trace."""

    @property
    def seconds(self) -> float:
        """Of a step, the median."""
        return median(self.step_seconds)

    @property
    def total(self) -> float:
        """Of all rows."""
        return sum(row.seconds for row in self.rows)

    def by(self, what: str) -> dict[str, float]:
        """Seconds by a field of the operations, most first."""
        found: dict[str, float] = {}
        for row in self.rows:
            name = getattr(row.operation, what)
            found[name] = found.get(name, 0.0) + row.seconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def random_part(config: Config) -> Arrays:
    """The part of a batch that a step goes through at once; each row is one document."""
    shape = (config.data.batch_size // config.train.accumulate, config.data.seq_len)
    ids = np.random.default_rng(config.seed).integers(0, config.model.vocab_size, (shape[0], shape[1] + 1), np.int32)
    return Arrays(
        tokens=ids[:, :-1],
        targets=ids[:, 1:],
        loss_weights=np.ones(shape, np.float32),
        positions=np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape),
        segment_ids=np.zeros(shape, np.int32),
    )


def on_mesh(part: Arrays, mesh: Mesh | None) -> Batch:
    """As training feeds it."""
    if mesh is None:
        return part
    rows, length = part["tokens"].shape
    sharding = batch_sharding(mesh)
    here = rows_here(sharding, rows, length)
    local: Any = jax.tree.map(lambda array: array[here], part)
    return to_devices(local, here, rows, sharding)


class Stepper:
    """Steps of a config on random tokens, on the mesh that is set."""

    def __init__(self, config: Config, mesh: Mesh | None) -> None:
        self.config, self.functions = config, make_steps(config)
        self.compiled: dict[str, jax.stages.Compiled] = {}
        """The functions of a step that have been called, by name."""
        self.parts: Sequence[Batch] = [on_mesh(random_part(config), mesh)] * config.train.accumulate
        self.state: State = fresh_state(config)

    def step(self) -> float:
        """Seconds until its result is there."""
        began = time.perf_counter()
        self.state, metrics = through(self.config.train, self._call, self.state, self.parts)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - began

    def _call(self, name: str, *arguments: Any) -> Any:
        function = getattr(self.functions, name)
        if name not in self.compiled:
            self.compiled[name] = function.lower(*arguments).compile()
        return function(*arguments)


def profile(config: Config, mesh: Mesh | None, steps: int, folder: Path) -> Profile:
    """Of so many steps, and as many in the trace, which goes into the folder; some before them do not count."""
    stepper = Stepper(config, mesh)
    seconds = sum(stepper.step() for _ in range(WARM_UP))
    if jax.process_index() == 0:
        print(
            f"compiled and did {WARM_UP} steps in {seconds:.1f} s; {steps} more, and {steps} in the trace",
            file=sys.stderr,
            flush=True,
        )
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the frames of this loop say nothing about training
    taken = [stepper.step() for _ in range(steps)]
    traced = []
    with jax.profiler.trace(folder, profiler_options=options):
        for number in range(steps):
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                traced.append(stepper.step())
    file = traces.newest(folder)
    times = traces.read(file)
    known = dict(operations(text) for compiled in stepper.compiled.values() if (text := compiled.as_text()))
    share = steps * (times.places if times.on_devices else 1)
    return Profile(taken, traced, rows(times, known, share), times.places, times.on_devices, file)


def rows(times: traces.Times, known: dict[str, dict[str, Operation]], share: int) -> list[Row]:
    """What did the same together; `share` is what counts are divided by. Programs besides the step's go by name."""
    together: dict[Operation, list[traces.Name]] = {}
    for module, name in times.seconds:
        # Where the trace names no module, a name of a step's operation is one.
        found = [ops[name] for of, ops in known.items() if name in ops and module in ("", of)]
        operation = found[0] if found else Operation("other", "other", module or name, "")
        together.setdefault(operation, []).append((module, name))
    made = [
        Row(
            operation,
            list(dict.fromkeys(name for _, name in sorted(names, key=lambda name: -times.seconds[name]))),
            sum(times.seconds[name] for name in names) / share,
            sum(times.counts[name] for name in names) / share,
        )
        for operation, names in together.items()
    ]
    return sorted(made, key=lambda row: -row.seconds)
