"""A corpus as token ids on disk, cut by one tokenizer: any run of tokens of any document, without reading the rest.

A folder: `tokens-*.bin` holds the ids of the documents one after the other, `names-*.jsonl` what they are called and
what they import, `documents.npy` where each lies. `roles-*.bin`, for conversations, says what each token is for. Blocks
of tokens carry checksums that are checked as they are read. `manifest.json` is written last.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8, UInt32

from codelm.errors import UserError

VERSION = 2
MANIFEST = "manifest.json"
BLOCK = 4096  # tokens under one checksum

# One document. `name` and `header` are the tokens that its repository's name and its path add to it.
DOCUMENT = np.dtype(
    [
        ("start", "<u8"),  # first token, in its shard
        ("names", "<u8"),  # first byte of its line of names, in its shard
        ("repository", "<u8"),  # hash of the repository's name
        ("tokens", "<u4"),
        ("header", "<u2"),
        ("name", "<u2"),
        ("language", "<u2"),  # number in the manifest's list
        ("shard", "<u2"),
    ]
)


@dataclass(frozen=True)
class Names:
    """What a document is called."""

    repository: str
    path: str
    language: str
    imports: tuple[str, ...] = ()
    """What it imports, as it writes it."""


@dataclass(frozen=True)
class TokenStore:
    """Tokenised documents, by number."""

    folder: Path
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return self.manifest["documents"]

    def __reduce__(self):
        return _reopen, (self.folder,)  # a worker maps the files itself, which were checked here

    @property
    def languages(self) -> list[str]:
        return self.manifest["languages"]

    @cached_property
    def documents(self) -> np.ndarray:
        """A record (`DOCUMENT`) for each document, mapped."""
        return np.load(self.folder / "documents.npy", mmap_mode="r") if len(self) else np.empty(0, DOCUMENT)

    def tokens(self, document: int, start: int, stop: int) -> UInt32[np.ndarray, " N"]:
        """Ids of the document's tokens from `start` to `stop`."""
        record = self.documents[document]
        first = int(record["start"])
        return self._tokens[int(record["shard"])].read(first + start, first + stop).astype(np.uint32)

    def roles(self, document: int, start: int, stop: int) -> UInt8[np.ndarray, " N"]:
        """What each token is for (`codelm.formats.Role`): kept of conversations only."""
        record = self.documents[document]
        first = int(record["start"])
        return self._roles[int(record["shard"])].read(first + start, first + stop)

    def names(self, document: int) -> Names:
        record = self.documents[document]
        at = int(record["names"])
        mapped = self._names[int(record["shard"])]
        line = json.loads(mapped[at : mapped.find(b"\n", at)])
        return Names(line["repository"], line["path"], line["language"], tuple(line["imports"]))

    @cached_property
    def character_starts(self) -> Bool[np.ndarray, " V"]:
        """Of each id, whether a text can begin with it."""
        return np.load(self.folder / "character_starts.npy")

    @cached_property
    def _tokens(self) -> "list[_Checked]":
        kind = np.dtype(self.manifest["dtype"])
        return [_Checked.open(self.folder, shard, "tokens", kind) for shard in self.manifest["shards"]]

    @cached_property
    def _roles(self) -> "list[_Checked]":
        return [_Checked.open(self.folder, shard, "roles", np.dtype(np.uint8)) for shard in self.manifest["shards"]]

    @cached_property
    def _names(self) -> list[Any]:
        import mmap

        maps = []
        for shard in self.manifest["shards"]:
            with (self.folder / shard["files"]["names"]).open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return maps


@dataclass(frozen=True)
class _Checked:
    """A mapped file of ids whose blocks are checked as they are read."""

    path: Path
    ids: np.ndarray
    checksums: UInt32[np.ndarray, " B"]

    @staticmethod
    def open(folder: Path, shard: Mapping[str, Any], name: str, kind: np.dtype) -> "_Checked":
        path = folder / shard["files"][name]
        ids = np.memmap(path, kind, "r") if shard["tokens"] else np.empty(0, kind)
        return _Checked(path, ids, np.fromfile(f"{path}.crc", np.uint32))

    def read(self, start: int, stop: int) -> np.ndarray:
        first, last = start // BLOCK, -(-stop // BLOCK)
        ids = np.asarray(self.ids[first * BLOCK : last * BLOCK])
        for block in range(first, last):
            part = ids[(block - first) * BLOCK : (block + 1 - first) * BLOCK]
            if zlib.crc32(part.tobytes()) != self.checksums[block]:
                raise UserError(f"{self.path} is corrupt: delete {self.path.parent}, it is made again")
        return ids[start - first * BLOCK : stop - first * BLOCK]


def dtype_of(vocab_size: int) -> np.dtype:
    """The smallest that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def checksums(ids: np.ndarray) -> UInt32[np.ndarray, " B"]:
    """One a block."""
    blocks = range(0, len(ids), BLOCK)
    return np.array([zlib.crc32(ids[at : at + BLOCK].tobytes()) for at in blocks], np.uint32)


def load(folder: Path) -> TokenStore:
    """The store in a folder."""
    return TokenStore(folder, read_manifest(folder, VERSION))


def _reopen(folder: Path) -> TokenStore:
    return TokenStore(folder, json.loads((folder / MANIFEST).read_text()))


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Last, with the size of each file, and a checksum where it is not read in blocks that have their own."""
    files = {}
    for file in sorted(folder.iterdir()):
        blocks = (folder / f"{file.name}.crc").exists()
        files[file.name] = [file.stat().st_size, None if blocks else _crc(file)]
    (folder / MANIFEST).write_text(json.dumps({**content, "files": files}, indent=1))


def read_manifest(folder: Path, version: int) -> dict[str, Any]:
    """The manifest of a folder in the cache, whose files are as they were written."""
    path, cure = folder / MANIFEST, f"delete {folder}, it is made again"
    try:
        manifest = json.loads(path.read_text())
        found, files = manifest["version"], manifest["files"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is missing or corrupt: {cure}") from error
    if found != version:
        raise UserError(f"{path} has version {found!r}, and this codelm reads version {version}: {cure}")
    for name, (size, crc) in files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise UserError(f"{file} is missing or cut short: {cure}")
        if crc is not None and _crc(file) != crc:
            raise UserError(f"{file} is corrupt: {cure}")
    return manifest


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            crc = zlib.crc32(piece, crc)
    return crc


def character_starts(pieces: tuple[bytes, ...]) -> Bool[np.ndarray, " V"]:
    """Of each id, whether its first byte is not the middle of a UTF-8 character."""
    return np.array([not piece or piece[0] & 0xC0 != 0x80 for piece in pieces], np.bool_)
