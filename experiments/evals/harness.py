"""A model through a suite: every sample asked for, scored and written down, many at once.

What a sample becomes depends on its task, its number and the seed alone: neither on what else is asked at the time nor
on what an earlier, interrupted measurement had done.
"""

import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from codelm import __version__
from codelm.errors import UserError
from codelm.progress import Bar
from codelm.sandbox import Pool
from experiments.evals import contamination, statistics
from experiments.evals.rows import VERSION, Key, Measured, Row, Writer, load
from experiments.evals.suite import LESS_IS_BETTER, Losses, NotRun, Outcome, Prompt, Suite, Task, Tools
from experiments.evals.targets import Decoding, Target, Unanswered

HARNESS = 1
"""Higher by one whenever the same model, suite and settings may come to other figures."""
_MOST_SEED = 2**32


@dataclass(frozen=True)
class Settings:
    """How a suite is run."""

    samples: int = 1
    ks: tuple[int, ...] = (1,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 0
    """0 = the suite's."""
    seed: int = 0
    at_once: int = 16
    """Samples that are in the works at a time; no score depends on it."""


def measure(
    suite: Suite,
    target: Target,
    settings: Settings,
    folder: Path,
    pool: Pool | None,
    overlaps: Mapping[str, Any] | None = None,
) -> Measured:
    """The whole measurement; what was done before is taken from the folder. A suite that executes needs the pool."""
    check(suite, settings)
    header = _header(suite, target, settings, pool, overlaps)
    writer = Writer(folder, header)
    order = [(task.id, sample) for task in suite.tasks for sample in range(settings.samples)]
    try:
        _ask_for_all(suite, target, settings, pool, writer, order)
        rows = [writer.done[key] for key in order]
        overlapping = header["contamination"].get("overlapping")
        writer.finish(order, summary(rows, suite, settings.ks, overlapping))
    finally:
        writer.close()
    return load(folder)


def summary(
    rows: Sequence[Row], suite: Suite, ks: Sequence[int], overlapping: Collection[str] | None
) -> dict[str, Any]:
    """The figures of rows: of those that could be scored, by slice too, and why others could not. Where it is known
    which tasks overlap the training corpus, also of the clean ones and of those."""
    scored = [row for row in rows if row.counts]
    reasons: dict[str, int] = {}
    for row in rows:
        if row.reason:
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
    return {
        "codelm_eval": VERSION,
        "suite": suite.name,
        "tasks": len({row.task for row in rows}),
        "samples": len(rows),
        "not_run": len(rows) - len(scored),
        "figures": _plain(statistics.figures(scored, suite.metrics, ks)),
        "slices": _slices(scored, suite, ks, overlapping),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def _slices(
    scored: Sequence[Row], suite: Suite, ks: Sequence[int], overlapping: Collection[str] | None
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    found = statistics.sliced(scored, suite.metrics, ks)
    if overlapping is not None:
        by_part = contamination.with_and_without(scored, suite.metrics, ks, overlapping)
        found |= {"corpus": {part: figures for part, figures in by_part.items() if part != "all" and figures}}
    return {name: {value: _plain(each) for value, each in by_value.items()} for name, by_value in found.items()}


def _plain(figures: Mapping[str, statistics.Figure]) -> dict[str, dict[str, float]]:
    return {name: asdict(figure) for name, figure in figures.items()}


def check(suite: Suite, settings: Settings) -> None:
    """Refuse what would measure nothing."""
    if not suite.tasks:
        raise UserError(f"{suite.name} has no task")
    if len({task.id for task in suite.tasks}) < len(suite.tasks):
        raise UserError(f"{suite.name} has two tasks of one id: its file is damaged")
    if settings.samples < 1:
        raise UserError(f"n must be at least 1, not {settings.samples}")
    if wrong := next((k for k in settings.ks if not 1 <= k <= settings.samples), None):
        raise UserError(f"pass@{wrong} needs at least {wrong} samples of each task: set --n {wrong} or more")
    if settings.samples > 1 and not settings.temperature:
        raise UserError("n samples at temperature 0 are the same text n times: set --temperature, 0.2 for small k")
    if settings.samples > 1 and not suite.samples:
        raise UserError(f"{suite.name} has one result for each task: leave --n out")


def _header(
    suite: Suite, target: Target, settings: Settings, pool: Pool | None, overlaps: Mapping[str, Any] | None
) -> dict[str, Any]:
    how = suite.postprocessing
    return {
        "codelm_eval": VERSION,
        "harness": HARNESS,
        "codelm": __version__,
        "model": dict(target.identity),
        "suite": {
            "name": suite.name,
            "version": suite.version,
            "about": suite.about,
            "tasks": len(suite.tasks),
            "sha256": suite.source,
            "metrics": dict(suite.metrics),
        },
        "postprocessing": {"name": how.name, "version": how.version, "about": how.about},
        "decoding": {
            "samples": settings.samples,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed,
            "max_new_tokens": settings.max_new_tokens or suite.max_new_tokens,
            "stop": list(suite.stop),
        },
        "sandbox": list(pool.protections) if pool and suite.executes else [],
        "contamination": dict(overlaps) if overlaps else {"status": "not checked"},
    }


def rescored(
    suite: Suite, found: Sequence[Row], pool: Pool | None, told: Callable[[], None] = lambda: None
) -> Iterator[Row]:
    """The rows as the suite scores them now, from what was written."""
    tasks = {task.id: task for task in suite.tasks}
    for row in found:
        if row.reason.startswith("unanswered"):
            yield row
        else:
            tools = _Replay(row.written, pool)
            outcome = _attempted(suite, tasks[row.task], tools, pool)
            yield replace(row, completion=outcome.completion, scores=dict(outcome.scores), reason=outcome.reason)
        told()


# ---- samples ----


@dataclass
class _Tools:
    """See `suite.Tools`."""

    target: Target
    decoding: Decoding
    given_pool: Pool | None
    written: list[str] = field(default_factory=list)
    times: list[dict[str, float]] = field(default_factory=list)

    def ask(self, prompt: Prompt, most: int = 0) -> str:
        written = self.target.ask(prompt, self.decoding.at_most(most))
        self.written.append(written.text)
        self.times.append({"seconds": written.seconds, "first": written.first, "tokens": written.tokens})
        return written.text

    def losses(self, text: str) -> Losses:
        return self.target.losses(text)

    @property
    def context(self) -> int:
        return self.target.identity.get("context", 0)

    @property
    def pool(self) -> Pool:
        assert self.given_pool is not None, "a suite that executes is measured with a pool"
        return self.given_pool


@dataclass
class _Replay:
    """What was answered before, in order, then nothing: with none of it, an attempt shows what a task is scored on."""

    answers: Sequence[str]
    given_pool: Pool | None
    context: int = 0
    asked: int = 0

    def ask(self, prompt: Prompt, most: int = 0) -> str:
        self.asked += 1
        return self.answers[self.asked - 1] if self.asked <= len(self.answers) else ""

    def losses(self, text: str) -> Losses:
        raise NotRun("how likely a text is was told by a model that is not asked again")

    @property
    def pool(self) -> Pool:
        assert self.given_pool is not None, "a suite that executes is measured with a pool"
        return self.given_pool


def _ask_for_all(
    suite: Suite, target: Target, settings: Settings, pool: Pool | None, writer: Writer, order: Sequence[Key]
) -> None:
    tasks = {task.id: task for task in suite.tasks}
    missing = [key for key in order if key not in writer.done]
    with Bar(suite.name, len(order), "samples") as bar, ThreadPoolExecutor(settings.at_once) as threads:
        bar.advance(len(order) - len(missing), worked=False)
        running = _Running(suite, writer, bar)
        waiting: set[Future[None]] = set()
        try:
            for task_id, sample in missing:
                waiting.add(threads.submit(running.one, tasks[task_id], sample, target, settings, pool))
                if len(waiting) >= 2 * settings.at_once:
                    waiting = _some_done(waiting)
            while waiting:
                waiting = _some_done(waiting)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _some_done(waiting: set[Future[None]]) -> set[Future[None]]:
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest


@dataclass
class _Running:
    suite: Suite
    writer: Writer
    bar: Bar

    def __post_init__(self) -> None:
        self._name = next(iter(self.suite.metrics))
        found = [row.scores[self._name] for row in self.writer.done.values() if self._name in row.scores]
        self._sum, self._count, self._lock = sum(found), len(found), threading.Lock()

    def one(self, task: Task, sample: int, target: Target, settings: Settings, pool: Pool | None) -> None:
        seed = (zlib.crc32(f"{settings.seed} {self.suite.name} {task.id}".encode()) + sample) % _MOST_SEED
        most = settings.max_new_tokens or self.suite.max_new_tokens
        decoding = Decoding(settings.temperature, settings.top_p, most, self.suite.stop, seed)
        tools = _Tools(target, decoding, pool)
        began = time.monotonic()
        outcome = _attempted(self.suite, task, tools, pool)
        row = Row(
            task.id, sample, seed, tools.written, outcome.completion, outcome.scores, outcome.reason, dict(task.slices)
        )
        self.writer.add(row, {"seconds": round(time.monotonic() - began, 4), "asked": tools.times})
        self._tell(row)

    def _tell(self, row: Row) -> None:
        """With the mean of the first metric so far."""
        with self._lock:
            if self._name in row.scores:
                self._sum, self._count = self._sum + row.scores[self._name], self._count + 1
            self.bar.note(f"{self._name} {self._sum / self._count:.3f}" if self._count else "")
            self.bar.advance(1)


def _attempted(suite: Suite, task: Task, tools: Tools, pool: Pool | None) -> Outcome:
    try:
        return suite.attempt(task, tools)
    except NotRun as missing:
        return Outcome("", {}, f"not run: {missing}")
    except Unanswered as error:  # asked several times already
        scored = _attempted(suite, task, _Replay((), pool), pool)
        wrong = {name: 0.0 for name in scored.scores if suite.metrics.get(name) not in LESS_IS_BETTER}
        return Outcome("", wrong, f"unanswered: {error}")
