"""The files that suites of holes are made of: of repositories in a folder, or those that a corpus holds out.

What a model was trained on tells little. A corpus's held-out repositories it was not trained on; those of a folder are
left out where a corpus that is given trained on them.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codelm.errors import UserError
from codelm.languages import language_of
from data import dataset, decoding, licences, sources
from data.dataset import Corpus
from data.document import Document, Drop, Raw
from train.held_out import SPLIT

_LARGEST = 60_000  # characters: of a larger file a prompt shows little
_LONGEST_LINE = 500  # characters: beyond, nobody wrote it by hand
_TRAIN = "train"


@dataclass(frozen=True)
class Documents:
    by_repository: Mapping[str, list[Document]]
    """Repositories and their files in order."""
    origin: Mapping[str, Any]
    """Where they are from, for a manifest."""
    about: str
    """The same, for a person."""


def read(folder: Path, unseen_by: Path | None = None) -> Documents:
    """Of a corpus what it holds out, of any other folder all; without what the corpus `unseen_by` trained on."""
    if (folder / dataset.MANIFEST).is_file():
        if unseen_by:
            raise UserError(f"{folder} is a corpus, of which only what it holds out is taken: leave --unseen-by out")
        corpus = dataset.load(folder)
        found = list(corpus.documents(SPLIT))
        origin = {"kind": "held out", "corpus": corpus.manifest["digest"]}
        about = f"repositories that the corpus {corpus.manifest['digest'][:12]} holds out"
    else:
        found = list(_in_folder(folder))
        origin, about = {"kind": "folder", "unseen_by": ""}, "repositories of a folder, which a model may have seen"
        if unseen_by:
            corpus = dataset.load(unseen_by)
            found = list(_unseen(found, corpus))
            origin["unseen_by"] = corpus.manifest["digest"]
            about = f"repositories that the corpus {corpus.manifest['digest'][:12]} does not train on"
    by_repository: dict[str, list[Document]] = {}
    by_path = {(document.repository, document.path): document for document in found}  # two copies may have one name
    for (repository, _), document in sorted(by_path.items()):
        if document.language and _is_code(document.text):
            by_repository.setdefault(repository, []).append(document)
    if not by_repository:
        raise UserError(f"no file of a repository to make holes in under {folder}")
    return Documents(by_repository, origin, about)


def _in_folder(folder: Path) -> Iterator[Document]:
    for unit in sources.units([f"repositories:{folder}"]):
        for item in sources.read(unit, 4 * _LARGEST):
            if isinstance(item, Raw) and not isinstance(text := decoding.decode(item), Drop):
                path = item.path.encode(errors="replace").decode()  # a name on disk need be no text
                language = language_of(path, text) or ""
                licence = licences.joined(item.licences)
                yield Document(text, path, item.repository, language, licence, item.provenance)


def _unseen(documents: list[Document], corpus: Corpus) -> Iterator[Document]:
    """Neither of a repository of that name nor with a file's very text."""
    names, texts = set[str](), set[bytes]()
    for document in corpus.documents(_TRAIN):
        names.add(document.repository)
        texts.add(_digest(document))
    for document in documents:
        if document.repository not in names and _digest(document) not in texts:
            yield document


def _digest(document: Document) -> bytes:
    return hashlib.sha256(document.text.encode()).digest()


def _is_code(text: str) -> bool:
    return 0 < len(text) <= _LARGEST and max(map(len, text.split("\n"))) <= _LONGEST_LINE
