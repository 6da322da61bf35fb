"""Whether a run was trained on a suite's tasks: its corpus is looked through for them, as corpora are when they are
built (data/decontamination.py, which says what it finds and what it lets through).

>>> found = check(suite, Path("runs/quickstart/corpus"))
>>> found.share, found.overlapping
(0.012, ('HumanEval/12', 'HumanEval/53'))
>>> measure(suite, target, settings, folder, pool, found.header())

Tasks of one program, or of one file of a repository, are found or not found together. What was looked for in a corpus
stays in the cache: the next checkpoint of the run costs nothing, and an interrupted look goes on where it was.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from codelm.caches import CACHE
from codelm.progress import Bar
from codelm.publish import check_writable, write_atomically
from data import dataset, decontamination, runners
from data.benchmarks import Problem
from data.dataset import Corpus
from data.decontamination import Index
from data.document import Document
from data.run_index import Runs, Wholes
from experiments.evals import statistics
from experiments.evals.rows import Row
from experiments.evals.statistics import Figure
from experiments.evals.suite import Metric, Suite, Task

SPLIT = "train"
METHOD = (
    "in a document of the corpus: 13 words in a row of a task, half of all runs of 10 of one of its texts, a short one "
    "whole, or 60 % of all runs of 16 tokens whatever their names"
)
_TESTS = ("test", "tests")  # among the checks of a task
_VERSION = 1  # of what is looked for: raise it when the same tasks and corpus may give other overlaps
_PART_BYTES = 16 << 20  # of text: what an interruption loses


@dataclass(frozen=True)
class Contamination:
    corpus: str
    """Its digest."""
    documents: int
    decontaminated: Mapping[str, Any]
    """What the corpus says of itself: against which folder of benchmarks it was built, and what that dropped."""
    tasks: int
    unfindable: int
    """Tasks of which nothing can be looked for: too short, or what others of the suite have too."""
    where: Mapping[str, str]
    """By task, in order: the first document that overlaps it, and by which rule."""

    @property
    def overlapping(self) -> tuple[str, ...]:
        return tuple(self.where)

    @property
    def share(self) -> float:
        return len(self.where) / self.tasks

    def header(self) -> dict[str, Any]:
        """What is kept with every result."""
        found = {"share": self.share, "overlapping": list(self.overlapping)}
        return {"status": "checked", "method": METHOD, **asdict(self), **found}


def check(suite: Suite, corpus: Path, cache: Path = CACHE, workers: int = 0) -> Contamination:
    """Look through all of a corpus. 0 workers = one for each core."""
    source = dataset.load(corpus)
    source.split(SPLIT)  # refused where there is none
    groups = _groups(suite.tasks)
    problems = [_problem(suite, tasks) for tasks in groups]
    labelled = {f"{problem.benchmark} {problem.name}": tasks for problem, tasks in zip(problems, groups, strict=True)}
    index = decontamination.build(problems)
    parts = _parts(source, index, cache, [_VERSION, source.manifest["digest"], *map(astuple, problems)])
    _look_through(f"looking for {suite.name} in {corpus}", parts, source, workers or runners.cores())
    where: dict[str, str] = {}
    for part in parts:
        for label, document in json.loads(part.out.read_text(encoding="utf-8")).items():
            for task in labelled[label]:
                where.setdefault(task.id, document)
    findable = _findable(index)
    return Contamination(
        source.manifest["digest"],
        source.manifest["splits"][SPLIT]["documents"],
        _decontaminated(source),
        len(suite.tasks),
        sum(len(tasks) for label, tasks in labelled.items() if label not in findable),
        {task.id: where[task.id] for task in suite.tasks if task.id in where},
    )


def joined(found: Sequence[Contamination]) -> dict[str, Any]:
    """What is kept with a result, of a model that was trained on these: a task overlaps where it does in one."""
    if not found:
        return {"status": "not checked: the model was trained on conversations alone"}
    if len(found) == 1:
        return found[0].header()
    where = {task: each.where[task] for each in reversed(found) for task in each.where}
    share = len(where) / found[0].tasks
    of_each = [asdict(each) for each in found]
    return {"status": "checked", "method": METHOD, "corpora": of_each, "share": share, "overlapping": sorted(where)}


def with_and_without(
    rows: Sequence[Row], metrics: Mapping[str, Metric], ks: Sequence[int], ids: Collection[str]
) -> dict[str, dict[str, Figure]]:
    """The figures of all tasks, of the clean ones, and of those that overlap."""
    scored = [row for row in rows if row.counts]
    parts = {
        "all": scored,
        "clean": [row for row in scored if row.task not in ids],
        "overlapping": [row for row in scored if row.task in ids],
    }
    return {name: statistics.figures(part, metrics, ks) for name, part in parts.items()}


def _decontaminated(corpus: Corpus) -> dict[str, Any]:
    manifest = corpus.manifest
    against = "" if "decontaminate" in manifest["config"]["skip"] else manifest["benchmarks"]
    return {"against": against, "dropped": manifest["dropped"].get("contaminated", {}).get("documents", 0)}


# ---- what is looked for ----


def _groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks that give each other away: holes in one program, or in one file of a repository."""
    groups: dict[object, list[Task]] = defaultdict(list)
    for task in tasks:
        prompt = task.prompt
        place = (prompt.repository, prompt.path) if prompt.repository and prompt.path else None
        groups[place or "".join(_program(task).split()) or task.id].append(task)
    return list(groups.values())


