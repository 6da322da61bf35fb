"""What cleaning makes of one unit of a source, on disk: documents, an index for deduplication, drops, counts.

A part is complete once its `part.json`, written last, is there; it carries the checksum of every other file. So parts
survive an interruption, wherever they are kept: a local folder or gs://.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from etils import epath
from jaxtyping import UInt8, UInt32

from codelm.corpus_config import DedupConfig
from codelm.errors import UserError
from codelm.publish import checksum
from data.document import Document
from data.tally import Tally

VERSION = 1
_FILES = ("documents", "drops", "index", "signatures")

# One record for every document that passed cleaning.
INDEX = np.dtype(
    [
        ("exact", "<u8", (2,)),  # hash of the normalised text
        ("repository", "<u8"),  # hash of the repository's name
        ("stars", "<i8"),
        ("date", "<i8"),
        ("plainness", "<i8"),  # of the path: more is plainer
        ("size", "<i8"),  # bytes of the text
    ]
)


@dataclass(frozen=True)
class Part:
    """A complete part: where it is and how much of what it holds."""

    folder: epath.Path
    key: str
    documents: int
    tally: Tally
    checksums: dict[str, str]

    def file(self, name: str) -> epath.Path:
        return self.folder / f"{self.key}.{name}"

    def checked(self, name: str) -> epath.Path:
        """The file, after a look that it is as it was written."""
        path = self.file(name)
        if not path.exists() or checksum(path) != self.checksums[name]:
            raise UserError(f"{path} is corrupt (its checksum is wrong): delete it and build again")
        return path

    def intact(self) -> bool:
        """Whether every file is there as it was written."""
        return all(self.file(name).exists() and checksum(self.file(name)) == self.checksums[name] for name in _FILES)

    def index(self) -> np.ndarray:
        return np.frombuffer(self.checked("index").read_bytes(), INDEX)

    def signatures(self, config: DedupConfig) -> UInt32[np.ndarray, "N P"] | UInt8[np.ndarray, "N P"]:
        kind = np.uint32 if config.level == "repository" else np.uint8
        return np.frombuffer(self.checked("signatures").read_bytes(), kind).reshape(-1, config.permutations)

    def read_documents(self) -> Iterator[Document]:
        for line in self._lines("documents"):
            yield Document(**json.loads(line))

    def read_drops(self) -> Iterator[bytes]:
        """JSON lines: repository, path, reason, detail."""
        return self._lines("drops")

    def _lines(self, name: str) -> Iterator[bytes]:
        import zstandard

        with self.checked(name).open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            yield from io.BufferedReader(stream, 1 << 20)


def find(folder: epath.Path, key: str) -> Part | None:
    """The part of that key, if it was finished."""
    try:
        content = json.loads((folder / f"{key}.part.json").read_text())
    except (OSError, ValueError):
        return None
    if content.get("version") != VERSION:
        return None
    return Part(folder, key, content["documents"], Tally.from_json(content["tally"]), content["checksums"])


class Writer:
    """Writes one part; nothing is held but the counts. Leaving the block without an error finishes it."""

    def __init__(self, folder: epath.Path, key: str) -> None:
        self.part = Part(folder, key, 0, Tally(), {})
        self.tally = self.part.tally
        self._count = 0

    def __enter__(self) -> "Writer":
        import zstandard

        self._raw = {name: self.part.file(name).open("wb") for name in _FILES}
        self._zstd: dict[str, IO[bytes]] = {
            name: zstandard.ZstdCompressor(level=1).stream_writer(self._raw[name], closefd=False)
            for name in ("documents", "drops")
        }
        return self

    def keep(self, document: Document, index: np.ndarray, signature: np.ndarray) -> None:
        fields = {f: getattr(document, f) for f in Document.__slots__}
        self._zstd["documents"].write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
        for name, content in (("index", index.tobytes()), ("signatures", signature.tobytes())):
            self._raw[name].write(content)
        self._count += 1

    def drop(self, repository: str, path: str, reason: str, detail: str) -> None:
        line = json.dumps({"repository": repository, "path": path, "reason": reason, "detail": detail})
        self._zstd["drops"].write(line.encode() + b"\n")

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        for file in (*self._zstd.values(), *self._raw.values()):
            file.close()
        if kind is not None:
            return
        checksums = {name: checksum(self.part.file(name)) for name in _FILES}
        content = {"version": VERSION, "documents": self._count, "tally": self.tally.to_json(), "checksums": checksums}
        self.part.file("part.json").write_text(json.dumps(content))
