"""Who runs, who waits, who goes first, and who gives way when rows or pages run out.

Interactive requests (someone waits at a cursor) go before those of batches: in the queue, for a row, for pages, and in
reading, where a batch gets a small chunk in one step of four while anybody interactive is there. Within a class the
first to come goes first. Whoever gives way is read again later; its pages stay in the cache while nobody needs them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from infer.pages import Pages
from infer.run import Run

BATCH_TURN = 4  # while interactive requests are there, a batch reads in one of so many steps
FILLED = 0.6  # a chunk that is less full costs more than two smaller ones


@dataclass(frozen=True)
class Limits:
    rows: int
    """Texts that run at once."""
    chunks: Sequence[int]
    """Tokens of a prompt that can be read at once, from few to many."""
    steps: int
    """Tokens that can be decoded at once."""
    of_one: Mapping[int, int]
    """Pages of one text at most, in the layers of each window."""
    classes: bool
    """Whether interactive requests go before batches."""


class Schedule:
    def __init__(self, limits: Limits, pages: Pages, drop: Callable[[Run], None]) -> None:
        """`drop` is told of every run that is about to give its pages back."""
        self.limits, self.pages, self.drop = limits, pages, drop
        self.waiting: list[Run] = []
        self.running: list[Run] = []
        self.preempted = 0

    def admit(self) -> Iterator[Run]:
        """Those that wait, in order, while there are rows and pages for them."""
        for run in sorted(self.waiting, key=self.rank):
            siblings = (other for other in self.running if other.stream is run.stream)
            if run.shares and any(other.reading for other in siblings):
                continue  # it finds their prompt in the cache as soon as it has been read
            if len(self.running) == self.limits.rows and not self._make_way(run, only_class=True):
                return
            run.held = self.pages.acquire(run.ids, share=run.shares)
            while not self._has_room(run):
                if not self._make_way(run):
                    self.pages.release(run.lease)
                    run.held = None
                    return
            self.waiting.remove(run)
            self.running.append(run)
            yield run

    def reader(self, turn: int) -> Run | None:
        """The one whose prompt is read in this turn."""
        run = min((run for run in self.running if run.reading), key=self.rank, default=None)
        if run is None:
            return None
        return None if self._in_the_way(run) and turn % BATCH_TURN else run

    def writers(self) -> list[Run]:
        """Those whose texts go on in this turn: all, but for one that has to be by itself."""
        runs = sorted((run for run in self.running if not run.reading), key=self.rank)
        return [run for run in runs if run.alone][:1] or runs

    def chunk(self, run: Run) -> int:
        """Tokens to read at once: of the sizes that there are, the largest that they fill for the most part; but never
        the largest of all while a batch holds up somebody at a cursor."""
        left, sizes = len(run.ids) - run.lease.length, self.limits.chunks
        sizes = sizes[:-1] if self._in_the_way(run) and len(sizes) > 1 else sizes
        return min(left, next((size for size in reversed(sizes) if left >= FILLED * size), sizes[0]))

    def steps(self, runs: Sequence[Run]) -> int:
        """Tokens to decode in this turn: fewer when somebody waits, one where each decides what may follow."""
        if any(run.constraint or not run.written for run in runs):
            return 1
        urgent = min(map(self.rank, runs), default=(0, 0))[0]
        waited_for = any(run.reading and self.rank(run)[0] <= urgent for run in self.running)
        return max(self.limits.steps // 4, 1) if waited_for else self.limits.steps

    def reserve(self, run: Run, tokens: int) -> bool:
        """Pages for so many tokens, if need be of those who go later; without, the run itself gives way."""
        while not self.pages.reserve(run.lease, tokens):
            if not self._make_way(run):
                self._preempt(run)
                return False
        return True

    def put_back(self, run: Run) -> None:
        """To those who wait."""
        self.end(run)
        self.waiting.append(run)

    def end(self, run: Run) -> None:
        """It neither runs nor waits, and holds nothing."""
        if run.held:
            self.drop(run)
            self.pages.release(run.lease)
            run.held = None
        (self.running if run in self.running else self.waiting).remove(run)

    def rank(self, run: Run) -> tuple[int, int]:
        """The lower goes first."""
        return int(self.limits.classes and run.request.priority == "batch"), run.order

    def _in_the_way(self, run: Run) -> bool:
        """Whether somebody of an earlier class is there."""
        return any(self.rank(other)[0] < self.rank(run)[0] for other in [*self.waiting, *self.running])

    def _has_room(self, run: Run) -> bool:
        """Whether its whole text could get pages now: to begin only to give way would be wasted work."""
        whole = -(-(len(run.ids) + 1) // self.pages.size)
        groups = zip(self.limits.of_one.items(), self.pages.counts(), run.lease.pages, strict=True)
        return all(
            count.free + count.cached >= (min(whole, most) if window else whole) - sum(page >= 0 for page in pages)
            for (window, most), count, pages in groups
        )

    def _make_way(self, run: Run, only_class: bool = False) -> bool:
        """The one that goes last gives way to a run, if it goes after it (with `only_class`: is of a later class)."""
        last = max(self.running, key=self.rank, default=run)
        before = self.rank(run)[0] < self.rank(last)[0] if only_class else self.rank(run) < self.rank(last)
        if before:
            self._preempt(last)
        return before

    def _preempt(self, run: Run) -> None:
        self.preempted += 1
        run.stream.timing.preempted += 1
        self.put_back(run)
