"""Parquet files read as documents: row group by row group, only the columns that are understood, in small batches."""

from collections.abc import Iterator
from typing import Any

from codelm.errors import UserError
from data import source_columns, source_tree
from data.document import Raw, TooLarge, Unreadable

_BATCH = 4 << 20  # bytes of rows held at once, about
_BUFFER = 1 << 20  # bytes of a column read at once: a row group's column need not fit in memory


def _arrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError('reading Parquet needs pyarrow: make install EXTRAS="data"') from None
    return pyarrow


def row_groups(path: str, size: int, unit_bytes: int) -> Iterator[tuple[list[int], int]]:
    """Runs of row groups of about `unit_bytes` of wanted columns, and their bytes; a file that is broken is one run."""
    arrow = _arrow()
    try:
        with source_tree.open_binary(path) as raw, arrow.parquet.ParquetFile(raw) as file:
            columns = set(_columns(file, path))
            sizes = [_size(file.metadata.row_group(i), columns) for i in range(file.metadata.num_row_groups)]
    except UserError:
        raise
    except Exception:  # reading says what is wrong
        yield [], size
        return
    run: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if run and total + size > unit_bytes:
            yield run, total
            run, total = [], 0
        run.append(i)
        total += size
    if run:
        yield run, total


def _columns(file: Any, path: str) -> list[str]:
    names = list(file.schema_arrow.names)
    if source_columns.text_column(names) is None and not _nested_text(file.schema_arrow):
        raise source_columns.no_text(path, names)
    return [name for name in names if name in source_columns.KNOWN]


def _nested_text(schema: Any) -> bool:
    fields = [schema.field(name).type for name in source_columns.NESTED if name in schema.names]
    structs = [[field.name for field in kind] for kind in fields if _arrow().types.is_struct(kind)]
    return any(source_columns.text_column(names) for names in structs)


def _size(group: Any, columns: set[str]) -> int:
    parts = (group.column(i) for i in range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if part.path_in_schema.partition(".")[0] in columns)


def read(path: str, name: str, groups: list[int], max_bytes: int) -> Iterator[Raw | TooLarge | Unreadable]:
    arrow = _arrow()
    try:
        with (
            source_tree.open_binary(path) as raw,
            arrow.parquet.ParquetFile(raw, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            columns = _columns(file, path)
            about = file.metadata
            for i in groups or range(about.num_row_groups):
                position = sum(about.row_group(k).num_rows for k in range(i))
                rows = about.row_group(i).num_rows
                batch_rows = max(1, min(1024, _BATCH * rows // max(_size(about.row_group(i), set(columns)), 1)))
                for batch in file.iter_batches(batch_rows, row_groups=[i], columns=columns, use_threads=False):
                    yield from _rows(batch, name, position, max_bytes)
                    position += batch.num_rows
    except UserError:
        raise
    except Exception as error:  # Arrow's and a remote store's library raise their own kinds
        yield Unreadable(name, source_tree.first_line(error))


def _rows(batch: Any, name: str, position: int, max_bytes: int) -> Iterator[Raw | TooLarge | Unreadable]:
    """The text as bytes: whether it is UTF-8 is for decoding to see."""
    text = source_columns.text_column(batch.schema.names)
    others = [column for column in batch.schema.names if column != text]
    rows = _values(batch.select(others)) if others else [{}] * batch.num_rows
    if text is None:
        yield from (source_columns.to_item(row, name, position + i, max_bytes) for i, row in enumerate(rows))
        return
    values = batch.column(text).cast(_arrow().large_binary())
    for i, (row, content) in enumerate(zip(rows, values, strict=True)):
        yield source_columns.to_item({**row, text: content.as_py()}, name, position + i, max_bytes)


def _values(batch: Any) -> list[dict[str, Any]]:
    """Rows as dicts; a string that is not UTF-8 costs its row's other columns, not the batch."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_value(batch.slice(i, 1)) for i in range(batch.num_rows)]


def _value(row: Any) -> dict[str, Any]:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return {}
