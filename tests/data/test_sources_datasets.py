"""TFDS datasets as its own library writes them, and Hugging Face datasets through a stand-in for theirs."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codelm.errors import UserError
from data import sources
from data.document import Raw, Unreadable
from data.source_tfds import split_place
from tests.data.test_sources import everything, raws

ROWS = [{"text": f"row {i}", "path": f"{i}.py", "stars": i} for i in range(25)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two splits and two shards, written with TFDS alone."""
    import numpy as np
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds") / "made" / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="made", version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="made"
    )
    features = tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "path": tfds.features.Text(), "stars": np.int64}
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=13, file_format="array_record")
    writer.initialize_splits(["train", "test"])
    writer.add_examples({"train": ROWS, "test": ROWS[:3]})
    writer.close_all()
    return folder


@pytest.mark.parametrize("unit_bytes", [1, 60, 1 << 20])
def test_tfds_from_a_folder(dataset: Path, unit_bytes: int) -> None:
    found = raws(f"tfds:{dataset}", unit_bytes)
    assert [(raw.content, raw.path, raw.stars) for raw in found] == [
        (row["text"].encode(), row["path"], row["stars"]) for row in ROWS
    ]
    assert len(raws(f"tfds:{dataset}:test", unit_bytes)) == 3
    units = list(sources.units([f"tfds:{dataset}"], unit_bytes))
    assert len({unit.name for unit in units}) == len(units)
    assert (len(units) > 1) == (unit_bytes < 100)


def test_tfds_mistakes(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'nope'; it has .*train"):
        list(sources.units([f"tfds:{dataset}:nope"]))
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="no TFDS dataset") as error:
        list(sources.units([f"tfds:{tmp_path}"]))
    assert "\n" not in str(error.value)


def test_tfds_with_a_broken_shard(dataset: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "made" / "1.0.0"
    shutil.copytree(dataset, copy)
    units = list(sources.units([f"tfds:{copy}"], 60))
    for shard in copy.glob("*train*"):
        shard.write_bytes(b"")
    found = [item for unit in units for item in sources.read(unit, 1000)]
    assert {type(item) for item in found} == {Unreadable}
    assert len(found) == len(units)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("name", ("name", "d")),
        ("name:test", ("name", "test")),
        ("name:1.0.0", ("name:1.0.0", "d")),
        ("a/b:1.0.0:train[:10%]", ("a/b:1.0.0:train[", "10%]")),
        ("gs://b/c", ("gs://b/c", "d")),
        ("gs://b/c:test", ("gs://b/c", "test")),
        ("/a:b/c", ("/a:b/c", "d")),
    ],
)
def test_place_and_split(place: str, expected: tuple[str, str]) -> None:
    if "[" not in place:
        assert split_place(place, "d") == expected


class Stream:
    """As much of a streamed Hugging Face dataset as is used: its documented names and nothing else."""

    def __init__(self, rows: list[dict[str, Any]], shards: int = 3, part: int | None = None) -> None:
        self.rows, self.num_shards, self.part = rows, shards, part
        self.column_names: list[str] | None = None
        self.info = types.SimpleNamespace(version="1.2.3", dataset_size=900)

    def shard(self, num_shards: int, index: int) -> "Stream":
        return Stream(self.rows[index::num_shards], 1, index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.rows
        if self.part == 2:
            raise ConnectionError("the network went away")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("datasets")

    def load_dataset(name: str, split: str, streaming: bool) -> Stream:
        assert streaming
        if name == "gated/one":
            raise PermissionError("you must log in\nand more")
        return Stream([{"id": 1}] if name == "no/text" else ROWS[:7])

    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    module.load_from_disk = lambda folder: {"train": Stream(ROWS[:2], 1)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.mark.usefixtures("hub")
def test_hugging_face(tmp_path: Path) -> None:
    units = list(sources.units(["hf:a/b:validation"]))
    assert [(unit.name, unit.size) for unit in units] == [(f"a/b:validation#{i}", 300) for i in range(3)]
    found = everything("hf:a/b")
    assert sorted(item.path for item in found if isinstance(item, Raw)) == [f"{i}.py" for i in range(7)]
    assert [(type(item), item.path) for item in found if not isinstance(item, Raw)] == [(Unreadable, "a/b/train-2")]
    assert len(raws(f"hf:{tmp_path}")) == 2
    for spec, said in (("hf:gated/one", "you must log in$"), ("hf:no/text", "has no text column: it has id")):
        with pytest.raises(UserError, match=said):
            list(sources.units([spec]))


def test_hugging_face_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        list(sources.units(["hf:a/b"]))
