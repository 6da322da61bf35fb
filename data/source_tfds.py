"""The source `tfds:NAME[:SPLIT]`: a TensorFlow Datasets dataset already prepared, by its name or its folder."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from codelm.errors import UserError
from data import source_columns, source_tree
from data.document import Unreadable
from data.sources import Item, Unit

_ROWS = 256  # read at once


def split_place(place: str, default: str) -> tuple[str, str]:
    """`NAME[:SPLIT]` in two. A colon before a path's slash or a version number is the name's."""
    name, colon, split = place.rpartition(":")
    if not colon or "/" in split or re.fullmatch(r"[\d.*]+", split):
        return place, default
    return name, split


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    name, split = split_place(place, "train")
    builder = _builder(name)
    rows = _rows(builder, name, split)
    features = list(builder.info.features or ())
    if source_columns.text_column(features) is None:
        raise source_columns.no_text(name, features)
    count = len(rows)
    size = builder.info.splits[split].num_bytes if split in builder.info.splits else 0
    per_row = max(size // max(count, 1), 1)
    step = max(unit_bytes // per_row, 1)
    version = f"{builder.info.full_name}-{count}-{size}"
    for i, start in enumerate(range(0, count, step)):
        bounds = (start, min(start + step, count))
        context = (("name", name), ("split", split), ("label", builder.info.full_name))
        yield Unit(
            spec, f"{name}:{split}#{i}", tuple(map(str, bounds)), per_row * (bounds[1] - bounds[0]), version, context
        )


def _builder(name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        if source_tree.is_remote(name) or name.startswith((".", "/", "~")) or _is_folder(name):
            return tfds.builder_from_directory(name)
        return tfds.builder(name)
    except Exception as error:  # it raises many kinds, for what is to the user one thing
        why = source_tree.first_line(error)
        raise UserError(f"no TFDS dataset {name!r} on this machine, by name or as a folder: {why}") from None


def _is_folder(name: str) -> bool:
    from pathlib import Path

    return (Path(name) / "dataset_info.json").is_file()


def _rows(builder: Any, name: str, split: str) -> Any:
    if split not in builder.info.splits and not re.match(r"\w+\[", split):
        there = ", ".join(builder.info.splits) or "none: it is not prepared on this machine"
        raise UserError(f"{name} has no split {split!r}; it has {there}")
    try:
        return builder.as_data_source(split)
    except Exception as error:  # it raises many kinds, for what is to the user one thing
        raise UserError(f"cannot read {name} by row: {source_tree.first_line(error)}") from None


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    context = dict(unit.context)
    name, label = context["name"], f"{context['label']}/{context['split']}"
    start, end = map(int, unit.items)
    try:
        rows = _rows(_builder(name), name, context["split"])
        for first in range(start, end, _ROWS):
            some = range(first, min(first + _ROWS, end))
            for i, row in zip(some, rows.__getitems__(list(some)), strict=True):
                yield source_columns.to_item(_plain(row), label, i, max_bytes)
    except Exception as error:  # a shard that is broken, as ArrayRecord's library or the store says it
        yield Unreadable(label, source_tree.first_line(error))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's scalars and arrays as Python's."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in row.items()}
