"""The safetensors format: the tensors of a folder, found without reading them, and files written tensor by tensor.

A file is the length of its header (8 bytes), the header (JSON: for each tensor its dtype, shape and place), the bytes.
A folder has one such file, or several and an index that says which tensor is in which.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from codelm.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
CODES = {dtype.name: code for code, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # as in the reference implementation


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def open(self) -> np.ndarray:
        """The tensor as a view of the file: only what is looked at is read, and let go with the view."""
        return np.memmap(self.path, DTYPES[self.dtype], "r", self.offset, self.shape)


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder by name; every file is checked to be complete."""
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; other formats of weights are not supported")
    files = _weight_map(folder / INDEX)
    headers = {file: read_header(folder / file) for file in sorted(set(files.values()))}
    for name, file in files.items():
        if name not in headers[file]:
            raise UserError(f"{folder / file} lacks tensor {name}, which {INDEX} says is in it")
    return {name: headers[file][name] for name, file in files.items()}


def _weight_map(path: Path) -> dict[str, str]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        plain = all(isinstance(file, str) and Path(file).name == file for file in files.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not an index of safetensors files: {error!r}") from error
    if not plain:
        raise UserError(f"{path}: weight_map must name files of its own folder")
    return files


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name; refuses a truncated file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 + length <= 8 + MAX_HEADER:
                raise UserError(f"{path} is truncated: {size:,} bytes, of which the header alone should be {length:,}")
            header = json.loads(file.read(length)) if length <= MAX_HEADER else None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise UserError(f"{path} is not a safetensors file: it has no header")
    header.pop("__metadata__", None)
    tensors = {name: _place(path, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise UserError(f"{path} is truncated: {size:,} bytes of {end:,}")
    return tensors


def _place(path: Path, name: str, entry: Any, start: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        if whole and (dtype not in DTYPES or end - begin == math.prod(shape) * DTYPES[dtype].itemsize):
            return StoredTensor(path, dtype, shape, start + begin)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"{path}: the header's entry for tensor {name} makes no sense: {entry}")


def write_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, values: Iterable[np.ndarray]
) -> None:
    """Write tensors of one dtype, asked for one after the other in the order of `shapes`."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": CODES[dtype.name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in values:
            file.write(np.ascontiguousarray(value, dtype).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
