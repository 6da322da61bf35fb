"""A stage as a whole, in this process: going on, stopping, what is written down."""

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from etils import epath

from codelm.config import Config, TrainConfig, resolve
from codelm.errors import UserError
from codelm.train_config import CheckpointConfig, GuardConfig, TrackConfig
from data import loader as loaders
from data.loader import Loader
from data.rows import Arrays
from tests.data.batches import Batches
from tests.train.conftest import config_of
from train.clock import Clock
from train.records import EVENTS, METRICS, Records, read
from train.signals import Stopped
from train.state import State
from train.trainer import Evaluation, Job, Trainer, part_loader_config

STEPS = 12


@dataclasses.dataclass
class Changed:
    """A loader with something done to its batches, by number."""

    loader: Loader
    change: Callable[[int, Arrays], Arrays]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def batches(self, start: int, stop: int, **given: Any) -> Iterator[Arrays]:
        for number, batch in enumerate(self.loader.batches(start, stop, **given), start):
            yield self.change(number, batch)


def config(batches: Batches, **train: Any) -> Config:
    told = config_of(batches, seq_len=64)
    fields = {"steps": STEPS, "learning_rate": 3e-3, "warmup_steps": 2, "guard": GuardConfig(deviations=0.0)} | train
    return resolve(
        dataclasses.replace(
            told,
            train=TrainConfig(**fields),
            checkpoint=CheckpointConfig(every=4),
            track=TrackConfig(every=1, tensorboard=False),
        )
    )


def trainer(
    told: Config,
    batches: Batches,
    run: Path,
    change: Callable[[int, Arrays], Arrays] | None = None,
    evaluation: Evaluation | None = None,
    **job: Any,
) -> Trainer:
    made = loaders.make(part_loader_config(told), batches.corpus, cache=batches.cache, workers=1)
    records = Records(run, told)
    stage = Trainer(Job("pretrain", told, run, {"corpus": "x"}, **job), made, records, Clock(), evaluation)
    if change is not None:
        stage.loader = cast(Loader, Changed(made, change))
    return stage


def metrics(run: Path) -> list[dict[str, Any]]:
    """The part that is the same whenever it is done."""
    return [{k: v for k, v in line.items() if k != "speed"} for line in read(run / METRICS)]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read(run / EVENTS) if event["event"] == name]


def bits(state: State) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def whole(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """An uninterrupted run, and its last state."""
    run = tmp_path_factory.mktemp("whole")
    return run, bits(trainer(config(batches), batches, run).run(None))


class Killed(Exception):
    pass


def killing(at: int) -> Callable[[int, Arrays], Arrays]:
    def change(number: int, batch: Arrays) -> Arrays:
        if number == at:
            raise Killed
        return batch

    return change


def test_a_run_that_died_goes_on_as_if_it_had_not(batches: Batches, tmp_path: Path, whole: Any) -> None:
    told = config(batches)
    for at in (3, 7, 10):  # before the first checkpoint, and after two others
        with pytest.raises(Killed):
            trainer(told, batches, tmp_path, killing(at)).run(None)
    state = trainer(told, batches, tmp_path).run(None)
    assert metrics(tmp_path) == metrics(whole[0])
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, STEPS + 1))
    for want, got in zip(whole[1], bits(state), strict=True):
        np.testing.assert_array_equal(got, want)
    assert [event["step"] for event in events(tmp_path, "resumed")] == [4, 8]
    assert events(tmp_path, "resumed")[0]["lost_seconds"] > 0


def test_the_metrics_say_what_happened(whole: Any) -> None:
    lines = read(whole[0] / METRICS)
    assert lines[0]["loss"] > lines[-1]["loss"]
    assert [line["tokens"] for line in lines] == [8 * 64 * step for step in range(1, STEPS + 1)]
    speed = lines[-1]["speed"]
    assert speed["tokens_per_second"] > 0
    assert 0 < speed["mfu"] < 1.5
    assert 0 < speed["goodput"] < 1
    assert set(events(whole[0], "compiled")[0]["seconds"]) == {"trace", "lower", "compile", "first"}


