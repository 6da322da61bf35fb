"""How fast a corpus is cleaned and deduplicated, on Python's standard library, on one core.

    [CODELM_BENCHMARKS=DIR] .venv/bin/python -m experiments.corpus_speed

Prints megabytes a second of every step of `codelm data build`, of the whole, and near-deduplication beside rensa alone:
shingles cut in Python, signatures and LSH by rensa, nothing else.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epath

from codelm.corpus_config import CorpusConfig, DedupConfig
from data import clean_unit, dataset, duplicates, minhash, parts, shingles, sources
from data.tally import Tally

_RUNS = 3


def main() -> None:
    corpus, units = CorpusConfig(), list(sources.units(["stdlib"]))
    documents = [raw for unit in units for raw in sources.read(unit, corpus.quality.max_bytes)]
    size = sum(len(raw.content) for raw in documents if hasattr(raw, "content"))
    print(f"{len(documents):,} files of the standard library, {size / 1e6:.1f} MB; medians of {_RUNS} runs\n")
    seconds, tally, kept = _cleaning(units, corpus)
    print(f"{'step':24}{'MB/s':>8}")
    for name, spent in sorted(tally.nanoseconds.items(), key=lambda item: -item[1]):
        print(f"{name:24}{tally.read[name] / spent * 1e3:8.1f}")
    print(f"{'reading to parts, in all':24}{size / seconds / 1e6:8.1f}\n")
    texts = [document.text for document in kept]
    size = sum(len(text.encode()) for text in texts)
    ours, (found, clusters) = _median(lambda: _ours(texts, corpus.dedup))
    alone, (flagged,) = _median(lambda: _rensa_alone(texts, corpus.dedup))
    print(f"{'near-duplicates':24}{'MB/s':>8}  ({len(texts):,} documents)")
    print(f"{'ours':24}{size / ours / 1e6:8.1f}  {found:,} in {clusters:,} clusters")
    print(f"{'rensa alone':24}{size / alone / 1e6:8.1f}  {flagged:,} flagged")
    print(f"ours takes {ours / alone:.2f} times as long as rensa alone")


def _cleaning(units: list[sources.Unit], corpus: CorpusConfig) -> tuple[float, Tally, list[dataset.Document]]:
    recipe = clean_unit.Recipe(corpus, os.environ.get("CODELM_BENCHMARKS", ""))
    tasks: list[clean_unit.Task] = []

    def once() -> tuple[Tally]:
        with tempfile.TemporaryDirectory() as folder:
            tasks[:] = [clean_unit.task(unit, recipe, "speed", folder) for unit in units]
            total = Tally()
            for task in tasks:
                clean_unit.run(task)
                part = parts.find(epath.Path(folder), task.key)
                assert part
                total.merge(part.tally)
                documents[task.key] = list(part.read_documents())
            return (total,)

    documents: dict[str, list[dataset.Document]] = {}
    once()  # prepares the steps
    seconds, (tally,) = _median(once)
    return seconds, tally, [document for task in tasks for document in documents[task.key]]


def _ours(texts: list[str], config: DedupConfig) -> tuple[int, int]:
    """Words, runs, signatures, bands, comparison, clusters."""
    with tempfile.TemporaryDirectory() as folder:
        sketches = [minhash.sketch(minhash.signature(shingles.words(text), config)) for text in texts]
        index = np.zeros(len(texts), parts.INDEX)
        table = duplicates.Table(index, np.stack(sketches), Path(folder))
        find_pairs = duplicates.pairs_here(256 << 20)
        verdicts = duplicates.decide(table, config, ("exact_duplicates",), 256 << 20, find_pairs)
        lost = verdicts.kept[verdicts.why == duplicates.NEAR]
        return len(lost), len(np.unique(lost))


def _rensa_alone(texts: list[str], config: DedupConfig) -> tuple[int]:
    from rensa import RMinHash, RMinHashLSH  # pyrefly: ignore[missing-module-attribute]: a compiled module

    n = config.shingle
    signatures = []
    for text in texts:
        words = re.findall(r"\w+", text)
        signature = RMinHash(config.permutations, minhash.SEED)
        signature.update([" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))])
        signatures.append(signature)
    index = RMinHashLSH(config.threshold, config.permutations, 32)
    for number, signature in enumerate(signatures):
        index.insert(number, signature)
    flagged = 0
    for number, signature in enumerate(signatures):
        met = [other for other in index.query(signature) if other != number]
        flagged += any(signature.jaccard(signatures[other]) >= config.threshold for other in met)
    return (flagged,)


def _median[Result](run: Callable[[], Result]) -> tuple[float, Result]:
    spent, result = [], None
    for _ in range(_RUNS):
        start = time.perf_counter()
        result = run()
        spent.append(time.perf_counter() - start)
    assert result is not None
    return statistics.median(spent), result


if __name__ == "__main__":
    main()
