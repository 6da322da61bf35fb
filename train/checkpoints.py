"""Checkpoints of a stage: saved in the background, kept by rule, checked when read.

    FOLDER/STEP/parameters FOLDER/STEP/training  arrays by name, as Orbax lays them out; whole or not there at all

Each carries, in Orbax's own metadata, the config it was trained by, what it was trained on, and a sum over the bits of
every array. An array that does not add up is damaged.
"""

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from codelm.checkpoint import (
    TRAINING_VERSION,
    describe_damage,
    quiet,
    read_training_description,
    sums,
    wrong_sum,
)
from codelm.config import Config
from codelm.config_io import to_dict
from codelm.errors import UserError
from codelm.processes import agreed, exchange, of_first
from codelm.train_config import CheckpointConfig
from train.differences import differences
from train.state import State

LOSS = "held_out_loss"
_MODEL = "model."  # what the names of parameters begin with in a state
_FAILURES = 3  # saves that fail one after another before the run stops

Arrays = Mapping[str, Any]  # by name; where they are not yet made, their shapes, dtypes and places

policies = ocp.training.preservation_policies


class Checkpoints:
    """The checkpoints of a stage. Close it: what is being saved is then finished."""

    def __init__(self, folder: str, config: Config, inputs: Mapping[str, str]) -> None:
        """`inputs` says what is trained on (digests), so that a run does not go on with something else."""
        self.folder, self.config, self.inputs = epath.Path(folder), config, dict(inputs)
        self.unfinished = _unfinished(self.folder)
        logging.getLogger("absl").addFilter(_told_once)
        self._orbax = self._checkpointer()
        self._pending: tuple[int, Any] | None = None
        self._failed = 0
        self.failures: list[str] = []
        """What went wrong in the background and was not told yet."""
        self.damaged: list[str] = []
        """What could not be read, from the newest on."""

    def _checkpointer(self) -> ocp.training.Checkpointer:
        kept = _kept(self.config.checkpoint)
        return ocp.training.Checkpointer(self.folder, preservation_policy=kept, cleanup_tmp_directories=True)

    @property
    def steps(self) -> list[int]:
        return [found.step for found in self._orbax.checkpoints]

    def save(self, state: State, step: int, held_out_loss: float | None = None) -> None:
        """Begin to save; the arrays may be changed when this returns. An earlier save is finished first."""
        self.finish()
        parameters, training = named(state)
        description: Any = {
            "codelm_training": TRAINING_VERSION,
            "config": to_dict(self.config),
            "inputs": self.inputs,
            "sums": {"parameters": sums(parameters), "training": sums(training)},
        }
        metrics: Any = None if held_out_loss is None else {LOSS: held_out_loss}
        arrays: Any = {"parameters": parameters, "training": training}
        said = ""
        try:
            response = self._orbax.save_checkpointables_async(
                step, arrays, force=True, overwrite=True, metrics=metrics, custom_metadata=description
            )
            self._pending = (step, response)
        except Exception as error:  # a full disk shows in the foreground or in the background
            said = describe_damage(error)
        self._check(step, said)

    def finish(self) -> None:
        """Wait for what is being saved; its failure is kept in `failures`, and the third in a row stops the run."""
        if self._pending is None:
            return
        step, _ = self._pending
        if self._check(step, self._finish()):
            self._failed = 0

    def _finish(self) -> str:
        """What went wrong here with the save that was going on."""
        if self._pending is None:
            return ""
        (_, response), self._pending = self._pending, None
        try:
            response.result()
        except Exception as error:  # whatever the file system, TensorStore or Orbax raises
            return describe_damage(error)
        return ""

    def _check(self, step: int, said: str) -> bool:
        """A save that failed on one process failed on all of them."""
        said = next(filter(None, exchange(said)), "")
        if said:
            self._fails(step, said)
        return not said

    def _fails(self, step: int, said: str) -> None:
        self._finish()  # the other processes' part
        self._failed += 1
        self.failures.append(f"checkpoint {self.folder / str(step)} could not be saved: {said}")
        with contextlib.suppress(Exception):
            self._orbax.close()
        self._orbax = self._checkpointer()  # the old one would raise the same error again
        if self._failed >= _FAILURES:
            raise UserError(f"{self.failures[-1]}; {self.last_good()}")

    def last_good(self) -> str:
        """What to say when a run stops."""
        steps = self.steps
        return f"the last good one is {self.folder / str(steps[-1])}" if steps else "there is none before it"

    def restore(self, like: State, may_change: Sequence[str]) -> State | None:
        """The newest state that can be read, on the mesh of `like`; None where there is none yet."""
        for name in self.unfinished:
            _say(f"{self.folder / name} was not finished, so it is left out")
        state, self.damaged = newest(
            self.folder, of_first(lambda: self.steps), like, self.config, self.inputs, may_change
        )
        if state is None and self.damaged:
            first = self.damaged[0]
            raise UserError(f"no checkpoint of {self.folder} can be read: {first}; move them away to begin anew")
        return state

    def close(self) -> None:
        try:
            self._finish()  # alone: where one process failed, the others do not come here
        finally:
            with contextlib.suppress(Exception):  # Orbax raises once more what `finish` has told
                self._orbax.close()


class Damaged(Exception):
    """A checkpoint that is there but cannot be trusted."""


