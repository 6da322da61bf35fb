"""How much planted contamination is found, and what ordinary code is taken for it.

    .venv/bin/python -m experiments.decontamination [--benchmarks DIR] [--megabytes 100]

Plants every problem of every benchmark in the middle of an ordinary file, in each way of experiments/planting.py, and
prints the share that decontamination finds. Then looks for the benchmarks in the standard library and in what is
installed here, and lists every hit for a person to judge.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from codelm import commandline
from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from codelm.languages import language_of
from codelm.progress import Bar
from data import benchmarks, decoding, decontamination, sources
from data.benchmarks import Problem
from data.document import Raw
from experiments import planting

PROGRAM = "python -m experiments.decontamination"
HOSTS = 16  # ordinary files to plant in, in turn
HOST_SIZES = range(4_000, 16_000)  # bytes


@dataclass(frozen=True)
class Options:
    benchmarks: str = ""
    """A folder of JSONL benchmarks; empty = CODELM_BENCHMARKS."""
    megabytes: int = 100
    """How much of the installed packages to look at, in order of their names."""
    each: int = 1
    """Plant only every so many problems."""


@dataclass
class Recall:
    found: Counter[str]
    """By rule."""
    missed: list[str]
    """Problems, by name."""

    @property
    def planted(self) -> int:
        return self.found.total() + len(self.missed)


def recall(problems: list[Problem], index: decontamination.Index) -> dict[tuple[str, str], Recall]:
    """By benchmark and by way of planting."""
    hosts = clean_hosts(index)
    results: dict[tuple[str, str], Recall] = {}
    with Bar("planting", len(problems), "problems") as bar:
        for i, problem in enumerate(problems):
            for way, plant in planting.WAYS.items():
                if (text := plant(problem)) is not None:
                    result = results.setdefault((problem.benchmark, way), Recall(Counter(), []))
                    found = decontamination.overlap(index, planting.planted(hosts[i % len(hosts)], text), "Python")
                    if found:
                        result.found[found.rsplit(": ", 1)[1]] += 1
                    else:
                        result.missed.append(problem.name)
            bar.advance(1)
    return results


def clean_hosts(index: decontamination.Index) -> list[str]:
    """Ordinary files in which nothing is found."""
    texts = (text for _, text, language in ordinary("stdlib") if language == "Python" and len(text) in HOST_SIZES)
    return list(islice((text for text in texts if not decontamination.overlap(index, text, "Python")), HOSTS))


def ordinary(source: str) -> Iterator[tuple[str, str, str]]:
    """Path, text and language of the source's files that a corpus would take."""
    for unit in sources.units([source]):
        for raw in sources.read(unit, CorpusConfig().quality.max_bytes):
            text = decoding.decode(raw) if isinstance(raw, Raw) else None
            if isinstance(raw, Raw) and isinstance(text, str) and (language := language_of(raw.path, text)):
                yield f"{raw.repository}/{raw.path}", text, language


@dataclass
class Clean:
    """What was found where nothing should be."""

    files: int
    bytes: int
    seconds: float
    hits: list[str]


def false_positives(source: str, limit: int, index: decontamination.Index) -> Clean:
    """In up to a limit of bytes."""
    clean = Clean(0, 0, 0.0, [])
    with Bar.of_bytes(f"looking at {source}", limit) as bar:
        for path, text, language in ordinary(source):
            start = time.process_time()
            found = decontamination.overlap(index, text, language)
            clean.seconds += time.process_time() - start
            clean.files += 1
            clean.bytes += len(text)
            if found:
                clean.hits.append(f"{path}: {found}")
            bar.advance(len(text))
            if clean.bytes > limit:
                break
    return clean


def _print_recall(results: dict[tuple[str, str], Recall]) -> None:
    names = sorted({benchmark for benchmark, _ in results})
    print(f"{'found':20}" + "".join(f"{way:>19}" for way in planting.WAYS))
    for name in names:
        cells = []
        for way in planting.WAYS:
            result = results.get((name, way))
            found = result.found.total() if result else 0
            cells.append(f"{found}/{result.planted} {found / result.planted:6.1%}" if result else "-")
        print(f"{name:20}" + "".join(f"{cell:>19}" for cell in cells))
    print(f"\n{'by rule':20}" + "".join(f"{way:>19}" for way in planting.WAYS))
    rules = sorted({rule for result in results.values() for rule in result.found})
    for rule in rules:
        totals = [sum(r.found[rule] for (_, w), r in results.items() if w == way) for way in planting.WAYS]
        print(f"{rule:20}" + "".join(f"{total:>19}" for total in totals))


def _print_clean(what: str, clean: Clean) -> None:
    rate = clean.bytes / 1e6 / max(clean.seconds, 1e-9)
    print(
        f"\n{what}: {len(clean.hits)} of {clean.files} files found ({len(clean.hits) / max(clean.files, 1):.2%}), "
        f"{clean.bytes / 1e6:.1f} MB at {rate:.0f} MB/s"
    )
    for hit in clean.hits:
        print(f"  {hit}")


def main(argv: list[str]) -> None:
    options = commandline.parse(Options, argv, PROGRAM)
    folder = options.benchmarks or os.environ.get("CODELM_BENCHMARKS", "")
    if not folder:
        raise UserError("which benchmarks? give --benchmarks DIR, a folder of JSONL, or set CODELM_BENCHMARKS")
    problems = benchmarks.load(folder)
    start = time.monotonic()
    index = decontamination.build(problems)
    print(f"{len(problems)} problems; index of {len(index.labels)} texts in {time.monotonic() - start:.1f} s\n")
    _print_recall(recall(problems[:: options.each], index))
    for source, limit in ("stdlib", 50), ("packages", options.megabytes):
        _print_clean(source, false_positives(source, limit * 1_000_000, index))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
