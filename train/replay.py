"""A step of a stage once more: its loss and gradients bit for bit, its rows' losses, and the row that is to blame.

>>> replay = Replay(job, loader, mesh)
>>> state = replay.start(step)                              # the newest checkpoint before the step …
>>> for state in replay.until(state, step): ...             # … and the updates from there to the step
>>> batch = replay.batch(step)
>>> losses = replay.token_losses(state.model, batch)
>>> halves = list(replay.bisect(state.model, batch))        # the worse one of the last two is a single row
>>> state, metrics = replay.taken(state, batch)             # last: the memory of what the state was is used again

Nothing is written, and no lock is taken. The same functions run on the same arrays as in training, so on the same
machine and versions every figure has the same bits.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float32

from codelm.errors import UserError
from codelm.loss import token_losses
from codelm.model import Transformer
from codelm.processes import of_first
from codelm.sharding import MESH_AXES, has_mesh
from data import feed
from data.loader import Loader
from data.rows import PADDING, Arrays
from train import checkpoints, schedules
from train.records import EVENTS, METRICS, read
from train.state import State, Sums
from train.statistics import square_sums
from train.step import Batch, Metrics, Steps, make_steps, through
from train.trainer import Job, begun, like_state


@dataclass(frozen=True)
class Measured:
    """Some rows of a step, apart from the others."""

    rows: tuple[int, ...]
    loss: float
    """Of the tokens they teach."""
    gradient: float
    """Norm of what they add to the gradient, summed over tokens: a row of many tokens adds more."""

    @property
    def badness(self) -> tuple[bool, float]:
        finite = math.isfinite(self.loss) and math.isfinite(self.gradient)
        return not finite, self.gradient if finite else 0.0


Halves = tuple[Measured, Measured]


def worse(halves: Halves) -> Measured:
    """The half that is not finite (the first, if neither is), else the one that adds more to the gradient."""
    return max(halves, key=lambda half: half.badness)


@dataclass(frozen=True)
class Replay:
    """A stage to look at. `loader` gives parts of batches (`train.trainer.part_loader_config`). The rows of a step are
    counted from 0 through all its parts."""

    job: Job
    loader: Loader
    mesh: Mesh | None

    @cached_property
    def steps(self) -> Steps:
        return make_steps(self.job.config)

    def start(self, step: int) -> State:
        """The newest state before the step that can be read, or that before the stage's first step."""
        job, folder = self.job, epath.Path(self.job.checkpoints)
        earlier = [found for found in of_first(lambda: checkpoints.steps_in(folder)) if found < step]
        state = None
        if earlier:
            like = like_state(job.config)
            state, _ = checkpoints.newest(folder, earlier, like, job.config, job.inputs, job.may_change)
        try:
            state = begun(job) if state is None else state
        except checkpoints.Damaged as error:
            raise UserError(f"{job.stage} begins from {job.start}, which is damaged: {error}") from error
        if int(state.step) >= step:
            raise UserError(
                f"{job.stage} of {job.run} begins with step {int(state.step) + 1}, so it has no step {step}"
            )
        return state

    def until(self, state: State, step: int) -> Iterator[State]:
        """The state after each update before that of the step."""
        train = self.job.config.train
        done = int(state.step)
        first, end = schedules.parts_before(train, done), schedules.parts_before(train, step - 1)
        if done == step - 1:
            return
        with contextlib.closing(self.loader.batches(first, end)) as parts:
            for number in range(done, step - 1):
                batch = [next(parts) for _ in range(schedules.parts(train, number))]
                state, _ = self.taken(state, batch)
                yield state

    def batch(self, step: int) -> list[Arrays]:
        """Its parts, whole on every host."""
        train = self.job.config.train
        first, end = schedules.parts_before(train, step - 1), schedules.parts_before(train, step)
        with contextlib.closing(self.loader.batches(first, end)) as parts:
            return list(parts)

    def first_row(self, step: int) -> int:
        """The number of its row 0 among all rows ever, as `loader.row` counts them."""
        return schedules.parts_before(self.job.config.train, step - 1) * self.loader.batch_size

    def taken(self, state: State, batch: Sequence[Arrays]) -> tuple[State, Metrics]:
        """The update, as training makes it."""
        parts = [self._placed(part) for part in batch]
        return through(self.job.config.train, self._call, state, parts)

    def token_losses(self, model: Transformer, batch: Sequence[Arrays]) -> Float32[np.ndarray, "R S"]:
        """Of each target of each row, in nats, whatever its weight."""
        return np.concatenate([np.asarray(_token_losses(model, self._placed(part))) for part in batch])

    def bisect(self, model: Transformer, batch: Sequence[Arrays]) -> Iterator[Halves]:
        """Halves of all rows, then of the worse half, and so on until it is one row. The others are padding, so every
        half is computed by the same function on the same shapes."""
        rows: Sequence[int] = range(len(batch) * self.loader.batch_size)
        while len(rows) > 1:
            middle = len(rows) // 2
            halves = self.measure(model, batch, rows[:middle]), self.measure(model, batch, rows[middle:])
            yield halves
            rows = worse(halves).rows

    def measure(self, model: Transformer, batch: Sequence[Arrays], rows: Sequence[int]) -> Measured:
        """These rows in their places; parts that have none of them are left out."""
        size = self.loader.batch_size
        kept = [[row % size for row in rows if row // size == number] for number in range(len(batch))]
        return self._measured(
            model, rows, [only(part, those, self.loader.pad) for part, those in zip(batch, kept, strict=True) if those]
        )

    def alone(self, model: Transformer, batch: Sequence[Arrays], row: int) -> Measured:
        """A row in the smallest batch there can be: all rows one after the other cost about one step."""
        number, place = divmod(row, self.loader.batch_size)
        least = 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in MESH_AXES["batch"])
        repeated = _each(batch[number], lambda values: values[[place] * least])
        return self._measured(model, (row,), [only(repeated, [0], self.loader.pad)])

    def _measured(self, model: Transformer, rows: Sequence[int], parts: Sequence[Arrays]) -> Measured:
        sums = self.steps.first(model, self._placed(parts[0]))
        for part in parts[1:]:
            sums = self.steps.more(model, sums, self._placed(part))
        loss, norm = jax.device_get(_loss_and_norm(sums))
        return Measured(tuple(rows), float(loss), float(norm))

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self.steps, name)(*arguments)

    def _placed(self, part: Arrays) -> Batch:
        """Where training puts it."""
        if self.mesh is None:
            return part
        sharding = feed.batch_sharding(self.mesh)
        rows, length = part["tokens"].shape
        here = feed.rows_here(sharding, rows, length)
        return feed.to_devices(_each(part, lambda values: values[here]), here, rows, sharding)


