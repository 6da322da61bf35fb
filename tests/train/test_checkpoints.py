"""Checkpoints as they are written and read: kept by rule, refused or passed over when they should be."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from codelm.checkpoint import read_training_description
from codelm.config import Config, MeshConfig
from codelm.errors import UserError
from codelm.train_config import CheckpointConfig
from tests.train.test_step import CONFIG, batch, begin
from train import checkpoints
from train.checkpoints import Checkpoints
from train.state import State
from train.step import make_steps
from train.trainer import Job, mesh_of

INPUTS = {"corpus": "c0ffee", "tokenizer": "7ea"}


@pytest.fixture(scope="module")
def trained() -> State:
    state, _ = make_steps(CONFIG).whole(begin(CONFIG), batch(0))
    return state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pretrain"


def config(**keep: Any) -> Config:
    return dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(**keep))


def save(folder: Path, state: State, steps: dict[int, float | None], told: Config = CONFIG) -> None:
    saved = Checkpoints(str(folder), told, INPUTS)
    for step, loss in steps.items():
        saved.save(state, step, loss)
    saved.close()
    assert saved.failures == []


def same(one: State, other: State) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in pairs)


def test_what_was_saved_comes_back_bit_for_bit(folder: Path, trained: State) -> None:
    save(folder, trained, {7: None})
    found = Checkpoints(str(folder), CONFIG, INPUTS).restore(begin(CONFIG), ())
    assert found is not None
    assert same(found, trained)
    assert not same(found, begin(CONFIG))


@pytest.mark.parametrize(
    "mesh", [pytest.param({"fsdp": 8}, marks=pytest.mark.slow), {"data": 2, "tensor": 2, "context": 2}]
)
def test_it_comes_back_on_another_mesh(folder: Path, trained: State, mesh: dict[str, int]) -> None:
    save(folder, trained, {1: None})
    other = dataclasses.replace(CONFIG, mesh=MeshConfig(**({"data": 1} | mesh)))
    with mesh_of(other):
        like = begin(other)
        found = Checkpoints(str(folder), other, INPUTS).restore(like, ())
        assert found is not None
        assert same(found, trained)
        placed = jax.tree.map(lambda a, b: a.sharding == b.sharding, found, like)
        assert all(jax.tree.leaves(placed))


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"keep_last": 2}, [3, 5, 6]),  # and the best
        ({"keep_last": 1, "keep_best": False}, [6]),
        ({"keep_last": 1, "keep_every": 2, "keep_best": False}, [2, 4, 6]),
        ({"keep_last": 1, "keep_every": 4}, [3, 4, 6]),
    ],
)
def test_which_are_kept(folder: Path, trained: State, keep: dict[str, Any], kept: list[int]) -> None:
    losses = {1: 5.0, 2: 4.0, 3: 3.0, 4: 3.5, 5: None, 6: None}
    small = trained._replace(model=begin(CONFIG).model)
    save(folder, small, losses, config(**keep))
    assert sorted(int(path.name) for path in folder.iterdir()) == kept


def test_another_config_is_refused_with_the_difference(folder: Path, trained: State) -> None:
    save(folder, trained, {3: None})
    train = dataclasses.replace(CONFIG.train, learning_rate=0.5, weight_decay=0.0)
    other = dataclasses.replace(CONFIG, train=train, name="renamed", mesh=MeshConfig(data=2))
    saved = Checkpoints(str(folder), other, INPUTS | {"corpus": "beef"})
    with pytest.raises(UserError) as refused:
        saved.restore(begin(CONFIG), ())
    said = str(refused.value)
    assert "train.learning_rate was 0.01 and is 0.5" in said
    assert "train.weight_decay was 0.1 and is 0.0" in said
    assert "corpus was 'c0ffee' and is 'beef'" in said
    assert "name" not in said.split("Set them back")[0]
    assert "mesh" not in said
    allowed = ("train.learning_rate", "train.weight_decay", "corpus")
    assert f"--may_change {' '.join(allowed)}" in said
    assert saved.restore(begin(CONFIG), allowed) is not None
    assert saved.restore(begin(CONFIG), ("train", "corpus")) is not None


def largest(folder: Path) -> Path:
    """Where the arrays are, not what describes them."""
    return max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)


def damage(folder: Path, how: str) -> None:
    if how == "flipped bit":
        path = largest(folder / "training")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    elif how == "cut off":
        path = largest(folder / "parameters")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "missing file":
        largest(folder / "parameters").unlink()
    else:
        shutil.rmtree(folder / "training")


@pytest.mark.parametrize(
    "how",
    [
        "flipped bit",
        "missing folder",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("cut off", "missing file")),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_it_used(
    folder: Path, trained: State, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    save(folder, begin(CONFIG), {10: None})
    save(folder, trained, {20: None})
    damage(folder / "20", how)
    found = Checkpoints(str(folder), CONFIG, INPUTS).restore(begin(CONFIG), ())
    assert found is not None
    assert same(found, begin(CONFIG))
    said = capsys.readouterr().err
    assert f"{folder / '20'} is damaged" in said
    damage(folder / "10", how)
    with pytest.raises(UserError, match=r"no checkpoint of .* can be read"):
        Checkpoints(str(folder), CONFIG, INPUTS).restore(begin(CONFIG), ())


def test_bits_that_change_before_they_reach_the_disk_are_noticed(folder: Path, trained: State) -> None:
    """Whatever the file system's own checksums say: the sums were taken where the arrays were computed."""
    with pytest.MonkeyPatch.context() as patch:
        honest = checkpoints.named

        def changed(state: State) -> tuple[dict[str, Any], dict[str, Any]]:
            parameters, training = honest(state)
            name = "blocks.up"
            flipped = np.asarray(parameters[name]).copy()
            flipped.view(np.uint32)[1, 3, 5] ^= 1
            calls.append(name)
            return ({**parameters, name: jax.numpy.asarray(flipped)} if len(calls) == 1 else parameters), training

        calls: list[str] = []
        true = checkpoints.sums(honest(trained)[0])
        patch.setattr(checkpoints, "named", changed)
        patch.setattr(checkpoints, "sums", lambda arrays: {name: true.get(name, 0) for name in arrays})
        saved = Checkpoints(str(folder), CONFIG, INPUTS)
        saved.save(trained, 1)
        saved.close()
    with pytest.raises(checkpoints.Damaged, match="bits of"):
        checkpoints.load(epath.Path(folder / "1"), begin(CONFIG), CONFIG, INPUTS, ())


