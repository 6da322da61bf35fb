"""A run of a corpus's documents, or a file of conversations, into one shard of tokens: what the workers do."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from codelm import formats
from codelm.errors import UserError
from codelm.formats import File, Rendered
from codelm.tokenizer import Tokenizer
from data import conversations, dataset
from data.document import Document
from data.imports import imports
from data.token_store import DOCUMENT, checksums, dtype_of

_LONGEST = 0xFFFF  # what a record of `DOCUMENT` has room for


@dataclass(frozen=True)
class Task:
    corpus: str
    """A corpus's folder, or a file of conversations."""
    split: str
    """Empty for conversations."""
    start: int
    stop: int
    tokenizer: Tokenizer
    family: str
    out: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.number:05}"


def result_path(task: Task) -> Path:
    """What the manifest says of the shard, written last."""
    return Path(task.out) / f"shard-{task.name}.json"


def run(task: Task) -> None:
    """Write the shard, unless it is there."""
    if result_path(task).exists():
        return
    shard = _Shard(task)
    try:
        for document in _documents(task):
            shard.add(*document)
    finally:
        shard.close()
    part = result_path(task).with_suffix(".part")
    part.write_text(json.dumps(shard.result()))
    part.rename(result_path(task))


def _documents(task: Task) -> Iterator[tuple[Document, Rendered, int, int]]:
    """Each document, its tokens, and what its path and its repository's name would add."""
    family = formats.family(task.family)
    if not task.split:
        for number, messages in conversations.read(Path(task.corpus)):
            try:
                rendered = formats.chat(family, task.tokenizer, messages, add_generation_prompt=False)
            except UserError as error:
                raise UserError(f"{task.corpus}:{number}: {error}") from error
            yield Document("", f"line {number}", task.corpus, "", "", ""), rendered, 0, 0
        return
    before, name_cost = len(family.start), cache(partial(_name_cost, family, task.tokenizer))
    for document in _read(task):
        rendered = formats.text(family, task.tokenizer, document.text)
        text = Rendered(rendered.ids[before:], rendered.roles[before:])
        yield document, text, _path_cost(family, task.tokenizer, document.path), name_cost(document.repository)


def _read(task: Task) -> Iterator[Document]:
    corpus = dataset.load(task.corpus)
    rows = corpus.split(task.split)
    for name in corpus.shards_of(task.split, task.start, task.stop):
        _verify(task.corpus, name)
    for number in range(task.start, task.stop):
        yield dataset.document_of(rows[number])


@cache
def _verify(corpus: str, name: str) -> None:
    """Once in a process: tasks that follow each other read the same file. Reading alone does not find all damage."""
    dataset.load(corpus).verify_file(name)


def _path_cost(family: formats.Family, tokenizer: Tokenizer, path: str) -> int:
    """Tokens that a file with this path, behind another file, has besides its text."""
    if family.repository is None:
        return 0
    one = formats.repository(family, tokenizer, "", [File(None, [0])])
    both = formats.repository(family, tokenizer, "", [File(None, [0]), File(path, [0])])
    return min(len(both.ids) - len(one.ids) - 1, _LONGEST)


def _name_cost(family: formats.Family, tokenizer: Tokenizer, name: str) -> int:
    """Tokens that a repository's name puts before its first file."""
    if family.repository is None:
        return 0
    bare, named = (formats.repository(family, tokenizer, said, [File(None, [0])]) for said in ("", name))
    return min(len(named.ids) - len(bare.ids), _LONGEST)


class _Shard:
    """Files that grow document by document."""

    def __init__(self, task: Task) -> None:
        self.task, self.folder = task, Path(task.out)
        self.kind = dtype_of(task.tokenizer.vocab_size)
        self.records: list[tuple[int, ...]] = []
        self.languages: dict[str, int] = {}
        self.tokens, self.names, self.counts = 0, 0, Counter[str]()
        self._open = ExitStack()
        kinds = ("tokens", "names", "roles") if not task.split else ("tokens", "names")
        self._files = {kind: self._open.enter_context(self._path(kind).open("wb")) for kind in kinds}

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}-{self.task.name}.{'jsonl' if kind == 'names' else 'bin'}"

    def add(self, document: Document, rendered: Rendered, header: int, name: int) -> None:
        names = {"repository": document.repository, "path": document.path, "language": document.language}
        found = imports(document.text, document.language)
        content = json.dumps({**names, "imports": found}).encode() + b"\n"
        language = self.languages.setdefault(document.language, len(self.languages))
        repository = int.from_bytes(hashlib.blake2b(document.repository.encode(), digest_size=8).digest(), "little")
        count = len(rendered.ids)
        self.records.append((self.tokens, self.names, repository, count, header, name, language, self.task.number))
        self._files["tokens"].write(np.array(rendered.ids, self.kind).tobytes())
        self._files["names"].write(content)
        if "roles" in self._files:
            self._files["roles"].write(bytes(rendered.roles))
        self.tokens, self.names = self.tokens + count, self.names + len(content)
        self.counts[document.language] += count

    def close(self) -> None:
        self._open.close()

    def result(self) -> dict[str, Any]:
        """Checksums and the index of documents are made of the whole files."""
        for kind, of in (("tokens", self.kind), ("roles", np.dtype(np.uint8))):
            if kind in self._files:
                ids = np.memmap(self._path(kind), of, "r") if self.tokens else np.empty(0, of)
                checksums(ids).tofile(f"{self._path(kind)}.crc")
        np.save(self.folder / f"documents-{self.task.name}.npy", np.array(self.records, DOCUMENT))
        files = {kind: self._path(kind).name for kind in self._files}
        counts = {language: self.counts[language] for language in self.languages}
        return {"files": files, "documents": len(self.records), "tokens": self.tokens, "languages": counts}
