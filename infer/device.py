"""The engine's device side: weights, pages and views, and calls of its programs with arrays of the right shapes.

Knows which rows are in which view, and nothing of queues, priorities or text.
"""

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from codelm import paged, views
from codelm.cache import Memory
from codelm.config import ModelConfig
from codelm.model import Transformer
from codelm.views import Pages
from infer import programs
from infer.pages import Copy
from infer.programs import LIKELIEST, Choosing, Sight, Steering, Targets, Written
from infer.request import MOST_STOPS
from infer.run import Run
from infer.sampling import Choice, Sampling, settings

GREEDY = Sampling()
TIMINGS = 3  # calls to time when warming up


@dataclass(frozen=True)
class Shapes:
    """The buckets that arrays come in, so that few programs serve all."""

    rows: tuple[int, ...]
    """Of a decoding batch."""
    slots: tuple[int, ...]
    """Of views: tokens of the longest row, and room for what is added."""
    chunks: tuple[int, ...]
    """Of a prompt, read at once."""
    steps: int
    """Tokens decoded in one call at most."""
    widths: tuple[int, ...]
    """Tokens verified at once: the last one of a text, and drafts of what follows; none = nothing is drafted."""
    page: int

    @property
    def adds(self) -> int:
        """Tokens that a call adds to a text at most."""
        return max(*self.chunks, self.steps, *self.widths)


@dataclass(frozen=True)
class Costs:
    """Seconds that calls take, as they were when the device was warmed up."""

    step: float
    """Decoding one token for each row."""
    widths: Mapping[int, float]
    """Verifying so many at once."""


@dataclass
class Resident:
    """A view and the runs whose keys and values are in its rows; or where a kernel finds those in pages."""

    memory: tuple[Memory, ...]
    runs: list[Run | None]
    left: list[Sequence[int]]
    """Of rows that are nobody's, the tokens whose keys and values are still there."""
    slots: int
    starts: dict[int, Int[np.ndarray, " B"]]
    tables: dict[int, Int[np.ndarray, "B n"]] | None