def _told_once(record: logging.LogRecord) -> bool:
    """Without the pages in which each of Orbax's threads says that a save failed: `finish` says it."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def steps_in(folder: epath.Path) -> list[int]:
    """The steps of the checkpoints in a folder; nothing in it is touched."""
    return sorted(int(found.name) for found in folder.iterdir() if found.name.isdigit()) if folder.exists() else []


def newest(
    folder: epath.Path,
    steps: Sequence[int],
    like: State,
    config: Config,
    inputs: Mapping[str, str],
    may_change: Sequence[str],
) -> tuple[State | None, list[str]]:
    """The last of these states that can be read, as `load` does it; and what is wrong with those after it."""
    damaged = []
    for step in reversed(steps):
        try:
            return load(folder / str(step), like, config, inputs, may_change), damaged
        except Damaged as error:
            damaged.append(f"{folder / str(step)} is damaged ({error})")
            _say(f"{damaged[-1]}; looking for the one before it")
    return None, damaged


def load(
    folder: epath.Path, like: State, config: Config, inputs: Mapping[str, str], may_change: Sequence[str]
) -> State:
    """A state where the arrays of `like` are, which may be abstract; refused if trained by another config."""
    description = agreed(lambda: _described(folder), Damaged)
    check_same(folder, description, config, inputs, may_change)
    parameters, training = named(like)
    wanted: Any = {"parameters": abstract(parameters), "training": abstract(training)}
    check_shapes(folder, description["shapes"], wanted)
    loaded = agreed(lambda: _loaded(folder, wanted), Damaged)
    for part in ("parameters", "training"):
        if (name := wrong_sum(loaded[part], description["sums"][part])) is not None:
            raise Damaged(f"the bits of {name} do not add up")
    return rebuilt(like, loaded["parameters"], loaded["training"])


def _described(folder: epath.Path) -> dict[str, Any]:
    try:
        return read_training_description(folder)
    except UserError as error:
        raise Damaged(str(error)) from None


def _loaded(folder: epath.Path, wanted: Any) -> Any:
    """The arrays, of which this process reads what it holds: only here may there be damage."""
    try:
        with quiet():
            return ocp.load_checkpointables(str(folder), wanted)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a missing or damaged array
        raise Damaged(describe_damage(error)) from None


def check_same(
    folder: epath.Path,
    description: Mapping[str, Any],
    config: Config,
    inputs: Mapping[str, str],
    may_change: Sequence[str],
) -> None:
    found = differences(description["config"], to_dict(config), may_change)
    for name, value in inputs.items():
        before = description["inputs"].get(name, value)  # what was not written down yet is not held against it
        if name not in may_change and before != value:
            found.append((name, before, value))
    if not found:
        return
    told = ", ".join(f"{path} was {before!r} and is {now!r}" for path, before, now in found[:5])
    more = f", and {len(found) - 5} more" if len(found) > 5 else ""
    raise UserError(
        f"{folder} was trained by another config: {told}{more}. Set them back, give the run another --name, or allow "
        f"it: --may_change {' '.join(path for path, _, _ in found)}"
    )


def check_shapes(folder: epath.Path, there: Mapping[str, Arrays], wanted: Mapping[str, Arrays]) -> None:
    """Refuse arrays of another model or optimizer, whatever may change."""
    for part, arrays in wanted.items():
        if not there[part]:
            raise Damaged(f"its {part} cannot be read")
        if there[part].keys() != arrays.keys():
            name = min(there[part].keys() ^ arrays.keys())
            owner = "the checkpoint" if name in there[part] else "this config"
            raise UserError(f"{folder} does not fit: only {owner} has {name}; the models or optimizers differ")
        for name, array in arrays.items():
            if (before := tuple(there[part][name])) != array.shape:
                raise UserError(f"{folder} does not fit: {name} is {before} there and {array.shape} in this config")


def named(state: State) -> tuple[Arrays, Arrays]:
    """The arrays of a state, which may be abstract, by name: the parameters', and the rest."""
    parameters, training = {}, {}
    for name, leaf in zip(names(state), jax.tree.leaves(state), strict=True):
        if name.startswith(_MODEL):
            parameters[name.removeprefix(_MODEL)] = leaf
        else:
            training[name] = leaf
    return parameters, training


def rebuilt(like: State, parameters: Arrays, training: Arrays) -> State:
    """The reverse of `named`."""
    arrays = {**training, **{f"{_MODEL}{name}": x for name, x in parameters.items()}}
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in names(like)])


def names(state: State) -> list[str]:
    """Of its leaves, in order."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return [path.lstrip(".").removesuffix(".value") for path in paths]


def abstract(arrays: Arrays) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()}


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr)


def _kept(config: CheckpointConfig) -> Any:
    """Orbax's own policies, whose types do not agree with each other."""
    kept: list[Any] = [policies.LatestN(config.keep_last)]
    if config.keep_every:
        kept.append(policies.EveryNSteps(config.keep_every))
    if config.keep_best:

        def loss(metrics: Any) -> float:
            return metrics.get(LOSS, float("inf"))

        # Sorted from high to low, the last is the best.
        kept.append(policies.BestN(get_metric_fn=loss, reverse=True, n=1, keep_checkpoints_without_metrics=False))
    return policies.AnyPreservationPolicy(kept)


def _unfinished(folder: epath.Path) -> list[str]:
    """What a killed process was saving."""
    if not folder.exists():
        return []
    return sorted(path.name for path in folder.iterdir() if ".orbax-checkpoint-tmp" in path.name)
