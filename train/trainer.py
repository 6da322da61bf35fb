"""One stage of training, from its first step or its newest checkpoint to its last step.

What a step does is `train.step`; here is what surrounds it: batches, records, evaluation, checkpoints, and going on
after whatever stopped the last process.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from codelm.arithmetic import training_flops_per_token
from codelm.checkpoint import folder_of_stages, located
from codelm.config import Config, mesh_shape
from codelm.errors import UserError
from codelm.hardware import peak_flops
from codelm.model import Transformer, create
from codelm.processes import of_first
from data.feed import feed
from data.loader import Loader
from train import checkpoints, schedules, stragglers
from train.checkpoints import Checkpoints
from train.clock import Clock, goodput
from train.console import Console
from train.guard import new_guard
from train.mesh import mesh_on
from train.optimizers import optimizer
from train.records import Records
from train.signals import Stop, Stopped, listening
from train.state import State, new_state
from train.step import Batch, Metrics, make_steps, through


@dataclass(frozen=True)
class Job:
    """A stage to train."""

    stage: str
    config: Config
    """As it is during this stage, resolved."""
    run: Path
    inputs: Mapping[str, str]
    """Digests of what it is trained on."""
    start: epath.Path | None = None
    """The checkpoint it begins from; None = new parameters."""
    start_may_change: Sequence[str] = ()
    """Fields in which that may differ."""
    counts_on: bool = False
    """Whether steps count on from those of the checkpoint it begins from."""
    steps_before: int = 0
    """Of earlier stages: curves go on."""
    may_change: Sequence[str] = ()
    """Fields in which its own checkpoints may differ."""
    workers: int = 0
    """Processes that make batches; 0 = a thread."""

    @property
    def checkpoints(self) -> str:
        config = self.config
        return str(folder_of_stages(located(self.run), config.name, config.checkpoint.folder) / self.stage)


@dataclass(frozen=True)
class Evaluation:
    """Something measured every so many steps; 0 = not while it trains."""

    every: int
    measure: Callable[[Transformer, int], dict[str, float]]
    """Of the model after a step."""


@contextlib.contextmanager
def mesh_of(config: Config) -> Iterator[Mesh | None]:
    """The config's mesh, set; None on a single device, where splitting is only overhead."""
    shape = mesh_shape(config, jax.device_count())
    if jax.device_count() == 1:
        yield None
        return
    with mesh_on(shape, jax.devices()) as mesh:
        yield mesh


def fresh_state(config: Config) -> State:
    transform = optimizer(config.model, config.train)
    return new_state(create(config.model, config.seed), transform, config.train.guard.window)


def like_state(config: Config) -> State:
    """What a state is made of, and where it goes on the mesh that is set, without its arrays."""
    mesh, alone = jax.sharding.get_mesh(), SingleDeviceSharding(jax.devices()[0])

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        split = x.sharding.spec if isinstance(x.sharding, NamedSharding) else PartitionSpec()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=alone if mesh.empty else NamedSharding(mesh, split))

    return jax.tree.map(placed, jax.eval_shape(lambda: fresh_state(config)))


def begun(job: Job) -> State:
    """The state before the stage's first step."""
    if job.start is None:
        return fresh_state(job.config)
    loaded = checkpoints.load(job.start, like_state(job.config), job.config, job.inputs, job.start_may_change)
    if job.counts_on:
        return loaded
    return loaded._replace(step=jnp.zeros((), jnp.int32), guard=new_guard(job.config.train.guard.window))


