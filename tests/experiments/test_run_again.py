"""A run once more: after damage, with another config, from another's checkpoint, with its states elsewhere."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import codelm
from codelm import cli
from codelm.errors import UserError
from tests.experiments.conftest import command

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """The finished run, to do things to."""
    shutil.copytree(done, tmp_path / "runs" / "small")
    shutil.copytree(done.parent / "cache", tmp_path / "runs" / "cache")
    return tmp_path / "runs"


def arrays(run: Path, stage: str, step: int) -> dict[str, np.ndarray]:
    loaded: Any = ocp.load_checkpointables(str(run / "checkpoints" / stage / str(step)))
    return {name: np.asarray(value) for part in ("parameters", "training") for name, value in loaded[part].items()}


def spoil(checkpoint: Path) -> None:
    """Make the largest file of its arrays nonsense."""
    files = [path for path in (checkpoint / "training" / "d").rglob("*") if path.is_file()]
    max(files, key=lambda path: path.stat().st_size).write_bytes(b"nonsense")


def events(run: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if line["event"] == name]


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("midtrain", marks=pytest.mark.slow)])
def test_a_damaged_last_state_is_set_aside_and_trained_again(
    stage: str, config: Path, copy: Path, done: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """That of pretraining where mid-training must begin from it, that of mid-training where it is to be evaluated."""
    run, last = copy / "small", {"pretrain": 12, "midtrain": 3}[stage]
    spoil(run / "checkpoints" / stage / str(last))
    (run / "result.json").unlink()
    if stage == "pretrain":
        shutil.rmtree(run / "checkpoints" / "midtrain")
    assert cli.main(command(config, copy)) == 0
    said = capfd.readouterr().err
    assert "is damaged" in said
    assert "set aside" in said
    assert "Traceback" not in said
    assert (run / "checkpoints" / f"damaged-{stage}-{last}").exists()
    assert [event["stage"] for event in events(run, "damaged")] == [stage]
    for name, value in arrays(done, "midtrain", 3).items():
        np.testing.assert_array_equal(arrays(run, "midtrain", 3)[name], value, err_msg=name)


def test_mid_training_from_another_beginning_is_refused(
    config: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Longer pretraining would have left the old mid-training and its result standing."""
    assert cli.main(command(config, copy, "--train.steps", "14", "--may_change", "train.steps")) == 2
    error = capsys.readouterr().err
    assert "midtrain.start was 'step 12' and is 'step 14'" in error
    assert not (copy / "small" / "checkpoints" / "pretrain" / "14").exists()
    shutil.rmtree(copy / "small" / "checkpoints" / "midtrain")
    assert cli.main(command(config, copy, "--train.steps", "14", "--may_change", "train.steps")) == 0
    result = json.loads((copy / "small" / "result.json").read_text())
    assert result["tokens"] == 14 * 8 * 64 + 3 * 8 * 256


def test_a_run_begins_from_a_relative_path_and_keeps_its_states_at_one(
    config: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy)
    more = ["--name", "decayed", "--train.start", "small/checkpoints/pretrain/6", "--train.steps", "8"]
    more += ["--may_change", "train.steps", "--midtrain.steps", "0", "--checkpoint.folder", "elsewhere"]
    assert cli.main(["run", str(config), "--dir", ".", "--cache", "cache", *more]) == 0
    assert "begins from" in capsys.readouterr().err
    assert (copy / "elsewhere" / "decayed" / "pretrain" / "8" / "parameters").is_dir()
    assert not (copy / "decayed" / "checkpoints" / "pretrain").exists()
    steps = [line["step"] for line in map(json.loads, (copy / "decayed" / "metrics.jsonl").read_text().splitlines())]
    assert set(steps) == {8}
    lm = codelm.load("decayed")
    assert lm.tokenizer is not None
    monkeypatch.chdir("/")
    assert lm.config == codelm.load(copy / "elsewhere" / "decayed" / "pretrain" / "8").config


def test_mid_training_alone_begins_where_another_run_ended(config: Path, copy: Path) -> None:
    more = ["--name", "longer", "--train.start", str(copy / "small"), "--mesh.data", "1"]
    assert cli.main(command(config, copy, *more)) == 0
    assert [path.name for path in (copy / "longer" / "checkpoints").iterdir() if path.is_dir()] == ["midtrain"]

    def losses(name: str) -> list[float]:
        lines = [json.loads(line) for line in (copy / name / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if line["stage"] == "midtrain" and "loss" in line]

    assert losses("longer") == pytest.approx(losses("small"), rel=1e-5)  # on another mesh
    assert cli.main(command(config, copy, *more)) == 0  # there already


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model.depth", "3", "--may_change", "model.depth"], "does not fit: blocks.attention_norm is (2, 64)"),
        (["--train.optimizer", "adafactor", "--may_change", "train.optimizer"], "models or optimizers differ"),
        (["--may_change", "train.stepz"], "--may_change train.stepz: no such field; nearest: 'train.steps'"),
        (["--name", "other", "--train.start", "RUN", "--midtrain.steps", "0"], "train.steps=12 leaves nothing to do"),
        (["--name", "other", "--checkpoint.folder", "/proc/nope"], "cannot write /proc/nope"),
        (["--name", "../other"], "'../other' is no name of a folder"),
        (["--name", "other", "--cache", "/proc/cache"], "cannot write /proc/cache"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_damage(
    config: Path, copy: Path, capfd: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    if "model.depth" in more or "train.optimizer" in more:
        (copy / "small" / "result.json").unlink()  # so that the last state is wanted
    more = [str(copy / "small") if each == "RUN" else each for each in more]
    assert cli.main(command(config, copy, *more)) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "damaged" not in error
    assert "Traceback" not in error
    assert not (copy / "other").exists()


def test_a_model_whose_bits_changed_is_not_loaded(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from codelm import checkpoint

    description = checkpoint.read_training_description

    def other_sums(folder: Any) -> dict[str, Any]:
        found = description(folder)
        found["sums"]["parameters"]["embedding"] ^= 1
        return found

    codelm.load(copy / "small")
    monkeypatch.setattr(checkpoint, "read_training_description", other_sums)
    with pytest.raises(UserError, match="the bits of embedding do not add up"):
        codelm.load(copy / "small")


def test_a_run_that_has_no_state_yet_says_so(copy: Path) -> None:
    shutil.rmtree(copy / "small" / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        codelm.load(copy / "small")


def test_told_to_stop_before_it_trains_it_exits_with_0(config: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        # Many steps, so that it is not at its end before the signal comes.
        [sys.executable, "-m", "codelm", *command(config, tmp_path), "--train.steps", "5000"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "parameters on" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait() == 0, rest
    assert "SIGTERM: stopped; the same command goes on from there" in rest
    assert "Traceback" not in rest
