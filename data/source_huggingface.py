"""The source `hf:NAME[:SPLIT]`: a Hugging Face dataset, streamed, or as its library saved it to a folder."""

import os
from collections.abc import Iterator
from typing import Any

from codelm.errors import UserError
from data import source_columns, source_tree
from data.document import Unreadable
from data.source_tfds import split_place
from data.sources import Item, Unit


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    """One for every shard: a stream tells nothing of its sizes."""
    name, split = split_place(place, "train")
    dataset = _dataset(name, split)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if source_columns.text_column(columns) is None:
        raise source_columns.no_text(name, columns)
    shards = max(getattr(dataset, "num_shards", 1) or 1, 1)
    info = dataset.info
    size = (getattr(info, "dataset_size", None) or 0) // shards
    version = f"{getattr(info, 'version', '')}-{getattr(info, 'dataset_size', '')}-{shards}"
    for i in range(shards):
        context = (("name", name), ("split", split))
        yield Unit(spec, f"{name}:{split}#{i}", (str(i), str(shards)), size, version, context)


def _dataset(name: str, split: str) -> Any:
    try:
        import datasets  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError("the source hf needs the library datasets: pip install datasets") from None
    try:
        if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "README.md")):
            found = datasets.load_from_disk(name)
            return found[split] if isinstance(found, dict) else found
        return datasets.load_dataset(name, split=split, streaming=True)
    except Exception as error:  # it raises many kinds, for what is to the user one thing
        raise UserError(f"cannot open the dataset {name!r}, split {split!r}: {source_tree.first_line(error)}") from None


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    context = dict(unit.context)
    shard, shards = map(int, unit.items)
    label = f"{context['name']}/{context['split']}-{shard}"
    try:
        rows = _dataset(context["name"], context["split"])
        if shards > 1:
            rows = rows.shard(num_shards=shards, index=shard)
        for i, row in enumerate(rows):
            yield source_columns.to_item(row, label, i, max_bytes)
    except Exception as error:  # the network's kinds among them
        yield Unreadable(label, source_tree.first_line(error))
