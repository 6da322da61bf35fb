"""Duplicates over tables of documents, against the definition: all pairs compared, clusters followed by hand."""

import itertools
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from codelm.corpus_config import DedupConfig
from data import duplicates, minhash, parts
from data.document import Document

CONFIG = DedupConfig(threshold=0.6, permutations=32)


def table(folder: Path, count: int, seed: int = 0) -> duplicates.Table:
    """Random documents, a good part of them exact or near copies of others, with ranks that often tie."""
    rng = np.random.default_rng(seed)
    index = np.zeros(count, parts.INDEX)
    base = rng.integers(0, 256, (count // 4, CONFIG.permutations), np.uint8)
    origin = rng.integers(0, count // 4, count)
    noise = rng.random((count, CONFIG.permutations)) < rng.choice([0, 0.1, 0.25, 0.9], count)[:, None]
    sketches = np.where(noise, rng.integers(0, 256, noise.shape), base[origin]).astype(np.uint8)
    # Exact copies have the same text, so the same hash and the same sketch.
    for i in range(count):
        if i and rng.random() < 0.3:
            j = rng.integers(0, i)
            sketches[i], index["exact"][i] = sketches[j], index["exact"][j]
        else:
            index["exact"][i] = rng.integers(0, 2**63, 2, np.uint64)
    for name in ("stars", "date", "plainness"):
        index[name] = rng.integers(0, 3, count)
    folder.mkdir(parents=True, exist_ok=True)
    return duplicates.Table(index, sketches, folder)


def rank(table: duplicates.Table, i: int, keep: tuple[str, ...]) -> tuple[int, ...]:
    columns = {"stars": "stars", "newest": "date", "path": "plainness"}
    return (*(-int(table.index[columns[rule]][i]) for rule in keep), i)


def by_definition(table: duplicates.Table, config: DedupConfig) -> tuple[list[int], list[int]]:
    """(kept, why) of every item."""
    count = len(table)
    kept, why = list(range(count)), [duplicates.KEPT] * count
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in range(count):
        groups.setdefault(tuple(table.index["exact"][i].tolist()), []).append(i)
    for members in groups.values():
        best = min(members, key=lambda i: rank(table, i, config.keep))
        for i in members:
            if i != best:
                kept[i], why[i] = best, duplicates.EXACT
    left = [i for i in range(count) if why[i] == duplicates.KEPT]
    rows = minhash.rows_per_band(config.threshold, config.permutations)
    bands = [slice(b * rows, b * rows + rows) for b in range(config.permutations // rows)]
    cluster = {i: {i} for i in left}
    for i, j in itertools.combinations(left, 2):
        a, b = table.sketches[i], table.sketches[j]
        agree = ((a == b).mean() - 1 / 256) / (1 - 1 / 256)
        if agree >= config.threshold and any((a[band] == b[band]).all() for band in bands):
            both = cluster[i] | cluster[j]
            for k in both:
                cluster[k] = both
    for i in left:
        best = min(cluster[i], key=lambda k: rank(table, k, config.keep))
        if best != i:
            kept[i], why[i] = best, duplicates.NEAR
    return [kept[k] for k in kept], why


@pytest.mark.parametrize("memory", [1 << 28, 1 << 14])
@pytest.mark.parametrize("keep", [("stars", "newest", "path"), ("path",), ("newest", "stars"), ()])
def test_verdicts_are_those_of_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, keep: tuple
) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", 37)
    config = DedupConfig(threshold=0.6, permutations=32, keep=keep)
    documents = table(tmp_path / "t", 300)
    verdicts = duplicates.decide(documents, config, (), memory, duplicates.pairs_here(memory))
    kept, why = by_definition(documents, config)
    assert why.count(duplicates.EXACT) > 40
    assert why.count(duplicates.NEAR) > 40
    assert verdicts.why.tolist() == why
    assert verdicts.kept.tolist() == kept


def test_half_a_hash_makes_no_exact_copy(tmp_path: Path) -> None:
    documents = table(tmp_path / "t", 40)
    documents.index["exact"][:, 0] = 7
    documents.index["exact"][:, 1] = np.arange(40) // 2
    verdicts = duplicates.decide(documents, CONFIG, ("near_duplicates",), 1 << 20, duplicates.pairs_here(1 << 20))
    assert (verdicts.kept // 2).tolist() == (np.arange(40) // 2).tolist()
    assert (verdicts.why == duplicates.EXACT).sum() == 20


@pytest.mark.parametrize(
    ("skip", "absent"), [("exact_duplicates", duplicates.EXACT), ("near_duplicates", duplicates.NEAR)]
)
def test_a_skipped_step_finds_nothing(tmp_path: Path, skip: str, absent: int) -> None:
    documents = table(tmp_path / "t", 100)
    verdicts = duplicates.decide(documents, CONFIG, (skip,), 1 << 20, duplicates.pairs_here(1 << 20))
    assert absent not in verdicts.why
    assert (verdicts.why != duplicates.KEPT).any()


def test_components_follow_chains_in_any_order(tmp_path: Path) -> None:
    documents = table(tmp_path / "t", 200)
    rng = random.Random(0)
    names = list(range(200))
    rng.shuffle(names)
    chains = [names[:90], names[90:130], names[130:140]]
    pairs = [(a, b) for chain in chains for a, b in itertools.pairwise(chain)]
    rng.shuffle(pairs)
    labels = duplicates.components(documents, np.array_split(np.array(pairs), 9))
    for chain in chains:
        assert set(labels[chain].tolist()) == {min(chain)}
    assert labels[names[140:]].tolist() == names[140:]


def written(folder: Path, key: str, repository: str, level: str, texts: list[str]) -> parts.Part:
    from codelm.corpus_config import CorpusConfig
    from data import clean_unit

    config = CorpusConfig(dedup=DedupConfig(level=level, permutations=16))  # pyrefly: ignore
    with parts.Writer(parts.epath.Path(folder), key) as writer:
        for n, text in enumerate(texts):
            document = Document(text, f"f{n}.py", repository, "Python", "MIT", "")
            writer.keep(document, *clean_unit.describe(document, config, writer.tally))
    part = parts.find(parts.epath.Path(folder), key)
    assert part
    return part


def test_repositories_are_compared_as_the_union_of_their_files(tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [" ".join(f"w{rng.randrange(3000)}" for _ in range(200)) for _ in range(9)]
    fork = [*texts[:3], texts[3] + " and some more words at the very end"]
    config = DedupConfig(level="repository", permutations=16)
    found = [
        written(tmp_path, "c", "other", "repository", texts[5:]),
        written(tmp_path, "a", "one", "repository", texts[:2]),
        written(tmp_path, "b", "one", "repository", texts[2:4]),
        written(tmp_path, "d", "fork", "repository", fork),
        written(tmp_path, "e", "copy", "repository", list(reversed(texts[:4]))),
    ]
    whole, number = duplicates.of_repositories(found, 16, config, True, tmp_path / "r")
    assert number.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    together = minhash.signature(np.concatenate([duplicate_words(t) for t in texts[:4]]), config)
    # The union's signature, up to the few runs of words that cross from one file to the next.
    assert (whole.sketches[1] == minhash.sketch(together)).mean() > 0.8
    files = duplicates.of_documents(found, 16, config, True, tmp_path / "f")
    verdicts = duplicates.decide(whole, config, (), 1 << 20, duplicates.pairs_here(1 << 20))
    documents = duplicates.of_their_documents(verdicts, number, files)
    assert documents.why.tolist() == [0] * 8 + [duplicates.NEAR] * 4 + [duplicates.EXACT] * 4
    assert documents.kept.tolist() == [*range(8), *[4] * 8], "the first document of the repository that stays"


def test_documents_of_repositories_are_told_in_bounded_memory(tmp_path: Path) -> None:
    count = 1_000_000
    number = np.memmap(tmp_path / "number", np.int64, "w+", shape=(count,))
    number[:] = np.arange(count) // 1000
    index = np.memmap(tmp_path / "index", parts.INDEX, "w+", shape=(count,))
    files = duplicates.Table(index, np.empty((count, 0), np.uint8), tmp_path)
    repositories = duplicates.Verdicts(np.arange(1000) // 2 * 2, np.arange(1000).astype(np.uint8) % 2 * duplicates.NEAR)
    tracemalloc.start()
    try:
        verdicts = duplicates.of_their_documents(repositories, number, files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verdicts.kept[[999, 1000, 1999, 2000]].tolist() == [999, 0, 0, 2000]
    assert peak < 4 << 20 < 8 * count


def duplicate_words(text: str) -> np.ndarray:
    from data import shingles

    return shingles.words(text)
