import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from codelm.config import Config
from codelm.errors import UserError
from codelm.train_config import TrackConfig
from train.records import EVENTS, METRICS, Records, read

QUIET = Config(track=TrackConfig(tensorboard=False))


def lines(folder: Path, name: str = METRICS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_steps_that_are_done_again_are_forgotten(tmp_path: Path) -> None:
    records = Records(tmp_path, QUIET)
    for stage, steps in (("pretrain", 4), ("midtrain", 3)):
        for step in range(1, steps + 1):
            records.metrics(stage, step, step, {"loss": step / 3})
    (tmp_path / METRICS).open("a").write('{"stage": "midtr')  # killed while it wrote
    gone = records.forget("midtrain", after=1)
    assert [(line["stage"], line["step"]) for line in gone] == [("midtrain", 2), ("midtrain", 3)]
    assert [(line["stage"], line["step"]) for line in lines(tmp_path)][-2:] == [("pretrain", 4), ("midtrain", 1)]
    records.metrics("midtrain", 2, 6, {"loss": 1.0})
    assert lines(tmp_path)[-1] == {"stage": "midtrain", "step": 2, "loss": 1.0}


def test_what_is_not_finite_is_still_json(tmp_path: Path) -> None:
    records = Records(tmp_path, QUIET)
    records.metrics("pretrain", 1, 1, {"loss": float("nan"), "speed": {"mfu": float("inf")}})
    assert lines(tmp_path)[0] == {"stage": "pretrain", "step": 1, "loss": "nan", "speed": {"mfu": "inf"}}


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    records = Records(tmp_path / "run", QUIET, writes=False)
    records.metrics("pretrain", 1, 1, {"loss": 1.0})
    records.event("started")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path, QUIET)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"No space left.*run the same command again"):
        records.event("started")


def test_a_line_in_the_middle_that_was_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"event": "a"}\nnonsense\n{"event": "b"}\n')
    with pytest.raises(UserError, match=r"events.jsonl:2"):
        read(tmp_path / EVENTS)


def test_weights_and_biases_gets_the_same_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    begun: dict[str, Any] = {}

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            begun["finished"] = True

    fake = types.ModuleType("wandb")
    fake.init = lambda **given: begun.update(given) or Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    records = Records(tmp_path, Config(name="mine", track=TrackConfig(tensorboard=False, wandb="project")))
    records.metrics("pretrain", 1, 7, {"loss": 2.0, "speed": {"mfu": 0.5, "clock": {}}})
    records.close()
    assert (begun["project"], begun["id"], begun["finished"]) == ("project", "mine", True)
    assert logged == [(7, {"loss": 2.0, "speed/mfu": 0.5})]


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match='EXTRAS="wandb"'):
        Records(tmp_path, Config(track=TrackConfig(tensorboard=False, wandb="project")))
