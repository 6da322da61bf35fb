"""A corpus on disk: a TFDS dataset of ArrayRecord shards, and a manifest that says what it is and how to check it.

`manifest.json` and `dataset_info.json` are written last; a folder without them is not a corpus.
"""

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etils import epath

from codelm.errors import UserError, nearest
from codelm.publish import checksum
from data.document import Document

VERSION = 1
NAME = "corpus"
MANIFEST = "manifest.json"
SPLITS = ("train", "validation")
_NUMBERS = ("stars", "date")  # the fields of a document that are not text
CACHE = "~/.cache/codelm/corpora"


@dataclass(frozen=True)
class Corpus:
    """A published corpus. Splits are random-access sources of rows, as Grain and TFDS give them."""

    folder: epath.Path
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return sum(split["documents"] for split in self.manifest["splits"].values())

    def split(self, name: str) -> Any:
        """A sequence of rows: dicts of the document's fields, text as UTF-8 bytes."""
        if name not in self.manifest["splits"]:
            near = nearest(name, list(self.manifest["splits"]))
            raise UserError(f"{self.folder} has no split '{name}'; nearest: '{near}'")
        return self._builder.as_data_source(name)

    def documents(self, name: str) -> Iterator[Document]:
        for row in self.split(name):
            yield document_of(row)

    def verify(self) -> None:
        """Read every file and compare it with its checksum."""
        for name in self.manifest["checksums"]:
            self.verify_file(name)

    def verify_file(self, name: str) -> None:
        path = self.folder / name
        if not path.exists():
            raise UserError(f"{path} is missing: the corpus is incomplete, build it again")
        if checksum(path) != self.manifest["checksums"][name]:
            raise UserError(f"{path} is corrupt (its checksum is wrong): build the corpus again")

    def shards_of(self, split: str, start: int, stop: int) -> list[str]:
        """The files that hold the documents from `start` to `stop`."""
        shards = self.manifest["splits"][split]["shards"]
        ends = list(itertools.accumulate(shard["documents"] for shard in shards))
        begins = [0, *ends]
        return [s["name"] for s, a, b in zip(shards, begins, ends, strict=False) if a < stop and b > start]

    @cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        return tfds.builder_from_directory(str(self._local()))

    def _local(self) -> epath.Path:
        """The folder itself, or a copy of it: ArrayRecord reads local files only (or a bucket mounted as a folder)."""
        if _is_local(self.folder):
            return self.folder
        copy = epath.Path(CACHE).expanduser() / self.manifest["digest"]
        for name, sha256 in sorted(self.manifest["checksums"].items()):
            here = copy / name
            if not here.exists() or checksum(here) != sha256:
                here.parent.mkdir(parents=True, exist_ok=True)
                part = copy / f".{name}.{os.getpid()}"
                (self.folder / name).copy(part, overwrite=True)
                if checksum(part) != sha256:
                    raise UserError(f"{self.folder / name} is corrupt (its checksum is wrong): build the corpus again")
                part.rename(here)
        return copy


def load(folder: str | Path | epath.Path) -> Corpus:
    """The corpus in a folder. Sizes of files are checked; `verify` reads them all."""
    folder = epath.Path(folder)
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"no corpus at {folder}: it has no {MANIFEST} (was a build interrupted?)")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if manifest.get("version") != VERSION:
        raise UserError(f"{path} has version {manifest.get('version')!r}; this codelm reads version {VERSION}")
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            file = folder / shard["name"]
            if not file.exists() or file.stat().length != shard["bytes"]:
                raise UserError(f"{file} is missing or cut short: build the corpus again")
    return Corpus(folder, manifest)


def document_of(row: Mapping[str, Any]) -> Document:
    text = {name: row[name].decode() for name in Document.__slots__ if name not in _NUMBERS}
    return Document(**text, stars=int(row["stars"]), date=int(row["date"]))


def shard_name(split: str, number: int, count: int) -> str:
    return f"{NAME}-{split}.array_record-{number:05}-of-{count:05}"