def test_what_a_killed_process_was_saving_is_named(
    folder: Path, trained: State, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folder, trained, {10: None})
    shutil.copytree(folder / "10", folder / "20.orbax-checkpoint-tmp")
    saved = Checkpoints(str(folder), CONFIG, INPUTS)
    assert saved.restore(begin(CONFIG), ()) is not None
    assert "20.orbax-checkpoint-tmp was not finished" in capsys.readouterr().err
    assert saved.steps == [10]


def test_a_failed_save_is_told_and_the_third_in_a_row_stops(
    folder: Path, trained: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Checkpoints(str(folder), CONFIG, INPUTS)
    saved.save(trained, 1)
    saved.finish()

    class Full:
        def result(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    kind, honest = type(saved._orbax), type(saved._orbax).save_checkpointables_async
    monkeypatch.setattr(kind, "save_checkpointables_async", lambda *_, **__: Full())
    saved.save(trained, 2)
    saved.finish()
    assert len(saved.failures) == 1
    assert "2 could not be saved" in saved.failures[0]
    assert "No space left" in saved.failures[0]
    monkeypatch.setattr(kind, "save_checkpointables_async", honest)
    saved.save(trained, 3)
    saved.finish()
    assert saved.steps == [1, 3]
    monkeypatch.setattr(kind, "save_checkpointables_async", lambda *_, **__: Full())
    for step in (4, 5, 6):
        saved.save(trained, step)
    with pytest.raises(UserError, match=rf"No space left.*last good one is {folder / '3'}"):
        saved.finish()


def test_it_says_what_it_is(folder: Path, trained: State) -> None:
    save(folder, trained, {4: 2.5})
    description = read_training_description(epath.Path(folder / "4"))
    assert description["inputs"] == INPUTS
    assert description["config"]["train"]["learning_rate"] == CONFIG.train.learning_rate


def test_on_google_cloud_storage(
    gcs: str, trained: State, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an emulator: kept by rule, found again, and the one before a damaged one used."""
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", os.environ["STORAGE_EMULATOR_HOST"])
    told = config(folder=f"{gcs}/checkpoints", keep_last=2)
    folder = Job("pretrain", told, Path("runs/x"), INPUTS).checkpoints
    assert folder == f"{gcs}/checkpoints/unnamed/pretrain"
    saved = Checkpoints(folder, told, INPUTS)
    for step in (1, 2, 3):
        saved.save(trained if step == 3 else begin(CONFIG), step)
    saved.close()
    assert saved.failures == []
    found = Checkpoints(folder, told, INPUTS).restore(begin(CONFIG), ())
    assert found is not None
    assert same(found, trained)
    arrays = list((epath.Path(folder) / "3" / "parameters" / "d").iterdir())
    max(arrays, key=lambda path: path.stat().length).write_bytes(b"nonsense")
    again = Checkpoints(folder, told, INPUTS)
    assert again.steps == [2, 3]
    found = again.restore(begin(CONFIG), ())
    assert found is not None
    assert same(found, begin(CONFIG))
    assert "3 is damaged" in capsys.readouterr().err
