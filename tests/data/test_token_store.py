"""Tokens on disk: what was put in comes out, what is damaged says which file, what is there is not made again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from codelm.errors import UserError
from data import token_store, tokenize_range, tokenizing
from data.token_store import BLOCK, TokenStore, checksums
from tests.data.batches import Batches, build_corpus
from tests.data.made_corpus import module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"repo_name": f"o/{n % 5}", "path": f"m{n}.py", "content": module(n, 8)} for n in range(40)]
    return build_corpus(tmp_path_factory.mktemp("corpus"), "c", rows)


def store(batches: Batches, corpus: Path, cache: Path, **changed: str) -> TokenStore:
    split, family = changed.get("split", "train"), changed.get("family", "codelm")
    return tokenizing.store(str(corpus), split, batches.tokenizer, family, cache, 1)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "_TASK_BYTES", 20_000)


def test_every_document_is_there(batches: Batches, corpus: Path, tmp_path: Path, small_tasks: None) -> None:
    found = store(batches, corpus, tmp_path)
    texts = batches.texts(corpus)
    assert len(found) == len(texts) == 40
    assert len(found.manifest["shards"]) > 3
    for number in range(40):
        names, record = found.names(number), found.documents[number]
        expected = batches.tokenizer.encode(texts.pop((names.repository, names.path)))
        assert found.tokens(number, 0, int(record["tokens"])).tolist() == expected
        assert found.languages[record["language"]] == names.language == "Python"
        assert int(record["header"]) == 1 + len(batches.tokenizer.encode(names.path + "\n"))
        assert int(record["name"]) == 1 + len(batches.tokenizer.encode(names.repository + "\n"))
    assert not texts
    assert found.manifest["tokens"] == int(found.documents["tokens"].sum())


def test_it_is_the_same_for_any_workers(batches: Batches, corpus: Path, tmp_path: Path, small_tasks: None) -> None:
    one = store(batches, corpus, tmp_path / "1")
    two = tokenizing.store(str(corpus), "train", batches.tokenizer, "codelm", tmp_path / "2", 2)
    for file in sorted(one.folder.iterdir()):
        assert file.read_bytes() == (two.folder / file.name).read_bytes(), file.name


def test_it_is_made_once(batches: Batches, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store(batches, corpus, tmp_path)
    monkeypatch.setattr(tokenize_range, "run", lambda task: pytest.fail("made again"))
    assert store(batches, corpus, tmp_path).folder == first.folder


def test_an_interrupted_one_goes_on(
    batches: Batches, corpus: Path, tmp_path: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = store(batches, corpus, tmp_path / "whole")
    count, read = len(whole.manifest["shards"]), []
    inner = tokenize_range._read

    def spied(task: tokenize_range.Task):
        read.append(task.number)
        if len(read) == 3:
            raise KeyboardInterrupt
        yield from inner(task)

    monkeypatch.setattr(tokenize_range, "_read", spied)
    with pytest.raises(KeyboardInterrupt):
        store(batches, corpus, tmp_path / "parts")
    found = store(batches, corpus, tmp_path / "parts")
    assert read == [0, 1, 2, *range(2, count)], "only what was not finished is read again"
    assert np.array_equal(found.documents, whole.documents)


def test_a_flipped_bit_names_the_file(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    found = store(batches, corpus, tmp_path)
    path = found.folder / "tokens-00000.bin"
    content = bytearray(path.read_bytes())
    content[BLOCK * 2 + 10] ^= 1  # in the second block: two bytes a token
    path.write_bytes(content)
    damaged = token_store.load(found.folder)
    first = damaged.documents[0]
    assert damaged.tokens(0, 0, 5).tolist() == found.tokens(0, 0, 5).tolist(), "its own block is as it was"
    assert first["tokens"] < BLOCK
    number = int(np.searchsorted(damaged.documents["start"], BLOCK, "right")) - 1
    with pytest.raises(UserError, match=r"tokens-00000.bin is corrupt: delete .*, it is made again"):
        damaged.tokens(number, 0, int(damaged.documents[number]["tokens"]))


@pytest.mark.parametrize("name", ["documents.npy", "names-00000.jsonl", "character_starts.npy", "tokens-00000.bin.crc"])
def test_a_flipped_bit_in_the_index_names_the_file(batches: Batches, corpus: Path, tmp_path: Path, name: str) -> None:
    path = store(batches, corpus, tmp_path).folder / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is corrupt: delete .*, it is made again"):
        token_store.load(path.parent)


def test_a_damaged_manifest_names_itself(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    path = store(batches, corpus, tmp_path).folder / "manifest.json"
    for damaged in ("", "{", "[]", "{}"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"manifest.json is missing or corrupt: delete"):
            token_store.load(path.parent)


def test_a_short_file_names_itself(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    found = store(batches, corpus, tmp_path)
    path = found.folder / "tokens-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"tokens-00000.bin is missing or cut short"):
        token_store.load(found.folder)


def test_a_corrupt_corpus_names_its_shard(batches: Batches, tmp_path: Path) -> None:
    rows = [{"repo_name": "o/r", "path": f"m{n}.py", "content": module(n, 8)} for n in range(30)]
    corpus = build_corpus(tmp_path, "c", rows)
    (shard,) = corpus.glob("*array_record*")
    content = bytearray(shard.read_bytes())
    for at in range(len(content) // 4, len(content) // 2):
        content[at] ^= 0x55
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard.name} is corrupt"):
        store(batches, corpus, tmp_path / "cache")


def test_another_version_is_refused(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    found = store(batches, corpus, tmp_path)
    path = found.folder / "manifest.json"
    path.write_text(json.dumps({**found.manifest, "version": 99}))
    with pytest.raises(UserError, match=r"has version 99, and this codelm reads version 2: delete"):
        token_store.load(found.folder)


def test_another_tokenizer_has_its_own(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    from codelm import tokenizer_training
    from codelm.sentencepiece_tokenizer import from_proto

    other = from_proto(tokenizer_training.train([line for n in range(30) for line in module(n).splitlines(True)], 600))
    one = store(batches, corpus, tmp_path)
    two = tokenizing.store(str(corpus), "train", other, "codelm", tmp_path, 1)
    assert one.folder != two.folder
    assert two.manifest["vocab_size"] == 600
    shutil.rmtree(one.folder)
    two.folder.rename(one.folder)
    with pytest.raises(UserError, match="was cut by a tokenizer of 600 pieces, and this one has 700"):
        store(batches, corpus, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(batches: Batches, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another --cache"):
        store(batches, corpus, tmp_path / "file")


def test_checksums_are_one_a_block() -> None:
    import zlib

    ids = np.arange(2 * BLOCK + 5, dtype=np.uint16)
    assert checksums(ids).tolist() == [zlib.crc32(ids[a : a + BLOCK].tobytes()) for a in (0, BLOCK, 2 * BLOCK)]