def test_nothing_compiles_after_the_first_step(batches: Batches, tmp_path: Path) -> None:
    one = trainer(config(batches), batches, tmp_path)
    one.run(None)
    assert one.steps.whole._cache_size() == 1
    train = {"accumulate": 4, "batch_warmup_steps": 6}
    other = trainer(config(batches, **train), batches, tmp_path / "parts")
    other.run(None)
    assert [f._cache_size() for f in (other.steps.first, other.steps.more, other.steps.update)] == [1, 1, 1]


def test_a_batch_that_grows_takes_every_row_once(batches: Batches, tmp_path: Path) -> None:
    seen: list[int] = []

    def note(number: int, batch: Arrays) -> Arrays:
        seen.append(number)
        assert batch["tokens"].shape == (2, 64)
        return batch

    told = config(batches, accumulate=4, batch_warmup_steps=6)
    with contextlib.suppress(Killed):
        trainer(told, batches, tmp_path, lambda n, b: killing(21)(n, note(n, b))).run(None)
    trainer(told, batches, tmp_path, note).run(None)
    tokens = [line["tokens"] for line in metrics(tmp_path)]
    sizes = np.diff([0, *tokens]) // 64
    assert sizes[0] == 2
    assert (np.diff(sizes) >= 0).all()
    assert (sizes[6:] == 8).all()
    assert sorted(set(seen)) == list(range(tokens[-1] // 128))


def test_a_mixture_changes_at_its_step_whatever_the_parts(batches: Batches) -> None:
    told = config(batches, accumulate=4, batch_warmup_steps=6)
    told = dataclasses.replace(told, data=dataclasses.replace(told.data, boundaries=(3, 9)))
    steps = [1, 1, 2, 2, 3, 3, 4, 4, 4]  # parts of each: a quarter more every other step
    assert part_loader_config(told).data.boundaries == (sum(steps[:3]), sum(steps))
    whole = dataclasses.replace(told, train=dataclasses.replace(told.train, accumulate=1, batch_warmup_steps=0))
    assert part_loader_config(whole).data == told.data


def test_a_step_that_is_not_finite_is_left_out_and_told(batches: Batches, tmp_path: Path) -> None:
    def poison(number: int, batch: Arrays) -> Arrays:
        if number == 5:
            batch["loss_weights"][3, 7] = np.nan
        return batch

    told = config(batches)
    trainer(told, batches, tmp_path, poison).run(None)
    assert [event["step"] for event in events(tmp_path, "skipped")] == [6]
    lines = metrics(tmp_path)
    assert lines[5]["loss"] == "nan"
    assert [line["skipped"] for line in lines] == [0] * 5 + [1] * 7
    assert lines[5]["parameter_norm"] == "nan" or lines[5]["parameter_norm"] == lines[4]["parameter_norm"]
    assert np.isfinite(lines[6]["loss"])
    with pytest.raises(Killed):
        trainer(told, batches, tmp_path / "again", lambda n, b: killing(9)(n, poison(n, b))).run(None)
    trainer(told, batches, tmp_path / "again", poison).run(None)
    assert json.dumps(metrics(tmp_path / "again")) == json.dumps(lines)


def test_too_many_in_a_row_stop_the_run(batches: Batches, tmp_path: Path) -> None:
    def poison(number: int, batch: Arrays) -> Arrays:
        if number >= 6:
            batch["loss_weights"][:] = np.inf
        return batch

    told = config(batches, guard=GuardConfig(in_a_row=3))
    with pytest.raises(UserError) as stopped:
        trainer(told, batches, tmp_path, poison).run(None)
    said = str(stopped.value)
    assert "3 updates in a row were left out" in said
    assert f"last good one is {tmp_path / 'checkpoints' / 'pretrain' / '8'}" in said or "pretrain/4" in said
    assert f"codelm replay {tmp_path} --stage pretrain --step 7" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_and_goes_on_from_there(
    batches: Batches, tmp_path: Path, whole: Any, number: signal.Signals
) -> None:
    def told_at(at: int) -> Callable[[int, Arrays], Arrays]:
        def change(n: int, batch: Arrays) -> Arrays:
            if n == at:
                os.kill(os.getpid(), number)
            return batch

        return change

    told = config(batches)
    with pytest.raises(Stopped, match=rf"{number.name}: saved step \d+ of pretrain") as stopped:
        trainer(told, batches, tmp_path, told_at(5)).run(None)
    assert stopped.value.by == number.name
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    state = trainer(told, batches, tmp_path).run(None)
    assert metrics(tmp_path) == metrics(whole[0])
    for want, got in zip(whole[1], bits(state), strict=True):
        np.testing.assert_array_equal(got, want)


def test_evaluation_when_it_is_due_and_after_the_last_step(batches: Batches, tmp_path: Path) -> None:
    losses = iter([3.0, 2.0, 2.5])
    evaluation = Evaluation(5, lambda model, step: {"held_out/loss": next(losses)})
    told = dataclasses.replace(config(batches), checkpoint=CheckpointConfig(every=5, keep_last=1))
    trainer(told, batches, tmp_path, evaluation=evaluation).run(None)
    found = [(line["step"], line["held_out/loss"]) for line in metrics(tmp_path) if "held_out/loss" in line]
    assert found == [(5, 3.0), (10, 2.0), (12, 2.5)]
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints" / "pretrain").iterdir())
    assert kept == [10, 12]


@pytest.mark.slow
def test_it_trains_the_same_on_a_mesh(batches: Batches, tmp_path: Path, whole: Any) -> None:
    from train.trainer import mesh_of

    with mesh_of(config(batches)) as mesh:  # eight simulated devices
        assert mesh is not None
        trainer(config(batches), batches, tmp_path).run(mesh)
    for one, other in zip(metrics(whole[0]), metrics(tmp_path), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3)


def test_it_begins_from_another_runs_checkpoint(batches: Batches, tmp_path: Path, whole: Any) -> None:
    """A decay launched from a stable state: steps and moments go on, the schedule is the new one's."""
    start = epath.Path(whole[0]) / "checkpoints" / "pretrain" / "8"
    told = config(batches, steps=10, decay_fraction=0.2)
    job: dict[str, Any] = {"start": start, "counts_on": True}
    with pytest.raises(UserError, match=r"train.steps was 12 and is 10"):
        trainer(told, batches, tmp_path, **job).run(None)
    trainer(told, batches, tmp_path, start_may_change=("train.steps",), **job).run(None)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [9, 10]
    before = next(line for line in metrics(whole[0]) if line["step"] == 9)
    assert lines[0]["loss"] == before["loss"]
    fresh: dict[str, Any] = {**job, "counts_on": False, "start_may_change": ("train.steps",)}
    # What it begins with is measured, once, whatever it dies of before its first checkpoint.
    losses = iter([3.0, 3.0, 2.0])
    fresh["evaluation"] = Evaluation(0, lambda model, step: {"held_out/loss": next(losses)})
    with pytest.raises(Killed):
        trainer(told, batches, tmp_path / "fresh", killing(2), **fresh).run(None)
    trainer(told, batches, tmp_path / "fresh", **fresh).run(None)
    first, *trained, last = metrics(tmp_path / "fresh")
    assert [(line["step"], line["held_out/loss"]) for line in (first, last)] == [(0, 3.0), (10, 2.0)]
    assert [line["step"] for line in trained] == list(range(1, 11))
    assert trained[0]["loss"] < metrics(whole[0])[0]["loss"]