def part_loader_config(config: Config) -> Config:
    """What the loader of a stage is made of: its batches are the parts that a step goes through."""
    data, train = config.data, config.train
    # A mixture that changes at a step changes at that step's first part.
    boundaries = tuple(schedules.parts_before(train, step) for step in data.boundaries)
    data = replace(data, batch_size=data.batch_size // train.accumulate, boundaries=boundaries)
    return replace(config, data=data, train=replace(train, accumulate=1, batch_warmup_steps=0))


class Trainer:
    """Trains a stage. `loader` gives parts of batches (`part_loader_config`)."""

    def __init__(
        self,
        job: Job,
        loader: Loader,
        records: Records,
        clock: Clock,
        held_out: Evaluation | None = None,
        others: Sequence[Evaluation] = (),
    ) -> None:
        self.job, self.config, self.loader, self.records, self.clock = job, job.config, loader, records, clock
        self.held_out, self.others = held_out, others
        self.steps = make_steps(job.config)
        self._waiting: tuple[int, Metrics] | None = None
        self._speaks = jax.process_index() == 0
        self._peak = peak_flops(jax.devices()[0])[0] * (jax.device_count() if jax.devices()[0].platform != "cpu" else 1)
        self._mark = (0, 0.0)  # tokens and productive seconds at the last line
        self._first = 0
        self._timed: set[str] = set()
        self._busy = 0.0  # seconds of this host's own work since the last line
        self._measures_before = False

    def run(self, mesh: Mesh | None) -> State:
        with contextlib.closing(Checkpoints(self.job.checkpoints, self.config, self.job.inputs)) as saved:
            self.saved = saved
            with self.clock.of("restart"):
                state = self._restored()
            self._first = int(state.step)
            if self._first >= self.config.train.steps:
                return state
            track = self.config.track.every
            self.console = Console(self.job.stage, self._first, self.config.train.steps, track, self._speaks)
            with contextlib.closing(self.console), listening() as stop, self.clock.of("productive"):
                state = self._loop(state, mesh, stop)
            with self.clock.of("checkpoint"):
                self.saved.finish()
            self._tell_failures()
            if of_first(lambda: self.saved.steps)[-1:] != [self.config.train.steps]:
                raise UserError(f"the last state could not be saved; {self.saved.last_good()}: run the command again")
        return state

    def _restored(self) -> State:
        """Where the last process got to, or the beginning."""
        there = of_first(lambda: self.saved.steps)
        found = self.saved.restore(like_state(self.config), self.job.may_change) if there else None
        for told in self.saved.damaged:
            self.records.event("damaged", stage=self.job.stage, what=told)
        state = begun(self.job) if found is None else found
        self._tell_beginning(int(state.step), found is not None)
        # A stage on other rows: what it makes better is told by how its beginning does on them.
        self._measures_before = found is None and self.job.start is not None and not self.job.counts_on
        lost = self.records.forget(self.job.stage, int(state.step) - self._measures_before)
        seconds = sum(line.get("speed", {}).get("seconds", 0.0) for line in lost)
        if found is not None:
            self.records.event("resumed", stage=self.job.stage, step=int(state.step), lost_seconds=seconds)
        return state

    def _tell_beginning(self, step: int, resumed: bool) -> None:
        if not self._speaks:
            return
        if resumed:
            print(f"{self.job.stage}: going on from step {step:,}", file=sys.stderr)
        elif self.job.start is not None:
            start = str(self.job.start)
            shown = start if "://" in start else os.path.relpath(start)
            print(f"{self.job.stage}: begins from {shown}", file=sys.stderr)

    def _loop(self, state: State, mesh: Mesh | None, stop: Stop) -> State:
        config, steps = self.config, self.config.train.steps
        self._mark = (self._tokens(self._first), self.clock.spent()["productive"])
        if self._measures_before and self.held_out is not None:
            self._measure([self.held_out], state, 0)
        batches = self._batches(mesh, self._first)
        with contextlib.closing(batches):
            for step in range(self._first + 1, steps + 1):
                state, metrics = self._step(state, batches, step)
                self._settle()
                self._waiting = (step, metrics)
                asked = stop.asked()
                last = step == steps
                loss = self._evaluate(state, step, last)
                if asked or last or step % config.checkpoint.every == 0:
                    self._save(state, step, loss)
                if asked and not last:
                    self._leave(step, stop)
            self._settle()
        return state

    def _batches(self, mesh: Mesh | None, first: int) -> Generator[Batch]:
        train = self.config.train
        start, end = schedules.parts_before(train, first), schedules.parts_before(train, train.steps)
        if mesh is None:
            return self.loader.batches(start, end, workers=self.job.workers)
        return feed(self.loader, mesh, start, end, workers=self.job.workers)

    def _step(self, state: State, batches: Iterator[Batch], step: int) -> tuple[State, Metrics]:
        began = time.monotonic()
        with self.clock.of("data"):
            parts = [next(batches) for _ in range(schedules.parts(self.config.train, step - 1))]
        state, metrics = through(self.config.train, self._call, state, parts)
        self._busy += time.monotonic() - began
        return state, metrics

    def _call(self, name: str, *arguments: Any) -> Any:
        """A function of `Steps`; its first call tells what it takes until there is a result, by part."""
        function, seconds = getattr(self.steps, name), {}
        if name in self._timed:
            return function(*arguments)
        self._timed.add(name)
        with self.clock.of("compile"):
            marks = [time.monotonic()]
            traced = function.trace(*arguments)
            marks.append(time.monotonic())
            lowered = traced.lower()
            marks.append(time.monotonic())
            lowered.compile()
            marks.append(time.monotonic())
        result = jax.block_until_ready(function(*arguments))
        marks.append(time.monotonic())
        for part, before, after in zip(("trace", "lower", "compile", "first"), marks, marks[1:], strict=False):
            seconds[part] = round(after - before, 3)
        self.records.event("compiled", stage=self.job.stage, function=name, seconds=seconds)
        told = ", ".join(f"{part} {value:.1f} s" for part, value in seconds.items())
        self.console.say(f"{self.job.stage}  {name} step: {told}")
        return result

    def _settle(self) -> None:
        """Read the metrics of the step before the one that is computed now, and act on them."""
        if self._waiting is None:
            return
        (step, metrics), self._waiting = self._waiting, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if values["skipped_in_a_row"]:
            self._tell_skipped(step, values)
        every, steps = self.config.track.every, self.config.train.steps
        if step % every == 0 or step in (1, steps):
            self._record(step, values)

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        tokens = self._tokens(step)
        speed = self._speed(tokens)
        line = {"tokens": tokens, **values, "speed": speed}
        self.records.metrics(self.job.stage, step, self.job.steps_before + step, line)
        self.console.step(step, values, speed)
        slow = stragglers.slowest(self._busy)
        self._busy = 0.0
        if slow is not None:
            self.console.say(f"{self.job.stage}  step {step}: {slow}")
            self.records.event("straggler", stage=self.job.stage, step=step, what=slow)

    def _tokens(self, step: int) -> int:
        """That the stage has been trained on after a step."""
        return schedules.parts_before(self.config.train, step) * self.loader.batch_size * self.loader.seq_len

    def _speed(self, tokens: int) -> dict[str, Any]:
        spent = self.clock.spent()
        before_tokens, before_seconds = self._mark
        seconds = spent["productive"] - before_seconds
        self._mark = (tokens, spent["productive"])
        rate = (tokens - before_tokens) / max(seconds, 1e-9)
        flops = training_flops_per_token(self.config.model, self.config.data.seq_len)
        return {
            "tokens_per_second": round(rate, 1),
            "mfu": round(rate * flops / self._peak, 4) if self._peak else 0.0,
            "goodput": round(goodput(spent), 4),
            "seconds": round(seconds, 3),
            "clock": {part: round(value, 2) for part, value in spent.items()},
        }

    def _evaluate(self, state: State, step: int, last: bool) -> float | None:
        """What is due at this step; the held-out loss if it was."""
        due = [
            evaluation
            for evaluation in (self.held_out, *self.others)
            if evaluation is not None
            and ((evaluation.every and step % evaluation.every == 0) or (last and evaluation is self.held_out))
        ]
        return self._measure(due, state, step)

    def _measure(self, evaluations: Sequence[Evaluation], state: State, step: int) -> float | None:
        line = {}
        for evaluation in evaluations:
            self._settle()
            jax.block_until_ready(state)
            with self.clock.of("evaluation"):
                line |= evaluation.measure(state.model, step)
        if line:
            self.records.metrics(self.job.stage, step, self.job.steps_before + step, line)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in line.items() if name.count("/") == 1)
            self.console.say(f"{self.job.stage}  step {step:,}: {shown}")
        return line.get("held_out/loss")

    def _save(self, state: State, step: int, held_out_loss: float | None) -> None:
        self._settle()  # nothing is saved that the guard would have stopped
        jax.block_until_ready(state)
        with self.clock.of("checkpoint"):
            self.saved.save(state, step, held_out_loss)
        self._tell_failures()

    def _tell_failures(self) -> None:
        for told in self.saved.failures:
            self.console.say(f"warning: {told}; training goes on, and the next checkpoint is tried as usual")
            self.records.event("checkpoint failed", stage=self.job.stage, what=told)
        self.saved.failures.clear()

    def _tell_skipped(self, step: int, values: Mapping[str, float]) -> None:
        guard, row, total = self.config.train.guard, values["skipped_in_a_row"], values["skipped"]
        seen = f"loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g}"
        self.console.say(f"{self.job.stage}  step {step}: the update was left out ({seen})")
        self.records.event("skipped", stage=self.job.stage, step=step, loss=values["loss"], norm=values["grad_norm"])
        if row >= guard.in_a_row or total >= guard.most:
            self.saved.finish()
            count = f"{row:.0f} updates in a row" if row >= guard.in_a_row else f"{total:.0f} updates in all"
            first = step - int(row) + 1
            raise UserError(
                f"{self.job.stage} stopped at step {step}: {count} were left out ({seen}); {self.saved.last_good()}. "
                f"Look at the first batch: codelm replay {self.job.run} --stage {self.job.stage} --step {first}; or go "
                "on with a lower rate: --train.learning_rate … --may_change train.learning_rate"
            )

    def _leave(self, step: int, stop: Stop) -> None:
        with self.clock.of("checkpoint"):
            self.saved.finish()
        self._tell_failures()
        if of_first(lambda: self.saved.steps)[-1:] != [step]:
            raise UserError(f"stopped at step {step}, which could not be saved; {self.saved.last_good()}")
        name = stop.signal.name if stop.signal else "told to stop"  # by another process
        self.records.event("stopped", stage=self.job.stage, step=step, signal=name)
        raise Stopped(f"{name}: saved step {step} of {self.job.stage}; the same command goes on from there", name, True)