class ShardWriter:
    """Writes documents to one ArrayRecord file, made when the first one comes; groups of one, for random access."""

    def __init__(self, path: epath.Path) -> None:
        self.path = path
        self.documents = self.bytes = 0
        self._writer: Any = None

    def write(self, number: int, document: Document) -> None:
        if not self.documents:
            self._open()
        fields = {name: getattr(document, name) for name in Document.__slots__}
        example = self._serializer.get_tf_example({"document": number, **fields})
        self._writer.write(example.SerializeToString(deterministic=True))  # so that equal corpora are equal files
        self.documents += 1
        self.bytes += len(document.text.encode())

    def _open(self) -> None:
        from array_record.python import array_record_module
        from tensorflow_datasets.core import example_serializer

        # ArrayRecord writes local files only.
        self._local = self.path if _is_local(self.path) else epath.Path(tempfile.mkdtemp()) / self.path.name
        self._serializer = example_serializer.ExampleSerializer(features().get_serialized_info())
        self._writer = array_record_module.ArrayRecordWriter(str(self._local), "group_size:1")

    def close(self) -> dict[str, Any] | None:
        """What the manifest says of the shard; nothing where there is none."""
        if self._writer is None:
            return None
        self._writer.close()
        size, sha256 = self._local.stat().length, checksum(self._local)
        if self._local != self.path:
            self._local.copy(self.path, overwrite=True)
            self._local.parent.rmtree()
        return {"documents": self.documents, "text_bytes": self.bytes, "bytes": size, "sha256": sha256}


def features() -> Any:
    import numpy as np
    import tensorflow_datasets as tfds

    text = {name: tfds.features.Text() for name in Document.__slots__ if name not in _NUMBERS}
    numbers = {name: tfds.features.Scalar(np.int64) for name in ("document", *_NUMBERS)}
    return tfds.features.FeaturesDict({**text, **numbers})


def describe(folder: epath.Path, splits: Mapping[str, list[dict[str, Any]]], description: str) -> None:
    """Write what TFDS needs to read the shards in the folder."""
    import tensorflow_datasets as tfds

    version = tfds.core.Version("1.0.0")
    identity = tfds.core.DatasetIdentity(name=NAME, version=version, data_dir=str(folder), module_name="codelm")
    info = tfds.core.DatasetInfo(builder=identity, features=features(), description=description)
    info.set_file_format("array_record")
    infos = []
    for name, shards in splits.items():
        template = tfds.core.ShardedFileTemplate(
            dataset_name=NAME, data_dir=folder, split=name, filetype_suffix="array_record"
        )
        lengths, size = [shard["documents"] for shard in shards], sum(shard["bytes"] for shard in shards)
        infos.append(tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(infos))
    info.write_to_directory(folder)


def publish(staged: epath.Path, out: epath.Path) -> None:
    """The staged folder becomes `out`, and what was there is gone: by renaming, or on object storage manifest last."""
    if _is_local(out):
        _publish_here(staged, out)
        return
    last = ("dataset_info.json", MANIFEST)
    if out.exists():
        for old in sorted(out.iterdir(), key=lambda file: (file.name != MANIFEST, file.name)):
            old.unlink()
    for file in sorted(staged.iterdir(), key=lambda file: (file.name in last, file.name)):
        file.copy(out / file.name, overwrite=True)


def _publish_here(staged: epath.Path, out: epath.Path) -> None:
    """Renaming is all or nothing, but only within a disk: what lies on another one is brought beside `out` first."""
    new, old = (out.parent / f".{out.name}.{what}" for what in ("new", "old"))
    if new.exists():  # of a publication that was killed
        new.rmtree()
    out.parent.mkdir(parents=True, exist_ok=True)
    if _is_local(staged):
        shutil.move(staged, new)
    else:
        new.mkdir()
        for file in staged.iterdir():
            file.copy(new / file.name)
    if out.exists():
        if old.exists():
            old.rmtree()
        out.rename(old)
    new.rename(out)
    if old.exists():
        old.rmtree()


def _is_local(path: epath.Path) -> bool:
    return "://" not in str(path)