def _problem(suite: Suite, tasks: Sequence[Task]) -> Problem:
    """Tests are not looked for with their names changed, as other texts are that the checks hold: many look alike."""
    first = tasks[0]
    beside = {name: text for name, text in first.checks.items() if isinstance(text, str)}
    return Problem(
        suite.name,
        first.id,
        _program(first),
        first.prompt.prefix,
        first.reference if first.prompt.suffix is None else "",
        "\n".join(text for name, text in beside.items() if name in _TESTS),
        (*(_program(task) for task in tasks[1:]), *(text for name, text in beside.items() if name not in _TESTS)),
    )


def _program(task: Task) -> str:
    return f"{task.prompt.prefix}{task.reference}{task.prompt.suffix or ''}"


def _findable(index: Index) -> set[str]:
    """Labels of texts that the index can find."""
    of_runs = [index.long_runs, index.runs, *(code.runs for code in index.code.values())]
    wholes = [index.short, *(code.short for code in index.code.values())]
    numbers = {
        *(n for runs in of_runs for n in runs.texts.tolist()),
        *(n for one in wholes for n in one.texts.values()),
    }
    return {index.labels[number] for number in numbers}


# ---- looking ----


@dataclass(frozen=True)
class _Part:
    """A run of the corpus's documents: what one worker looks at."""

    corpus: str
    start: int
    stop: int
    index: Index
    out: Path


def _parts(source: Corpus, index: Index, cache: Path, known: Sequence[Any]) -> list[_Part]:
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    folder, sums = cache.expanduser() / "contamination" / key, source.manifest["splits"][SPLIT]
    count = sums["documents"]
    each = max(count * _PART_BYTES // max(sums["text_bytes"], 1), 1)
    bounds = [(start, min(start + each, count)) for start in range(0, count, each)]
    return [_Part(str(source.folder), *bound, index, folder / f"{bound[0]}-{bound[1]}.json") for bound in bounds]


def _look_through(what: str, parts: Sequence[_Part], source: Corpus, workers: int) -> None:
    sums = source.manifest["splits"][SPLIT]
    before = {part.start for part in parts if part.out.is_file()}
    check_writable(parts[0].out)
    with Bar.of_bytes(what, sums["text_bytes"]) as bar:
        for part in runners.local(min(workers, len(parts)))(_look, parts):
            size = sums["text_bytes"] * (part.stop - part.start) / sums["documents"]
            bar.advance(size, worked=part.start not in before)


def _look(part: _Part) -> None:
    """Write the first document that overlaps each problem, unless it is known; what is found is looked for no more."""
    if part.out.is_file():
        return
    index, found = part.index, dict[str, str]()
    for document in _documents(part):
        while overlap := decontamination.overlap(index, document.text, document.language):
            label, rule = overlap.rsplit(": ", 1)
            found[label] = f"{document.repository} {document.path}: {rule}"
            index = _without(index, label)
    write_atomically(part.out, json.dumps(found).encode())


def _documents(part: _Part) -> Iterator[Document]:
    rows = dataset.load(part.corpus).split(SPLIT)
    return (dataset.document_of(rows[number]) for number in range(part.start, part.stop))


def _without(index: Index, label: str) -> Index:
    gone = np.array([name == label for name in index.labels], np.bool_)

    def runs(of: Runs) -> Runs:
        kept = ~gone[of.texts]
        return Runs(of.hashes[kept], of.texts[kept], of.totals)

    def short(of: Wholes) -> Wholes:
        return Wholes(of.beginnings, {whole: text for whole, text in of.texts.items() if not gone[text]})

    code = {
        comment: replace(programs, runs=runs(programs.runs), short=short(programs.short))
        for comment, programs in index.code.items()
    }
    kept = {"long_runs": runs(index.long_runs), "runs": runs(index.runs), "short": short(index.short)}
    return replace(index, **kept, code=code)
