"""Grouping records by key in bounded memory: spread over files by the first bits of the key, then a file at a time."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np


def partition(
    chunks: Iterable[np.ndarray], dtype: np.dtype, total: int, memory: int, folder: Path
) -> Iterator[np.ndarray]:
    """The records in groups: those of equal `key`, a field of uniform 64-bit hashes, come in the same group.

    `total` is how many records there are. A group takes about `memory` bytes, unless a single key has more than that.
    """
    bits = math.ceil(math.log2(max(1, total * dtype.itemsize / memory)))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n:05}" for n in range(1 << bits)]
    for file in files:
        file.write_bytes(b"")
    for chunk in chunks:
        place = (chunk["key"] >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(chunk), np.int64)
        order = np.argsort(place, kind="stable")
        ends = np.cumsum(np.bincount(place, minlength=1 << bits))
        for file, records in zip(files, np.split(chunk[order], ends[:-1]), strict=True):
            if len(records):
                with file.open("ab") as appended:
                    records.tofile(appended)
    for file in files:
        yield np.fromfile(file, dtype)
        file.unlink()