class Device:
    def __init__(self, model: Transformer, shapes: Shapes, pages: Mapping[int, int], dtype: str) -> None:
        """With so many pages in the layers of each window, that keep keys and values in a dtype."""
        self.config: ModelConfig = model.config
        self.shapes, self.dtype = shapes, dtype
        self.windows = tuple(pages)
        self.counts = {window: count + 1 for window, count in pages.items()}  # the last is for what is not kept
        self.mesh = jax.sharding.get_mesh()
        self.reads_pages = paged.reads_pages(model.config, dtype, shapes.rows[-1] * shapes.slots[-1] // shapes.page)
        leaves, self.tree = jax.tree.flatten(model.apart())
        self.device = min(leaves[0].devices(), key=lambda device: device.id)
        self.leaves = self._there(leaves)
        self.warm_compilations, self.warm_up_seconds = 0, 0.0
        self.costs: dict[tuple[int, int], Costs] = {}
        self.reset()

    def reset(self) -> None:
        """Empty pages; all that was in them, and in views, is gone."""
        with self.placed():
            self.pages = self._there(_pages(self.config, tuple(self.counts.items()), self.shapes.page, self.dtype))
        self.reader: Resident | None = None
        self.writer: Resident | None = None
        self.plain: dict[tuple[int, int], Steering] = {}

    def placed(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.mesh.empty else jax.set_mesh(self.mesh)

    def _there(self, arrays: Any) -> Any:
        """Bound to their device: programs are compiled for arrays that are, or for those that are not."""
        return jax.device_put(arrays, self.device) if self.mesh.empty else arrays

    # ---- calls ----

    def copy(self, copies: Iterable[Copy]) -> None:
        for group, source, target in copies:
            window, idle = self.windows[group], {w: count - 1 for w, count in self.counts.items()}
            self.pages = programs.copy(self.config, self.pages, idle | {window: source}, idle | {window: target})

    def extend(self, run: Run, count: int, last: bool) -> tuple[int, float]:
        """Read so many more tokens of a run; if they are its last, the token that follows and its log-probability."""
        start = run.lease.length
        if self.reader is None and self.writer and self.writer.runs == [None]:  # what it has left may be of use
            self.reader, self.writer = self.writer, None
        self.reader = self._fit(self.reader, [run], start + _bucket(self.shapes.chunks, count))
        token, logprob = self._extend(self.reader, run.ids[start : start + count], start, last)
        return (int(np.asarray(token)[0, 0]), float(np.asarray(logprob)[0, 0])) if last else (-1, 0.0)

    def decode(self, most: Mapping[Run, int]) -> dict[Run, list[tuple[int, float]]]:
        """Go on with runs by at most so many tokens each: the tokens and their log-probabilities."""
        resident = self._writing(list(most), self.shapes.steps)
        return self._told(resident, most, self._decode(resident, most))

    def verify(self, drafts: Mapping[Run, Sequence[int]]) -> dict[Run, list[tuple[int, float]]]:
        """Go on with runs by as much of their drafts as they would write by themselves, and one token more."""
        width = _bucket(self.shapes.widths, 1 + max(map(len, drafts.values())))
        resident = self._writing(list(drafts), width)
        return self._told(resident, drafts, self._verify(resident, drafts, width))

    def costs_of(self, runs: Sequence[Run]) -> Costs | None:
        """Of going on with these; None before it is warm."""
        reach = max(len(run.ids) for run in runs) + self.shapes.adds
        slots = next((slots for slots in self.shapes.slots if slots >= reach), self.shapes.slots[-1])
        return self.costs.get((_bucket(self.shapes.rows, len(runs)), slots))

    def _writing(self, runs: Sequence[Run], adds: int) -> Resident:
        """The view that these go on in, by so many tokens at most."""
        if self.reader and self.reader.runs == runs:  # the one run that was just read goes on where it is
            self.writer = self.reader
        if self.reader and self.reader.runs[0] in runs:  # or in another view, and what was read falls behind
            self.reader = None
        self.writer = self._fit(self.writer, runs, max(len(run.ids) for run in runs) + adds)
        return self.writer

    def _told(self, resident: Resident, runs: Iterable[Run], written: Written) -> dict[Run, list[tuple[int, float]]]:
        jax.tree.map(lambda x: x.copy_to_host_async(), written)
        tokens, logprobs, counts, ahead = (np.asarray(x).tolist() for x in written)
        rows = {run: resident.runs.index(run) for run in runs}
        for run, row in rows.items():
            run.ahead = ahead[row]
        return {run: list(zip(tokens[row], logprobs[row], strict=True))[: counts[row]] for run, row in rows.items()}

    def _extend(self, resident: Resident, tokens: Sequence[int], start: int, last: bool) -> Choice:
        count, size = len(tokens), _bucket(self.shapes.chunks, len(tokens))
        padded = np.zeros((1, size), np.int32)
        padded[0, :count] = tokens
        self.pages, resident.memory, choice = programs.extend(
            *self._given(resident, [start], [count], size),
            padded,
            np.array([start], np.int32),
            np.int32(count),
            self._choosing(resident.runs),
            np.bool_(last),
            dtype=self.dtype,
        )
        return choice

    def _decode(self, resident: Resident, most: Mapping[Run, int], nobodys: int = 0) -> Written:
        """`nobodys`: the tokens for rows that are nobody's."""
        rows = len(resident.runs)
        stops = np.full((rows, MOST_STOPS), -2, np.int32)  # a token that there is not
        tokens, starts = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        limits = np.full(rows, nobodys, np.int32)
        for row, run in enumerate(resident.runs):
            if run is not None:
                tokens[row], starts[row], limits[row] = run.ids[-1], len(run.ids) - 1, most[run]
                stops[row, : len(run.request.stop_ids)] = list(run.request.stop_ids)
        self.pages, resident.memory, written = programs.decode(
            *self._given(resident, starts.tolist(), limits.tolist(), self.shapes.steps),
            tokens,
            starts,
            limits,
            stops,
            self._choosing(resident.runs),
            dtype=self.dtype,
        )
        return written

    def _verify(self, resident: Resident, drafts: Mapping[Run, Sequence[int]], width: int) -> Written:
        rows = len(resident.runs)
        tokens = np.zeros((rows, width), np.int32)
        starts, given = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, run in enumerate(resident.runs):
            if run is not None:
                starts[row], given[row] = len(run.ids) - 1, 1 + len(drafts[run])
                tokens[row, : given[row]] = [run.ids[-1], *drafts[run]]
        self.pages, resident.memory, written = programs.verify(
            *self._given(resident, starts.tolist(), given.tolist(), width),
            tokens,
            starts,
            given,
            self._choosing(resident.runs, width),
            dtype=self.dtype,
        )
        return written

    def _given(self, resident: Resident, starts: Sequence[int], counts: Sequence[int], size: int) -> tuple[Any, ...]:
        """What every call begins with: the model, pages, a view, and where what is new in each row goes."""
        # A call may still be reading where views begin when that changes.
        starting = {window: array.copy() for window, array in resident.starts.items()}
        sight = Sight(starting, resident.tables)
        targets = self._targets(resident.runs, starts, counts, size)
        return self.tree, self.leaves, self.pages, resident.memory, sight, targets

    def warm_up(self, timed: bool) -> float:
        """Run every program on every shape, on rows of nobody; the seconds it took. With `timed`, what each costs is
        noted, for which it runs a few times."""
        began = time.perf_counter()
        idle = {window: count - 1 for window, count in self.counts.items()}
        self.pages = programs.copy(self.config, self.pages, idle, idle)
        for slots in self.shapes.slots:
            for size in self.shapes.chunks:
                self._extend(self._empty(1, slots), [0] * size, 0, last=True)
            for rows in self.shapes.rows:
                resident = self._empty(rows, slots)
                self._load(resident, 0, None)
                self._decode(resident, {})
                if timed:
                    self.costs[rows, slots] = self._timed(resident)
        jax.block_until_ready(self.pages)
        self.warm_compilations = _compiled()
        self.warm_up_seconds = time.perf_counter() - began
        return self.warm_up_seconds

    def _timed(self, resident: Resident) -> Costs:
        """The least of a few calls: what else the machine does is no cost of theirs."""

        def seconds(call: Callable[[], Written]) -> float:
            taken = []
            for _ in range(TIMINGS):
                began = time.perf_counter()
                jax.block_until_ready(call())
                taken.append(time.perf_counter() - began)
            return min(taken)

        steps = self.shapes.steps
        return Costs(
            seconds(lambda: self._decode(resident, {}, nobodys=steps)) / steps,
            {width: seconds(lambda width=width: self._verify(resident, {}, width)) for width in self.shapes.widths},
        )

    def compilations(self) -> int:
        """Programs compiled since it was warm."""
        return _compiled() - self.warm_compilations

    def drop(self, run: Run) -> None:
        """It is over: its rows are free, and what is in them is there until they are used."""
        for resident in (self.reader, self.writer):
            if resident and run in resident.runs:
                row = resident.runs.index(run)
                resident.runs[row], resident.left[row] = None, run.ids[: run.lease.length]

    # ---- arrays ----

    def _fit(self, resident: Resident | None, runs: Sequence[Run], reach: int) -> Resident:
        """A view with just these runs in it, and room up to a position; rows that are not there yet are brought.

        Where a kernel reads pages there is nothing to bring, but the pages change: their tables are made anew.
        """
        rows, slots = _bucket(self.shapes.rows, len(runs)), _bucket(self.shapes.slots, reach)
        if (
            self.reads_pages
            or resident is None
            or len(resident.runs) != rows
            or not slots <= resident.slots <= 4 * slots
        ):
            resident = self._empty(rows, slots)
        for row, other in enumerate(resident.runs):
            if other is not None and other not in runs:
                resident.runs[row], resident.left[row] = None, other.ids[: other.lease.length]
        for run in runs:
            row = self._row_of(resident, run)
            there = resident.runs[row] is run or self._is_left(resident, row, run)
            resident.runs[row], resident.left[row] = run, ()
            if not there or not all(self._reaches(resident, row, window, run) for window in self.windows):
                self._load(resident, row, run)
        return resident

    def _row_of(self, resident: Resident, run: Run) -> int:
        """The one it has, or one that is free: one that still has what the run begins with, or nothing, if there is."""
        if run in resident.runs:
            return resident.runs.index(run)
        free = [row for row, other in enumerate(resident.runs) if other is None]
        return max(free, key=lambda row: (self._is_left(resident, row, run), not resident.left[row]))

    def _is_left(self, resident: Resident, row: int, run: Run) -> bool:
        """Whether a free row has all the keys and values that the run has in pages, from where its next token looks."""
        length, left = run.lease.length, resident.left[row]
        seen = {window: max(length - window + 1, 0) if window else 0 for window in self.windows}
        return (
            resident.tables is None
            and 0 < length <= len(left)
            and all(resident.starts[window][row] <= first for window, first in seen.items())
            and list(left[:length]) == run.ids[:length]
        )

    def _empty(self, rows: int, slots: int) -> Resident:
        sizes = tuple((window, self.slots(window, slots)) for window in self.windows)
        starts = {window: np.zeros(rows, np.int32) for window in self.windows}
        if not self.reads_pages:
            return Resident(
                self._there(_views(self.config, rows, sizes)), [None] * rows, [()] * rows, slots, starts, None
            )
        tables = {w: np.full((rows, size // self.shapes.page), self.counts[w] - 1, np.int32) for w, size in sizes}
        return Resident((), [None] * rows, [()] * rows, slots, starts, tables)

    def slots(self, window: int, slots: int) -> int:
        """Of a view of layers with a window: enough to go on for a while before it must be brought anew."""
        room = window + 2 * self.shapes.adds + self.shapes.page
        return min(slots, -(-room // self.shapes.page) * self.shapes.page) if window else slots

    def _reaches(self, resident: Resident, row: int, window: int, run: Run) -> bool:
        """Whether what comes next still fits behind what is in the row."""
        end = min(max(run.lease.length, len(run.ids) - 1) + self.shapes.adds + 1, resident.slots)
        return bool(end - resident.starts[window][row] <= self.slots(window, resident.slots))

    def _load(self, resident: Resident, row: int, run: Run | None) -> None:
        tables = {}
        for group, window in enumerate(self.windows):
            table = np.full(self.slots(window, resident.slots) // self.shapes.page, self.counts[window] - 1, np.int32)
            if run is not None:
                first = max(run.lease.length - window + 1, 0) // self.shapes.page if window else 0
                resident.starts[window][row] = first * self.shapes.page
                found = run.lease.pages[group][first : first + len(table)]
                table[: len(found)] = found
            tables[window] = table
        if resident.tables is None:
            resident.memory = programs.load(self.config, resident.memory, self.pages, np.int32(row), tables)
            return
        for window, table in tables.items():
            resident.tables[window][row] = table

    def _targets(self, runs: Sequence[Run | None], starts: Sequence[int], counts: Sequence[int], size: int) -> Targets:
        """For each row's next tokens, the pages that its run has for them."""
        pages = {w: np.full((len(runs), size), count - 1, np.int32) for w, count in self.counts.items()}
        offsets = np.zeros((len(runs), size), np.int32)
        for row, (run, start, count) in enumerate(zip(runs, starts, counts, strict=True)):
            if run is None:
                continue
            at = np.arange(start, start + count)
            offsets[row, :count] = at % self.shapes.page
            first, last = start // self.shapes.page, (start + count - 1) // self.shapes.page
            for group, window in enumerate(self.windows):
                own = np.array(run.lease.pages[group][first : last + 1], np.int32)
                pages[window][row, :count] = own[at // self.shapes.page - first]
        return Targets(pages, offsets)

    def _choosing(self, runs: Sequence[Run | None], places: int = 1) -> Choosing:
        samplings = [run.request.sampling if run else GREEDY for run in runs]
        how = max(run.how if run else LIKELIEST for run in runs)
        index = np.array([run.written if run else 0 for run in runs], np.int32)
        seeds = [run.seed if run else 0 for run in runs]
        return Choosing(settings(samplings, seeds), index, self._steering(runs, places), np.int32(how))

    def _steering(self, runs: Sequence[Run | None], places: int) -> Steering:
        """What none of them asks for is on the device already, and stays there."""
        rows, vocab_size = len(runs), self.config.vocab_size
        if (rows, places) not in self.plain:
            self.plain[rows, places] = _no_steering(rows, places, vocab_size)
        asked: dict[str, np.ndarray] = {}
        for row, run in enumerate(runs):
            if run is None:
                continue
            if run.request.sampling.penalised:
                asked.setdefault("prompt", np.zeros((rows, vocab_size), bool))[row, np.asarray(run.request.ids)] = True
                counts = asked.setdefault("counts", np.zeros((rows, vocab_size), np.int32))
                for token, count in run.counts().items():
                    counts[row, token] = count
            for token, bias in run.request.sampling.logit_bias.items():
                asked.setdefault("bias", np.zeros((rows, vocab_size), np.float32))[row, token] = bias
            if run.allowed is not None:
                allowed = asked.setdefault("allowed", np.ones((rows * places, vocab_size), bool))
                for place, mask in enumerate(run.allowed[:places]):
                    allowed[row * places + place] = False
                    allowed[row * places + place, : len(mask)] = mask
        # On the device first, as the rest is: programs take one kind of array or the other.
        return self.plain[rows, places]._replace(**jax.device_put(asked))


def _no_steering(rows: int, places: int, vocab_size: int) -> Steering:
    shape = rows, vocab_size
    parts = np.zeros(shape, bool), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    return jax.device_put(Steering(*parts, np.ones((rows * places, vocab_size), bool)))


def _bucket(sizes: Sequence[int], wanted: int) -> int:
    """The smallest that is enough."""
    return next(size for size in sizes if size >= wanted)


def _compiled() -> int:
    every: tuple[Any, ...] = (*programs.PROGRAMS, _pages, _views)
    return sum(program._cache_size() for program in every)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _pages(config: ModelConfig, counts: tuple[tuple[int, int], ...], size: int, dtype: str) -> tuple[Pages, ...]:
    return views.make_pages(config, dict(counts), size, dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _views(config: ModelConfig, rows: int, slots: tuple[tuple[int, int], ...]) -> tuple[Memory, ...]:
    return views.make_views(config, rows, dict(slots))
