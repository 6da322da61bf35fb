"""A run of documents, in corpus order, from parts into the dataset's shards: the second thing that workers do."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int64, UInt8

from codelm.publish import checksum
from data import clean_unit, dataset, parts
from data.document import Document
from data.tally import Tally

TRAIN, VALIDATION, EXACT, NEAR, STRADDLES = range(5)  # what becomes of a document
REASONS = {EXACT: "exact_duplicate", NEAR: "near_duplicate", STRADDLES: "duplicate_across_splits"}


@dataclass(frozen=True)
class Task:
    first: int
    """Number of the first document."""
    fates: UInt8[np.ndarray, " N"]
    kept: Int64[np.ndarray, " N"]
    """For duplicates: the number of the document that stands for them."""
    sources: tuple[tuple[str, int, int], ...]
    """Parts (key), and which of their documents: from, to."""
    parts: str
    out: str
    names: dict[str, str]
    """Split → the shard's file name, where this range has documents of it."""
    number: int


def result_path(task: Task) -> epath.Path:
    """The range's result, written last: what the manifest has to say of it."""
    return epath.Path(task.out) / f"range-{task.number:05}.json"


def run(task: Task) -> None:
    """Write the shards and the drops of the range, unless they are there and intact."""
    before = result(task)
    if before and _intact(task, before):
        return
    import zstandard

    shards = {split: dataset.ShardWriter(epath.Path(task.out) / name) for split, name in task.names.items()}
    tally = Tally()
    with drops_path(task).open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as dropped:
        for number, document in enumerate(_documents(task)):
            fate, size = int(task.fates[number]), len(document.text.encode())
            reason = REASONS.get(fate, "kept")
            tally.add(reason, document.language, document.licence, size)
            if fate in REASONS:
                stands = int(task.kept[number])
                head = partial(clean_unit.excerpt, document)
                tally.sample(reason, document.repository, document.path, f"of {stands}", head)
                line = {"repository": document.repository, "path": document.path, "reason": reason}
                line |= {"document": task.first + number, "kept": stands}
                dropped.write(json.dumps(line).encode() + b"\n")
            else:
                shards[dataset.SPLITS[fate]].write(task.first + number, document)
    written = {split: shard.close() for split, shard in shards.items()}
    content = {"shards": written, "drops": checksum(drops_path(task)), "tally": tally.to_json()}
    result_path(task).write_text(json.dumps(content))


def drops_path(task: Task) -> epath.Path:
    return epath.Path(task.out) / f"range-{task.number:05}.drops.zst"


def result(task: Task) -> dict[str, Any] | None:
    """What a range that was written left: its shards with their checksums, and its counts."""
    try:
        return json.loads(result_path(task).read_text())
    except (OSError, ValueError):
        return None


def _intact(task: Task, result: dict[str, Any]) -> bool:
    """Whether the files of a range that was written before are as they were."""
    files = {task.names.get(split, ""): shard["sha256"] for split, shard in result["shards"].items()}
    files[drops_path(task).name] = result["drops"]
    paths = {epath.Path(task.out) / name: sha256 for name, sha256 in files.items()}
    return all(path.is_file() and checksum(path) == sha256 for path, sha256 in paths.items())


def _documents(task: Task) -> Iterator[Document]:
    folder = epath.Path(task.parts)
    for key, start, end in task.sources:
        part = parts.find(folder, key)
        assert part is not None
        for row, document in enumerate(part.read_documents()):
            if row >= end:
                break
            if row >= start:
                yield document
