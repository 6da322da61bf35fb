"""Replayed figures against what training wrote down; rows against sums over all of them; culprits that were planted."""

import dataclasses
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath

from codelm.errors import UserError
from data import loader as loaders
from data.loader import Loader
from data.rows import Arrays
from tests.data.batches import Batches
from tests.train.test_trainer import config, trainer
from train.replay import Measured, Replay, different, last_step, mean_loss, recorded, worse
from train.trainer import Job, part_loader_config

ACCUMULATED = {"accumulate": 4, "batch_warmup_steps": 6}


@dataclasses.dataclass(frozen=True)
class Changed(Loader):
    """A loader with something done to its batches, by number."""

    change: Callable[[int, Arrays], Arrays]

    def batches(self, start: int = 0, stop: int = 0, *given: Any, **named: Any) -> Generator[Arrays]:
        for number, batch in enumerate(super().batches(start, stop, *given, **named), start):
            yield self.change(number, batch)


def not_a_number(number: int, batch: Arrays) -> Arrays:
    if number == 5:
        batch["loss_weights"][3, 7] = np.nan
    return batch


def too_heavy(number: int, batch: Arrays) -> Arrays:
    if number == 26:  # of step 10, whose parts are 24 to 27
        batch["loss_weights"][1] *= 1e6
    return batch


def replay(batches: Batches, run: Path, change: Any, **train: Any) -> Replay:
    told = config(batches, **train)
    made = loaders.make(part_loader_config(told), batches.corpus, cache=batches.cache, workers=1)
    return Replay(Job("pretrain", told, run, {"corpus": "x"}), Changed(**vars(made), change=change), None)


