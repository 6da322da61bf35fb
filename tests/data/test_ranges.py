"""Ranges of documents: cut as the definition says, made anew each time, never all in memory."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from data import duplicates, parts, write_range
from data.plan import Found
from data.ranges import Ranges

SHARD = 1000


def ranges(folder: Path, count: int, shard_bytes: int = SHARD, seed: int = 0) -> Ranges:
    """Documents of random sizes and fates, a few larger than shards; in three parts, of which one is empty."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    index = np.memmap(folder / "index", parts.INDEX, "w+", shape=(count,))
    index["size"] = rng.choice([3, 40, 300, 2500], count, p=[0.4, 0.4, 0.19, 0.01])
    files = duplicates.Table(index, np.empty((count, 0), np.uint8), folder)
    fates = files.array("fates", np.uint8, lambda items: rng.choice(5, len(items), p=[0.5, 0.05, 0.2, 0.2, 0.05]))
    kept = files.array("kept", np.int64, lambda items: rng.integers(0, count // 3, len(items)))
    found = Found(epath.Path(folder), ["a", "b", "c"], np.array([count // 3, count // 3, count]))
    return Ranges.of(found, files, fates, kept, shard_bytes, epath.Path(folder / "staged"))


@pytest.mark.parametrize("seed", range(3))
def test_a_range_ends_with_the_document_that_fills_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", 37)
    cut = ranges(tmp_path, 900, seed=seed)
    expected, filled, size = [], 0, 0
    for document in range(900):
        size += int(cut.files.index["size"][document]) if cut.fates[document] <= write_range.VALIDATION else 0
        if size // SHARD > filled:
            filled = size // SHARD
            expected.append(document + 1)
    assert len(expected) > 30
    assert [last for _, last in cut.bounds] == sorted({*expected, 900})
    assert [first for first, _ in cut.bounds] == [0, *[last for _, last in cut.bounds[:-1]]]


def test_tasks_hold_every_document_once_and_name_the_shards_they_fill(tmp_path: Path) -> None:
    cut = ranges(tmp_path, 900)
    tasks = list(cut)
    assert np.concatenate([task.fates for task in tasks]).tolist() == cut.fates.tolist()
    assert np.concatenate([task.kept for task in tasks]).tolist() == cut.kept.tolist()
    assert [task.number for task in tasks] == list(range(len(tasks)))
    read = [(key, row) for task in tasks for key, start, end in task.sources for row in range(start, end)]
    assert read == [*(("a", row) for row in range(300)), *(("c", row) for row in range(600))]
    for code, split in enumerate(("train", "validation")):
        holding = [task for task in tasks if (task.fates == code).any()]
        assert len(holding) < len(tasks) or split == "train"
        names = [f"corpus-{split}.array_record-{n:05}-of-{len(holding):05}" for n in range(len(holding))]
        assert [task.names[split] for task in tasks if split in task.names] == names
        assert all(split in task.names for task in holding)


def test_ranges_are_gone_through_as_often_as_wanted(tmp_path: Path) -> None:
    cut = ranges(tmp_path, 900)
    for once, again in zip(cut, cut, strict=True):
        assert (once.first, once.sources, once.names) == (again.first, again.sources, again.names)
        assert (once.fates == again.fates).all()
        assert (once.kept == again.kept).all()


def test_clusters_are_counted_over_all_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", 37)
    cut = ranges(tmp_path, 900)
    stands = Counter(k for k, fate in zip(cut.kept.tolist(), cut.fates.tolist(), strict=True) if fate >= 2)
    assert cut.clusters() == {"clusters": len(stands), "largest": max(stands.values()) + 1}
    cut.fates[:] = write_range.TRAIN
    assert cut.clusters() == {"clusters": 0, "largest": 0}


def test_ranges_take_no_more_memory_for_more_documents(tmp_path: Path) -> None:
    """Nine bytes a document lie in files: of a range at a time they are in memory, and of a chunk."""
    count = 2_000_000
    tracemalloc.start()
    try:
        cut = ranges(tmp_path, count, shard_bytes=1_000_000)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        cut = Ranges.of(cut.found, cut.files, cut.fates, cut.kept, 1_000_000, cut.staged)
        assert sum(len(task.fates) for task in cut) == count
        assert cut.clusters()["clusters"]
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(cut.bounds) > 100
    assert peak < 4 << 20 < 9 * count / 4
