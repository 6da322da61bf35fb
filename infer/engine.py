"""The engine: many requests at once, each answered as if it were alone.

A step admits what waits, reads one chunk of one prompt, and decodes a few tokens for every text that is being written;
between two steps requests come, are cancelled, and run out of time. Keys and values are in pages that requests with a
common beginning share. When pages run out, the least urgent text gives up its own, and is read again later.

Who goes first is `infer.schedule`'s, what is in which page `infer.pages`', the calls `infer.device`'s.

>>> engine = Engine(lm)
>>> stream = engine.submit(Request(ids, max_new_tokens=20))
>>> for event in stream:
...     print(event.text, end="")
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import jax

from codelm.errors import UserError
from codelm.lm import LM
from infer.device import Device, Shapes
from infer.draft_model import DraftModel
from infer.healing import Healing
from infer.memory import count_pages, pages_of_one
from infer.pages import Group, Pages
from infer.programs import FILTERED, LIKELIEST, SAMPLED, STEERED
from infer.request import Event, Finish, Request, Timing
from infer.run import Run
from infer.sampling import NOTHING
from infer.schedule import Limits, Schedule
from infer.speculation import Speculation, lookup_of
from infer.stats import Counters, Stats
from infer.stream import Stream
from infer.text import Piece, Writer

log = logging.getLogger("infer.engine")

NOTHING_ALLOWED = "nothing that its restriction allows can follow: the text cannot be finished"
NOT_FINITE = "the model's scores are not numbers: are its weights?"


@dataclass(frozen=True)
class Options:
    """How an engine works."""

    rows: int = 8
    """Texts that are written at once."""
    context: int = 0
    """Longest prompt and text together; 0 = what the model is good for."""
    memory: int = 0
    """Bytes of keys and values in pages; 0 = what twice as many full texts as rows take, if there is room. Where no
    kernel reads pages, views of what is being written take as much as it has in them."""
    cache: Literal["", "float32", "bfloat16", "int8"] = ""
    """What keys and values are kept in; empty = what the model computes in."""
    page: int = 16
    """Tokens in a page."""
    chunk: int = 256
    """Tokens of a prompt read at once: more at once read faster, and hold up others for longer."""
    steps: int = 8
    """Tokens decoded in one call to the device at most: more at once cost less, and are seen and cancelled later."""
    share: bool = True
    """Whether requests with a common beginning share its keys and values."""
    classes: bool = True
    """Whether interactive requests go before batches."""
    speculate: Literal["auto", "always", "never"] = "auto"
    """Whether drafts of what may come next are verified: where that has paid so far, once the engine is warm; or
    whenever there are any; or never. It changes no text."""
    widths: tuple[int, ...] = (4, 8, 16)
    """Tokens that can be verified at once: the last one of a text, and a draft."""


class Engine:
    def __init__(
        self,
        lm: LM,
        options: Options | None = None,
        *,
        draft: LM | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`draft`: a small model with the same vocabulary, that writes drafts for this one; what it keeps of its texts
        comes on top of the memory in the options."""
        options = options or Options()
        config = lm.config
        if config.rope.scaling == "dynamic":
            raise UserError("the keys of a model with dynamic rope scaling change as its text grows: nothing to cache")
        if jax.process_count() > 1:
            raise UserError("an engine serves from one process: start one for each host, or export the model")
        self.lm, self.options = lm, options
        self.context = options.context or config.max_seq_len
        if not self.context:
            raise UserError("the model does not say how long its texts may be: give a context")
        self.shapes = _shapes(options, self.context)
        dtype = options.cache or config.compute_dtype
        of_one = pages_of_one(config, self.context, self.shapes.adds, options.page)
        counts = count_pages(config, of_one, options.rows, options.page, dtype, options.memory)
        self.pages = Pages([Group(count, window) for window, count in counts.items()], options.page)
        self.device = Device(lm.model, self.shapes, counts, dtype)
        if draft and options.speculate == "never":
            raise UserError('speculate="never" has no use for a draft model: leave one of the two out')
        self.drafter = DraftModel(draft, lm, self.shapes, options.rows, self.context) if draft else None
        always = options.speculate == "always"
        self.speculation = Speculation(self.shapes.widths, always, self.drafter) if self.shapes.widths else None
        self.arrivals: deque[Run] = deque()
        limits = Limits(options.rows, self.shapes.chunks, options.steps, of_one, options.classes)
        self.schedule = Schedule(limits, self.pages, self._dropped)
        self.counters = Counters()
        self.orders = itertools.count()
        self.clock = clock
        self.lock = threading.RLock()
        self.arrival = threading.Condition()
        self.thread: threading.Thread | None = None
        self.closing = False

    # ---- for those who ask ----

    def submit(self, request: Request) -> Stream:
        """Queue a request; its stream gives what is written. What cannot be done is refused, and changes nothing."""
        request.check(self.lm.config.vocab_size, has_text=self.lm.tokenizer is not None)
        if len(request.ids) + request.max_new_tokens > self.context:
            raise UserError(
                f"{len(request.ids):,} tokens of prompt and {request.max_new_tokens:,} new ones are more than the "
                f"context of {self.context:,}: shorten the prompt, or ask for fewer"
            )
        stream = Stream(request, Timing(self.clock(), prompt_tokens=len(request.ids)), self._drive)
        stream.runs = [self._run(request, stream, sample) for sample in range(request.best_of or request.n)]
        with self.arrival:
            self.counters.requests += 1
            self.counters.prompt_tokens += len(request.ids)
            self.arrivals.extend(stream.runs)
            self.arrival.notify_all()
        return stream

    def warm_up(self) -> float:
        """Compile every program there can be, so that none is compiled while somebody waits; the seconds it took."""
        with self.lock, self.device.placed():
            if self.drafter:
                self.drafter.device.warm_up(timed=True)
            return self.device.warm_up(timed=self.speculation is not None)

    def stats(self) -> Stats:
        with self.lock:
            return Stats(
                pages=self.pages.counts(),
                waiting=len(self.schedule.waiting) + len(self.arrivals),
                running=len(self.schedule.running),
                compilations=self.device.compilations(),
                warm_up_seconds=self.device.warm_up_seconds,
                preempted=self.schedule.preempted,
                drafted=tuple(self.speculation.drafted if self.speculation else ()),
                accepted=tuple(self.speculation.accepted if self.speculation else ()),
                **asdict(self.counters),
            )

    def start(self) -> None:
        """Work in a thread of its own from now on, until closed. Otherwise whoever reads a stream does the work."""
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End the thread after the step it is in."""
        with self.arrival:
            self.closing = True
            self.arrival.notify_all()
        if self.thread:
            self.thread.join()
            self.thread = None

    def _work(self) -> None:
        while not self.closing:
            if not self.step():
                with self.arrival:
                    self.arrival.wait_for(lambda: self.arrivals or self.closing)

    def _drive(self, stream: Stream) -> None:
        """Work until a stream has something to read."""
        while not stream.ready():
            if self.thread is None:
                self.step()
                continue
            with stream.arrival:
                stream.arrival.wait_for(stream.ready)

    def _run(self, request: Request, stream: Stream, sample: int) -> Run:
        restriction = request.restriction
        healing = restriction if isinstance(restriction, Healing) else Healing()
        constraint = None
        if restriction and self.lm.tokenizer:
            constraint = restriction.start(self.lm.tokenizer, request.stop_ids)
        return Run(
            request=request,
            stream=stream,
            sample=sample,
            order=next(self.orders),
            ids=list(request.ids),
            writer=Writer(self.lm.tokenizer, request.stop, len(healing.typed), len(healing.tail)),
            constraint=constraint,
            asks=_how(request),
            shares=request.share and self.options.share,
            lookup=lookup_of(request) if self.speculation else None,
        )

    def _dropped(self, run: Run) -> None:
        """It is about to give its pages back."""
        self.device.drop(run)
        if self.drafter:
            self.drafter.drop(run)

    # ---- one turn ----

    def step(self) -> bool:
        """One turn; whether there was anything to do."""
        with self.lock, self.device.placed():
            self.counters.steps += 1
            while self.arrivals:
                self.schedule.waiting.append(self.arrivals.popleft())
            try:
                self._end_those_over()
                self._admit()
                if not self.schedule.running:
                    return bool(self.schedule.waiting)
                self._read()
                self._write()
            except Exception as error:  # of the engine itself: nobody knows what is still right, so all start anew
                log.exception("the engine failed; it goes on without what was running")
                self.counters.broken_steps += 1
                for run in list(self.schedule.running):
                    self._end(run, "error", _told(error))
                self._lose_cache()
            return True

    def _end_those_over(self) -> None:
        now = self.clock()
        for run in [*self.schedule.waiting, *self.schedule.running]:
            if run.stream.cancelled:
                self._end(run, "cancelled")
            elif now - run.stream.timing.arrived >= run.request.deadline:
                self._end(run, "deadline")

    def _admit(self) -> None:
        for run in self.schedule.admit():
            self.device.copy(run.lease.copies)
            run.lease.copies.clear()
            timing = run.stream.timing
            if not timing.started:
                timing.started, timing.cached_tokens = self.clock(), run.lease.length
                self.counters.cached_tokens += run.lease.length

    def _read(self) -> None:
        """A chunk of the prompt that goes first."""
        run = self.schedule.reader(self.counters.steps)
        if run is None or not self._prepare(run):
            return
        count = self.schedule.chunk(run)
        end = run.lease.length + count
        if not self.schedule.reserve(run, end):
            return
        try:
            chosen = self.device.extend(run, count, last=end == len(run.ids))
        except Exception as error:
            self._failed([run], error)
            return
        self.counters.read_tokens += count
        self.pages.written(run.lease, run.ids[:end], share=run.shares)
        if end == len(run.ids):
            self._take(run, [chosen])

    def _write(self) -> None:
        """Some tokens for each text that is being written."""
        runs = [run for run in self.schedule.writers() if self._prepare(run)]
        drafts, verifies = self.speculation.plan(runs, self.device) if self.speculation and runs else ({}, False)
        most = self.schedule.steps(runs)
        steps = {
            run: 1 + len(drafts[run].tokens) if verifies else min(most, run.request.max_new_tokens - run.written)
            for run in runs
        }
        for run in runs:
            if run.held:  # it has not given way to one before it
                self.schedule.reserve(run, len(run.ids) - 1 + steps[run])
        runs = [run for run in runs if run.held]
        if not runs:
            return
        try:
            if verifies:
                written = self.device.verify({run: drafts[run].tokens for run in runs})
            else:
                written = self.device.decode({run: steps[run] for run in runs})
        except Exception as error:
            self._failed(runs, error)
            return
        self.counters.passes += 1 if verifies else max(map(len, written.values()))
        for run, tokens in written.items():
            run.alone = False
            if self.speculation and run in drafts:
                self.speculation.learn(run, drafts[run], [token for token, _ in tokens], verifies)
            text = run.ids + [token for token, _ in tokens[:-1]]
            self.pages.written(run.lease, text, share=run.shares)
            self._take(run, tokens)

    # ---- what was written ----

    def _prepare(self, run: Run) -> bool:
        """Ask its constraint what may come next; whether there is an answer."""
        try:
            allowed = run.constraint.allowed() if run.constraint else None
        except Exception as error:
            self._end(run, "error", _told(error))
            return False
        run.allowed = None if allowed is None else [allowed]
        if allowed is None:
            run.constraint = None
        return True

    def _take(self, run: Run, tokens: Sequence[tuple[int, float]]) -> None:
        """Tokens that were chosen for a run, up to what ends it."""
        finish, error, before = None, "", len(run.ids)
        pieces: list[Piece] = []
        for token, logprob in tokens:
            if token == NOTHING:
                finish, error = "error", NOT_FINITE if run.allowed is None else NOTHING_ALLOWED
            elif token in run.request.stop_ids:
                finish = "stop"
            else:
                run.ids.append(token)
                run.logprobs.append(logprob)
                pieces.append(run.writer.write(token, logprob))
                if run.writer.stopped:
                    finish = "stop"
                elif run.written == run.request.max_new_tokens:
                    finish = "length"
                elif run.constraint:
                    try:
                        run.constraint.advance(token)
                    except Exception as failure:
                        finish, error = "error", _told(failure)
            if finish:
                break
        if run.lookup:
            run.lookup.add(run.ids[before:])
        timing = run.stream.timing
        timing.first = timing.first or self.clock()
        if finish:
            self._end(run, finish, error, pieces)
        else:
            self._give(run, pieces)

    def _end(self, run: Run, finish: Finish, error: str = "", pieces: Sequence[Piece] = ()) -> None:
        """No more of it: what it holds is given back, and its reader is told why."""
        self.schedule.end(run)
        ended = {"cancelled": "cancelled", "deadline": "expired", "error": "failed"}.get(finish)
        if ended:
            setattr(self.counters, ended, getattr(self.counters, ended) + 1)
        run.finish = finish
        timing = run.stream.timing
        timing.new_tokens += run.written
        timing.finished = self.clock()
        self.counters.new_tokens += run.written
        self._give(run, [*pieces, run.writer.end(by_stop=finish == "stop")], error)

    def _give(self, run: Run, pieces: Sequence[Piece], error: str = "") -> None:
        """To the reader, if there is something to tell; of the best of several, once all are whole."""
        ids = [i for piece in pieces for i in piece.ids]
        text = "".join(piece.text for piece in pieces)
        logprobs = [value for piece in pieces for value in piece.logprobs] if run.request.logprobs else None
        if not (ids or text or run.finish):
            return
        event = Event(ids, text, logprobs, run.sample, run.finish, error)
        if not run.request.best_of:
            run.stream.put(event)
            return
        run.kept.append(event)
        if all(other.finish for other in run.stream.runs):
            best = sorted(run.stream.runs, key=lambda other: -other.mean_logprob)[: run.request.n]
            for sample, other in enumerate(best):
                for event in other.kept:
                    run.stream.put(replace(event, sample=sample))

    # ---- what went wrong ----

    def _failed(self, runs: Sequence[Run], error: Exception) -> None:
        """A call to the device failed. Of one run it was its own; of several each goes on alone, until one succeeds."""
        log.exception("a step failed")
        self.counters.broken_steps += 1
        if len(runs) == 1:
            self._end(runs[0], "error", _told(error))
        else:
            for run in runs:
                run.alone = True
        self._lose_cache()

    def _lose_cache(self) -> None:
        """What a failed call was given is used up: all read their texts again."""
        for run in list(self.schedule.running):
            self.schedule.put_back(run)
        self.pages.forget()
        self.device.reset()
        if self.drafter:
            self.drafter.reset()


def _shapes(options: Options, context: int) -> Shapes:
    """Few sizes of each: rows double, chunks and views grow by four."""
    page = options.page
    if not options.widths or options.widths[0] < 2 or list(options.widths) != sorted(set(options.widths)):
        raise UserError(f"widths must be from 2 on and grow, such as (4, 16), not {options.widths}")
    widths = () if options.speculate == "never" else options.widths
    whole = -(-(context + max(options.chunk, options.steps, *widths) + 1) // page) * page
    chunks = [*(size for size in (16, 64) if size < options.chunk), options.chunk]
    slots = [*(size for size in (256, 1024, 4096, 16384, 65536) if size < whole and size % page == 0), whole]
    rows = [*(2**n for n in range((options.rows - 1).bit_length())), options.rows]
    return Shapes(tuple(rows), tuple(slots), tuple(chunks), options.steps, widths, page)


def _how(request: Request) -> int:
    """What choosing its tokens takes, but for its constraint."""
    sampling = request.sampling
    if sampling.penalised or sampling.logit_bias:
        return STEERED
    if not sampling.sampled:
        return LIKELIEST
    return FILTERED if sampling.filtered else SAMPLED


def _told(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
