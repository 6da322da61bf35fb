"""JSON lines, plain, gzip or zstd, read as documents in memory bounded by the largest document wanted."""

import gzip
import io
import json
from collections.abc import Iterator
from typing import Any

from codelm.errors import UserError
from data import source_columns, source_tree
from data.document import Raw, TooLarge, Unreadable

_BUFFER = 1 << 18
_SLACK = 1 << 16  # bytes of a line for what else a row says
_CHECKED = 1 << 20  # bytes of the first line that are looked at for its columns


def check(path: str) -> None:
    """Refuse a file whose first row has no text; what cannot be read at all is for `read` to list."""
    try:
        with opened(path) as lines:
            row = json.loads(lines.readline(_CHECKED))
    except UserError:
        raise
    except Exception:  # whatever is wrong is said line by line later
        return
    if isinstance(row, dict) and source_columns.text_column(row) is None:
        nested = [row[name] for name in source_columns.NESTED if isinstance(row.get(name), dict)]
        if not any(source_columns.text_column(inside) for inside in nested):
            raise source_columns.no_text(path, row)


def read(path: str, name: str, start: int, end: int, max_bytes: int) -> Iterator[Raw | TooLarge | Unreadable]:
    """Rows of the lines that begin in [start, end); a compressed file is read as a whole.

    JSON spells a character in up to twice its bytes, so that is how long a line may be and still hold a document of
    `max_bytes`; of a longer one no more than a part is ever in memory.
    """
    limit = 2 * max_bytes + _SLACK
    try:
        with opened(path) as lines:
            if _is_compressed(path):
                start, end = 0, -1
            for position, line in _lines(lines, start, end, limit):
                if isinstance(line, int):
                    yield TooLarge(f"{name}:{position}", "", line)
                elif line.strip():
                    yield _row(line, name, position, max_bytes)
    except UserError:
        raise
    except Exception as error:  # a codec's or a remote store's library raises its own kinds
        yield Unreadable(name, source_tree.first_line(error))


def _row(line: bytes, name: str, position: int, max_bytes: int) -> Raw | TooLarge | Unreadable:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"{name}:{position}", source_tree.first_line(error))
    if not isinstance(row, dict):
        return Unreadable(f"{name}:{position}", "the line is not a JSON object")
    return source_columns.to_item(row, name, position, max_bytes)


def _lines(file: io.BufferedReader, start: int, end: int, limit: int) -> Iterator[tuple[int, bytes | int]]:
    """Where each line that begins in [start, end) begins, and the line, or how long it is if that is over the limit."""
    position = start
    if start:  # a line that begins at `start` is ours: the byte before it ends the one before
        file.seek(start - 1)
        position = start - 1 + sum(map(len, _parts(file)))
    while end < 0 or position < end:
        line = file.readline(limit + 1)
        if not line:
            return
        size = len(line)
        if size <= limit or line.endswith(b"\n"):
            yield position, line
        else:
            size += sum(map(len, _parts(file)))
            yield position, size
        position += size


def _parts(file: io.BufferedReader) -> Iterator[bytes]:
    """The rest of a line, in parts."""
    while part := file.readline(_BUFFER):
        yield part
        if part.endswith(b"\n"):
            return


def _is_compressed(path: str) -> bool:
    return path.endswith((".gz", ".zst"))


def opened(path: str) -> io.BufferedReader:
    """The file's text, unpacked; closing it closes the file."""
    file = source_tree.open_binary(path)
    try:
        if path.endswith(".gz"):
            return _Closing(gzip.GzipFile(fileobj=file), file)
        if path.endswith(".zst"):
            return _Closing(_zstd(file), file)
        return file
    except BaseException:
        file.close()
        raise


def _zstd(file: io.BufferedReader) -> Any:
    """Arrow's reader, because it tells a file that was cut short from one that ends."""
    try:
        import pyarrow
    except ImportError:
        raise UserError('reading .zst needs pyarrow: make install EXTRAS="data"') from None
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


class _Closing(io.BufferedReader):
    """A buffer over an unpacking stream that closes the packed file too."""

    def __init__(self, unpacked: Any, packed: io.BufferedReader) -> None:
        super().__init__(unpacked, _BUFFER)
        self._packed = packed

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._packed.close()
