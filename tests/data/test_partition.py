import random
from pathlib import Path

import numpy as np
import pytest

from data.partition import partition

RECORD = np.dtype([("key", "<u8"), ("item", "<i8")])


def records(count: int, keys: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**64, keys, np.uint64)
    found = np.empty(count, RECORD)
    found["key"], found["item"] = values[rng.integers(0, keys, count)], np.arange(count)
    return found


@pytest.mark.parametrize("memory", [10**9, 4096, 512])
def test_groups_hold_every_record_once_and_never_split_a_key(tmp_path: Path, memory: int) -> None:
    all_records = records(5000, 700)
    groups = list(partition(np.array_split(all_records, 7), RECORD, 5000, memory, tmp_path / "g"))
    assert sorted(np.concatenate(groups)["item"].tolist()) == list(range(5000))
    seen: set[int] = set()
    for group in groups:
        keys = set(group["key"].tolist())
        assert not keys & seen
        seen |= keys
    assert not list((tmp_path / "g").iterdir()), "files of groups are removed as they are read"


def test_groups_fit_the_memory_given(tmp_path: Path) -> None:
    memory = 64 * 1024
    groups = list(partition([records(50_000, 50_000)], RECORD, 50_000, memory, tmp_path / "g"))
    assert len(groups) >= 50_000 * RECORD.itemsize / memory
    assert max(group.nbytes for group in groups) <= 1.3 * memory


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    assert sum(len(group) for group in partition([], RECORD, 0, 100, tmp_path / "g")) == 0


def test_order_of_chunks_does_not_matter(tmp_path: Path) -> None:
    chunks = np.array_split(records(2000, 100), 9)
    random.Random(1).shuffle(shuffled := list(chunks))
    one = [sorted(g["item"].tolist()) for g in partition(chunks, RECORD, 2000, 8192, tmp_path / "a")]
    two = [sorted(g["item"].tolist()) for g in partition(shuffled, RECORD, 2000, 8192, tmp_path / "b")]
    assert one == two