def only(part: Arrays, kept: Sequence[int], pad: int) -> Arrays:
    """These rows; in the places of the others there is nothing to read or to learn."""
    there = np.isin(np.arange(len(part["tokens"])), kept)[:, None]
    return Arrays(
        tokens=np.where(there, part["tokens"], np.int32(pad)),
        targets=np.where(there, part["targets"], np.int32(pad)),
        loss_weights=np.where(there, part["loss_weights"], np.float32(0)),
        positions=np.where(there, part["positions"], np.int32(0)),
        segment_ids=np.where(there, part["segment_ids"], np.int32(PADDING)),
    )


def mean_loss(losses: Float[np.ndarray, "*N"], weights: Float[np.ndarray, "*N"]) -> float:
    """As training weighs them; 0 where nothing is learnt."""
    learnt = weights != 0
    with np.errstate(invalid="ignore"):
        total = np.sum(losses[learnt] * weights[learnt], dtype=np.float64)
        return float(total / np.sum(weights[learnt], dtype=np.float64)) if learnt.any() else 0.0


# ---- what the run wrote down ----


def last_step(job: Job) -> int:
    """The last step of which the run left anything; 0 where it left nothing."""
    lines = [*read(job.run / METRICS), *read(job.run / EVENTS)]
    written = [line["step"] for line in lines if line.get("stage") == job.stage and "step" in line]
    return max([*written, *checkpoints.steps_in(epath.Path(job.checkpoints))], default=0)


def recorded(job: Job, step: int) -> dict[str, float]:
    """Figures of the step by their names in the metrics: all of them, or loss and norm alone where its update was left
    out between two lines; empty where nothing was written."""

    def of_step(name: str) -> list[dict[str, Any]]:
        return [line for line in read(job.run / name) if (line.get("stage"), line.get("step")) == (job.stage, step)]

    if lines := [line for line in of_step(METRICS) if "loss" in line]:
        about = ("stage", "step", "tokens", "speed")
        return {name: float(value) for name, value in lines[-1].items() if name not in about}
    if skipped := [event for event in of_step(EVENTS) if event["event"] == "skipped"]:
        return {"loss": float(skipped[-1]["loss"]), "grad_norm": float(skipped[-1]["norm"])}
    return {}


def different(values: Mapping[str, float], record: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Figures that do not have the bits of the record: what they are now, and what they were."""
    pairs = {name: (values.get(name, math.nan), before) for name, before in record.items()}
    return {name: pair for name, pair in pairs.items() if not np.array_equal(*pair, equal_nan=True)}


# ---- computing ----


@jax.jit
def _token_losses(model: Transformer, batch: Batch) -> Float[Array, "B S"]:
    config = model.config
    hidden, _, _ = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])
    head = {"logit_multiplier": config.logit_multiplier, "softcap": config.logit_softcap}
    losses = token_losses(hidden, model.output_table, jnp.asarray(batch["targets"]), **head)
    return jax.reshard(losses, P()) if has_mesh() else losses


@jax.jit
def _loss_and_norm(sums: Sums) -> tuple[Float[Array, ""], Float[Array, ""]]:
    weight = jnp.where(sums.weight == 0, 1.0, sums.weight)
    return sums.parts["loss"] / weight, jnp.sqrt(sum(square_sums(sums.gradient).values(), jnp.zeros(())))


def _each(part: Arrays, change: Any) -> Arrays:
    return Arrays(
        tokens=change(part["tokens"]),
        targets=change(part["targets"]),
        loss_weights=change(part["loss_weights"]),
        positions=change(part["positions"]),
        segment_ids=change(part["segment_ids"]),
    )
