"""Files that appear whole or not at all, and are known by their checksum."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from etils import epath

from codelm.errors import UserError


def check_writable(path: Path) -> None:
    """Say that a file cannot be written before the work that makes its content, not after."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    reason = "it is a folder" if path.is_dir() else ""
    if not reason:
        try:
            with tempfile.TemporaryFile(dir=folder):  # permissions do not tell all: there is /proc, there are quotas
                return
        except OSError as error:
            reason = f"{folder} is not a folder to write in ({error.strerror or error})"
    raise UserError(f"cannot write {path}: {reason}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target and rename, so that an interrupted write leaves what was there before."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def checksum(path: Path | epath.Path) -> str:
    """SHA-256 of a file, local or gs://, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
