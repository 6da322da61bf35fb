"""Makes stores of tokens: once for a corpus and a tokenizer, on all cores, going on after an interruption."""

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from codelm import formats
from codelm.errors import UserError
from codelm.progress import Bar
from codelm.publish import checksum
from codelm.tokenizer import Tokenizer
from data import dataset, runners, token_store, tokenize_range
from data.token_store import DOCUMENT, VERSION, TokenStore

_TASK_BYTES = 16 << 20  # of text: what an interruption loses
_MOST_SHARDS = 1 << 15  # a document's record has 16 bits for its shard


def store(corpus: str, split: str, tokenizer: Tokenizer, family: str, cache: Path, workers: int) -> TokenStore:
    """The tokens of a split of a corpus, or of a file of conversations (split empty); made if they are not there."""
    content = _content(corpus, split)
    key = [VERSION, content, split, tokenizer.fingerprint, family]
    folder = cache.expanduser() / "tokens" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    if not (folder / token_store.MANIFEST).exists():
        with only_one(folder):
            if not (folder / token_store.MANIFEST).exists():  # nor did another process make it in the meantime
                _make(corpus, split, tokenizer, family, folder, workers)
    found = token_store.load(folder)
    if found.manifest["vocab_size"] != tokenizer.vocab_size:
        raise UserError(
            f"{folder} was cut by a tokenizer of {found.manifest['vocab_size']} pieces, and this one has "
            f"{tokenizer.vocab_size}: delete it, it is made again"
        )
    return found


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Other processes of this machine that want the same folder wait, and then find it."""
    if folder.parent.parent == Path():
        raise UserError("--cache is empty: name a folder for tokens and rows")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f"{folder.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write in {folder.parent}: {error.strerror}; give another --cache") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _content(corpus: str, split: str) -> str:
    """What tells this corpus from others."""
    if split and Path(corpus).is_file():
        raise UserError(f"{corpus} is a file: conversations need level=chat, code a folder made by codelm data build")
    if split:
        return dataset.load(corpus).manifest["digest"]
    if not Path(corpus).is_file():
        raise UserError(f"no conversations at {corpus}: it is not a file")
    return checksum(Path(corpus))


def _make(corpus: str, split: str, tokenizer: Tokenizer, family: str, folder: Path, workers: int) -> None:
    staged = folder.with_name(f"{folder.name}.building")
    staged.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(corpus, split, tokenizer, family, staged)
    with Bar(f"tokenizing {corpus}", sum(task.stop - task.start for task in tasks), "documents") as bar:
        before = {task.number for task in tasks if tokenize_range.result_path(task).exists()}
        for task in runners.local(min(workers, len(tasks)))(tokenize_range.run, tasks):
            bar.advance(task.stop - task.start, worked=task.number not in before)
    _join(staged, tasks, {"corpus": corpus, "split": split, "family": family}, tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def _tasks(corpus: str, split: str, tokenizer: Tokenizer, family: str, staged: Path) -> list[tokenize_range.Task]:
    formats.family(family)
    if not split:
        return [tokenize_range.Task(corpus, split, 0, 1, tokenizer, family, str(staged), 0)]
    found = dataset.load(corpus)
    found.split(split)
    sums = found.manifest["splits"][split]
    each = max(sums["documents"] * _TASK_BYTES // max(sums["text_bytes"], 1), sums["documents"] // _MOST_SHARDS, 1)
    bounds = list(range(0, sums["documents"], each))
    return [
        tokenize_range.Task(corpus, split, at, min(at + each, sums["documents"]), tokenizer, family, str(staged), n)
        for n, at in enumerate(bounds)
    ]


def _join(staged: Path, tasks: list[tokenize_range.Task], about: dict[str, str], tokenizer: Tokenizer) -> None:
    """One index of documents over all shards, and the manifest."""
    shards = [json.loads(tokenize_range.result_path(task).read_text()) for task in tasks]
    counts = Counter[str]()
    for shard in shards:
        counts.update(shard["languages"])
    languages = [name for name, _ in counts.most_common()]
    total = sum(shard["documents"] for shard in shards)
    if not sum(shard["tokens"] for shard in shards):
        raise UserError(f"{about['corpus']} has no text: nothing to learn from")
    index = np.lib.format.open_memmap(staged / "documents.npy", "w+", DOCUMENT, (total,))
    at = 0
    for task, shard in zip(tasks, shards, strict=True):
        part = np.load(staged / f"documents-{task.name}.npy")
        code = np.array([languages.index(name) for name in shard["languages"]], np.uint16)
        part["language"] = code[part["language"]]
        index[at : at + len(part)] = part
        at += len(part)
    index.flush()
    np.save(staged / "character_starts.npy", token_store.character_starts(tokenizer.pieces))
    for task in tasks:
        (staged / f"documents-{task.name}.npy").unlink()
        tokenize_range.result_path(task).unlink()
    manifest = {
        "version": VERSION,
        **about,
        "vocab_size": tokenizer.vocab_size,
        "dtype": str(token_store.dtype_of(tokenizer.vocab_size)),
        "documents": total,
        "tokens": sum(shard["tokens"] for shard in shards),
        "languages": languages,
        "tokens_by_language": dict(counts.most_common()),
        "shards": [{kind: shard[kind] for kind in shard if kind != "languages"} for shard in shards],
    }
    token_store.write_manifest(staged, manifest)
