"""Signatures and bands, against Jaccard similarity computed from sets of words."""

import random
import re

import numpy as np
import pytest

from codelm.corpus_config import DedupConfig
from data import minhash, shingles

CONFIG = DedupConfig()


def shingle_set(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[A-Za-z0-9_]+", text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str) -> float:
    x, y = shingle_set(a, CONFIG.shingle), shingle_set(b, CONFIG.shingle)
    return len(x & y) / len(x | y)


def variants(changes: int, seed: int) -> tuple[str, str]:
    """A text and the same one with some words replaced."""
    rng = random.Random(seed)
    words = [f"w{rng.randrange(5000)}" for _ in range(400)]
    changed = list(words)
    for i in rng.sample(range(400), changes):
        changed[i] = f"x{rng.randrange(5000)}"
    return " ".join(words), ", ".join(changed)


def sketches(texts: list[str]) -> np.ndarray:
    return minhash.sketch(np.stack([minhash.signature(shingles.words(text), CONFIG) for text in texts]))


def test_agreement_of_sketches_estimates_jaccard() -> None:
    errors = []
    for seed in range(60):
        a, b = variants(changes=seed, seed=seed)
        agree = (sketches([a]) == sketches([b])).mean()
        errors.append((agree - 1 / 256) / (1 - 1 / 256) - jaccard(a, b))
    # The standard error of one estimate from 256 permutations is at most sqrt(.25 / 256) = 0.031.
    assert abs(np.mean(errors)) < 0.031 * 3 / np.sqrt(60)
    assert np.std(errors) < 0.04


def test_similar_separates_by_the_threshold() -> None:
    close, far = variants(5, 1), variants(60, 2)
    assert jaccard(*close) > 0.85
    assert jaccard(*far) < 0.5
    a, b = sketches([close[0], far[0]]), sketches([close[1], far[1]])
    assert minhash.similar(a, b, 0.7).tolist() == [True, False]


def test_agreement_by_chance_is_taken_off() -> None:
    """Of 4,096 bytes 2,056 must agree for a half: one in 256 of the others would by chance."""
    a = np.zeros((1, 4096), np.uint8)
    for agreeing, expected in ((2050, False), (2056, True)):
        b = np.where(np.arange(4096) < agreeing, 0, 1).astype(np.uint8)[None]
        assert minhash.similar(a, b, 0.5).tolist() == [expected]


def test_bands_are_long_but_still_meet() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9):
        rows = minhash.rows_per_band(threshold, 256)
        assert 1 - (1 - threshold**rows) ** (256 // rows) >= 0.99
        assert 1 - (1 - threshold ** (rows + 1)) ** (256 // (rows + 1)) < 0.99
    assert minhash.rows_per_band(0.01, 4) == 1


def test_band_keys_are_equal_exactly_where_bands_are() -> None:
    rng = np.random.default_rng(0)
    sketch = rng.integers(0, 3, (50, 24), np.uint8)
    keys = minhash.band_keys(sketch, 4)
    assert keys.shape == (50, 6)
    for band in range(6):
        cut = [tuple(row[4 * band : 4 * band + 4]) for row in sketch]
        for i in range(50):
            for j in range(50):
                assert (keys[i, band] == keys[j, band]) == (cut[i] == cut[j])
    # The same values in another band make another key.
    same = minhash.band_keys(np.zeros((1, 24), np.uint8), 4)
    assert len(set(same[0].tolist())) == 6


@pytest.mark.parametrize("at_once", [3, 10_000])
def test_similar_pairs_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(minhash, "_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (8, 32), np.uint8)
    rows = base[rng.integers(0, 8, 60)]
    rows = np.where(rng.random(rows.shape) < 0.15, rng.integers(0, 256, rows.shape), rows).astype(np.uint8)
    keys = minhash.band_keys(rows, 2)
    items = np.repeat(np.arange(60), keys.shape[1])
    found = {tuple(pair) for pair in minhash.similar_pairs(keys.ravel(), items, rows, 0.6).tolist()}
    expected = set()
    for i in range(60):
        for j in range(i + 1, 60):
            meet = any((rows[i, b : b + 2] == rows[j, b : b + 2]).all() for b in range(0, 32, 2))
            agree = (np.mean(rows[i] == rows[j]) - 1 / 256) / (1 - 1 / 256)
            if meet and agree >= 0.6:
                expected.add((i, j))
    assert len(expected) > 100
    assert found == expected


def test_a_crowded_bucket_is_compared_with_its_first_members() -> None:
    rows = np.zeros((500, 16), np.uint8)
    pairs = minhash.similar_pairs(np.zeros(500, np.uint64), np.arange(500), rows, 0.7)
    assert set(pairs[:, 1].tolist()) == set(range(1, 500)), "every one is tied to an earlier one"
    assert len(pairs) < 500 * 64


def test_no_items_no_pairs() -> None:
    none = minhash.similar_pairs(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty((0, 8), np.uint8), 0.7)
    assert none.shape == (0, 2)