@pytest.fixture(scope="module")
def whole(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    run = tmp_path_factory.mktemp("whole")
    trainer(config(batches), batches, run, not_a_number).run(None)
    return replay(batches, run, not_a_number)


@pytest.fixture(scope="module")
def in_parts(batches: Batches, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    run = tmp_path_factory.mktemp("parts")
    trainer(config(batches, **ACCUMULATED), batches, run, too_heavy).run(None)
    return replay(batches, run, too_heavy, **ACCUMULATED)


def reached(stage: Replay, step: int) -> Any:
    state = stage.start(step)
    for state in stage.until(state, step):  # noqa: B007, B020
        pass
    assert int(state.step) == step - 1
    return state


def taken(stage: Replay, state: Any, step: int) -> dict[str, float]:
    return {name: float(value) for name, value in stage.taken(state, stage.batch(step))[1].items()}


def test_the_row_that_is_not_finite_is_found(whole: Replay) -> None:
    assert int(whole.start(6).step) == 0, "the run keeps the last two checkpoints: 8 and 12"
    state, batch = reached(whole, 6), whole.batch(6)
    halves = list(whole.bisect(state.model, batch))
    assert [half.rows for pair in halves for half in pair] == [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1), (2, 3), (2,), (3,)]
    assert worse(halves[-1]).rows == (3,)
    assert np.isfinite([halves[0][1].loss, halves[0][1].gradient, halves[1][0].gradient, halves[2][0].loss]).all()
    losses, weights = whole.token_losses(state.model, batch), batch[0]["loss_weights"]
    assert np.isfinite(losses).all(), "of every target, whatever its weight"
    assert [np.isnan(mean_loss(*row)) for row in zip(losses, weights, strict=True)] == [n == 3 for n in range(8)]
    values, record = taken(whole, state, 6), recorded(whole.job, 6)
    assert np.isnan(record["loss"])
    assert different(values, record) == {}


def test_every_figure_has_the_bits_of_the_record(whole: Replay) -> None:
    """With the update in between that was left out: step 6 comes after the beginning, and 7 after it."""
    for step in (7, 11):
        values, record = taken(whole, reached(whole, step), step), recorded(whole.job, step)
        assert {"loss", "accuracy", "grad_norm", "grad_norm/attention", "update_norm", "learning_rate"} <= set(record)
        assert different(values, record) == {}
        other = float(np.nextafter(np.float32(record["loss"]), np.float32(0)))
        assert different(values | {"loss": other}, record) == {"loss": (other, record["loss"])}


@pytest.mark.slow
def test_the_row_that_weighs_too_much_is_found(in_parts: Replay) -> None:
    """In batches that grow by parts."""
    assert [len(in_parts.batch(step)) for step in (1, 3, 10)] == [1, 2, 4]
    state, batch = reached(in_parts, 10), in_parts.batch(10)
    halves = list(in_parts.bisect(state.model, batch))
    assert [len(pair[0].rows) for pair in halves] == [4, 2, 1]
    assert worse(halves[-1]).rows == (5,)
    assert worse(halves[-1]).gradient > 1e4 * in_parts.measure(state.model, batch, [4]).gradient
    assert different(taken(in_parts, state, 10), recorded(in_parts.job, 10)) == {}


def test_rows_are_what_the_step_is_made_of(whole: Replay) -> None:
    """Training's own figures of a whole batch, out of those of its rows."""
    state, batch = reached(whole, 9), whole.batch(9)
    losses, weights = whole.token_losses(state.model, batch), batch[0]["loss_weights"]
    record, tokens = recorded(whole.job, 9), weights.sum()
    assert mean_loss(losses, weights) == pytest.approx(record["loss"], rel=1e-5)
    everything = whole.measure(state.model, batch, range(8))
    assert everything.gradient == pytest.approx(record["grad_norm"] * tokens, rel=1e-4)
    for row in (0, 5):
        alone, masked = whole.alone(state.model, batch, row), whole.measure(state.model, batch, [row])
        assert alone.rows == masked.rows == (row,)
        assert masked.loss == pytest.approx(mean_loss(losses[row], weights[row]), rel=1e-5)
        assert alone.loss == pytest.approx(masked.loss, rel=1e-5)
        assert alone.gradient == pytest.approx(masked.gradient, rel=1e-4)
    assert whole.measure(state.model, batch, [0, 5]).gradient < everything.gradient * 1.01


def test_rows_have_the_numbers_of_the_loader(whole: Replay, in_parts: Replay) -> None:
    for stage, step in ((whole, 9), (in_parts, 3), (in_parts, 9)):
        rows = [row for part in stage.batch(step) for row in part["tokens"]]
        for n, tokens in enumerate(rows):
            np.testing.assert_array_equal(stage.loader.row(stage.first_row(step) + n).arrays["tokens"], tokens)


def test_a_damaged_checkpoint_is_left_out(
    batches: Batches, whole: Replay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole.job.run, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "pretrain" / "8" / "training")
    assert int(replay(batches, tmp_path, not_a_number).start(9).step) == 0
    assert "pretrain/8 is damaged" in capsys.readouterr().err


def test_what_was_recorded(tmp_path: Path, batches: Batches) -> None:
    job = Job("pretrain", config(batches), tmp_path, {})
    assert (last_step(job), recorded(job, 1)) == (0, {})
    (tmp_path / "metrics.jsonl").write_text(
        '{"stage": "pretrain", "step": 4, "tokens": 9, "loss": 2.5, "speed": {}}\n'
        '{"stage": "pretrain", "step": 4, "held_out/loss": 3.0}\n{"stage": "midtrain", "step": 50, "loss": 1.0}\n'
    )
    (tmp_path / "events.jsonl").write_text(
        '{"event": "started"}\n{"event": "skipped", "stage": "pretrain", "step": 6, "loss": "nan", "norm": 7.0}\n'
    )
    assert last_step(job) == 6, "left out between two lines"
    assert recorded(job, 4) == {"loss": 2.5}
    assert recorded(job, 5) == {}
    found = recorded(job, 6)
    assert np.isnan(found.pop("loss"))
    assert found == {"grad_norm": 7.0}


def test_which_half_is_worse() -> None:
    small, large = Measured((0,), 9.0, 1.0), Measured((1,), 2.0, 3.0)
    wild, wilder = Measured((2,), np.nan, 0.0), Measured((3,), 2.0, np.inf)
    assert worse((small, large)) == worse((large, small)) == large
    assert worse((wild, large)) == worse((large, wild)) == wild
    assert worse((wilder, wild)) == wilder


def test_a_step_before_where_the_stage_began(batches: Batches, whole: Replay, tmp_path: Path) -> None:
    start = epath.Path(whole.job.checkpoints) / "8"
    job = dataclasses.replace(whole.job, run=tmp_path, start=start, counts_on=True)
    later = dataclasses.replace(whole, job=job)
    with pytest.raises(UserError, match="begins with step 9, so it has no step 8"):
        later.start(8)
