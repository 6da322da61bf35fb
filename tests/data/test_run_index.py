"""Runs and the texts that hold them, against dictionaries and loops."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import run_index
from data.benchmark_texts import Text

RUNS = st.lists(st.integers(0, 12), max_size=8)
# Texts: the benchmark (of two), the problem (of four in it), its runs.
TEXTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), RUNS), min_size=1, max_size=12)


def collected(texts: list[tuple[int, int, list[int]]]) -> run_index.Runs:
    nothing = np.empty(0, np.uint64)
    held = [Text("", benchmark, 4 * benchmark + problem, "", nothing, False, False) for benchmark, problem, _ in texts]
    return run_index.collect([(i, np.array(runs, np.uint64)) for i, (_, _, runs) in enumerate(texts)], held)


def by_hand(texts: list[tuple[int, int, list[int]]]) -> dict[int, set[int]]:
    """Runs by text, without those that three problems of one benchmark have."""
    problems = defaultdict(set)
    for benchmark, problem, runs in texts:
        for run in runs:
            problems[benchmark, run].add(problem)
    return {
        i: {run for run in runs if len(problems[benchmark, run]) < 3} for i, (benchmark, _, runs) in enumerate(texts)
    }


@given(TEXTS)
def test_collecting_drops_templates_of_a_benchmark(texts: list[tuple[int, int, list[int]]]) -> None:
    index, expected = collected(texts), by_hand(texts)
    assert index.hashes.tolist() == sorted(index.hashes.tolist())
    assert Counter(zip(index.hashes.tolist(), index.texts.tolist(), strict=True)) == Counter(
        (run, text) for text, runs in expected.items() for run in runs
    )
    assert index.totals.tolist() == [len(expected[text]) for text in range(len(texts))]


@given(TEXTS, st.lists(st.integers(0, 14), max_size=20), st.sampled_from([0.0, 0.5, 0.6, 1.0]))
def test_the_text_with_most_of_the_runs(texts: list[tuple[int, int, list[int]]], runs: list[int], share: float) -> None:
    found = run_index.most(collected(texts), np.array(runs, np.uint64), share)
    expected = by_hand(texts)
    here = {text: len(held & set(runs)) for text, held in expected.items()}
    enough = {text: count for text, count in here.items() if count and count >= share * len(expected[text])}
    assert (found is None) == (not enough)
    if found is not None:
        assert enough[found] == max(enough.values())


@pytest.mark.parametrize("known", [0, 1, 5, 5000])
def test_places_are_those_of_known_hashes(known: int) -> None:
    rng = np.random.default_rng(known)
    hashes = np.unique(rng.integers(0, 2**64, known, np.uint64))
    near = hashes ^ np.uint64(1)  # passes the filter and is another
    given_ = rng.permutation(np.concatenate([hashes, near, rng.integers(0, 2**64, 1000, np.uint64)]))
    found = run_index.places(run_index.quick_filter([hashes]), hashes, given_)
    wanted = set(hashes.tolist())
    assert found.tolist() == [i for i, hash_ in enumerate(given_.tolist()) if hash_ in wanted]
    assert run_index.places(run_index.quick_filter([hashes]), hashes, given_[:0]).tolist() == []
