"""Source files that suites are made of: those that a run held out of its corpus, or those of a file or folder.

The same ones every time. Of many, whole stretches are taken, because files of a repository stand beside each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from codelm import config_io, text_files
from codelm.errors import UserError
from data import dataset, decoding
from data.document import Document, Raw
from data.inputs import CORPUS
from experiments.evals.catalogue import Data
from experiments.records import CONFIG, run_around
from train import held_out

MOST = 4096  # files that are looked at
LARGEST = 1 << 16  # characters of a file; of a longer one it is the beginning
_STRETCH = 64  # files
_SEED = 0xF17E
_LARGEST_READ = 1 << 22  # bytes


def files(data: Data, suite: str) -> list[Document]:
    """In the order of the corpus, or of their paths; blank ones are left out."""
    wanted = f"text held out: give source files, {suite}:FOLDER"
    found = _given(Path(data.given)) if data.given else _held_out(run_of(data.run, wanted))
    kept = [document for document in found if document.text.strip()]
    if not kept:
        raise UserError(f"no source text in {data.given or data.run}: {suite} is made of source files")
    return kept


def some[Item](items: Sequence[Item], most: int) -> list[Item]:
    """So many of them in random order, the same ones every time."""
    order = np.random.default_rng(_SEED).permutation(len(items))
    return [items[at] for at in order[:most].tolist()]


def run_of(path: Path | None, wanted: str) -> Path:
    """The run's folder, where it or a checkpoint in it is measured; `wanted` is what only a run has."""
    run = run_around(path) if path else None
    if run is None:
        raise UserError(f"{path or 'a server'} is no run, which would have {wanted}")
    return run


def _held_out(run: Path) -> Iterator[Document]:
    config = config_io.load(run / CONFIG)
    for source in held_out.sources(config, str(run / CORPUS)):
        rows = dataset.load(source.corpus or str(run / CORPUS)).split(held_out.SPLIT)
        for number in _stretches(len(rows)):
            document = dataset.document_of(rows[number])
            if not source.languages or document.language in source.languages:
                yield _cut(document)


def _given(path: Path) -> Iterator[Document]:
    """What is text; files in a folder of the folder are a repository's."""
    found = text_files.find([path])
    for number in _stretches(len(found)):
        file = found[number]
        inside = file.path.relative_to(path) if path.is_dir() else Path(file.path.name)
        if file.size <= _LARGEST_READ:
            text = decoding.decode(Raw(file.path.read_bytes(), inside.as_posix()))
            if isinstance(text, str):
                repository = inside.parts[0] if len(inside.parts) > 1 else path.name
                yield _cut(Document(text, inside.as_posix(), repository, file.language, "", ""))


def _stretches(count: int) -> list[int]:
    """Numbers of rows: all, or those of random stretches."""
    if count <= MOST:
        return list(range(count))
    starts = np.random.default_rng(_SEED).permutation(count // _STRETCH)[: MOST // _STRETCH]
    return [int(start) * _STRETCH + at for start in np.sort(starts) for at in range(_STRETCH)]


def _cut(document: Document) -> Document:
    return replace(document, text=document.text[:LARGEST])
