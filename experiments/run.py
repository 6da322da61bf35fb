"""An experiment from its config to its report: corpus, tokenizer, pretraining, mid-training, evaluation, report.

Each stage is left out when what it makes is there and was made by the same config, so that the same command goes on
from wherever the last one stopped. A run's folder:

    config.json environment.json        what ran, and where
    corpus/ tokenizer-*.model           unless the config names others
    checkpoints/STAGE/STEP              states
    metrics.jsonl events.jsonl tensorboard/   what happened
    result.json samples.json report.html
"""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
from etils import epath

from codelm.arithmetic import count_parameters
from codelm.caches import CACHE
from codelm.config import Config, resolve
from codelm.config_io import to_json
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer
from codelm.processes import exchange, of_first
from codelm.publish import check_writable, write_atomically
from codelm.tokenizer import Tokenizer, load
from data import inputs
from data.dataset import Corpus
from data.loader import Loader, make
from experiments import hosts, records, results, stages
from experiments.environment import environment
from experiments.evals import of_run
from experiments.report import REPORT, write_report
from train import checkpoints, held_out, infilling, schedules
from train.clock import Clock
from train.records import Records
from train.signals import leaving
from train.state import State
from train.trainer import Evaluation, Job, Trainer, like_state, mesh_of, part_loader_config


@dataclass(frozen=True)
class Settings:
    """What a run is told beside its config."""

    dir: Path = inputs.RUNS
    cache: Path = CACHE
    may_change: Sequence[str] = ()
    workers: int = 0


def run(config: Config, settings: Settings) -> Path:
    """All stages; the run's folder."""
    clock = Clock(_since_start())
    config = resolve(config)
    folder = inputs.run_folder(config, settings.dir)
    speaks = jax.process_index() == 0
    stages.check_may_change(settings.may_change)
    of_run.check(config.evaluation.suites)
    hosts.check_same(config, settings.may_change)
    check_writable(settings.cache / "something")
    with mesh_of(config) as mesh, _alone(folder, speaks), leaving(), told_of_memory():
        hosts.check_shared(folder)
        for job in stages.jobs(config, folder, {}, settings.may_change):
            stages.check(job)
        _describe(config, folder)
        corpus, tokenizer = _inputs(config, settings, folder, speaks)
        digests = stages.digests(config, corpus, tokenizer)
        hosts.check_inputs(digests)
        told = stages.jobs(config, folder, digests, settings.may_change, settings.workers)
        if of_first(lambda: _finished(config, folder, told)):
            return folder
        around = environment()
        if speaks:
            write_atomically(folder / "config.json", to_json(config).encode())
            write_atomically(folder / "environment.json", (json.dumps(around, indent=2) + "\n").encode())
        experiment = Experiment(config, settings, folder, corpus, tokenizer, mesh, clock)
        with contextlib.closing(Records(folder, config, speaks)) as writes:
            writes.event("started", commit=around["commit"], command=around["command"])
            try:
                experiment.go(told, writes)
            finally:
                writes.event("session", clock=clock.spent())
                # Of what there is; where the run fails, that is what to tell, not that its report failed too.
                with contextlib.suppress(UserError) if sys.exception() else contextlib.nullcontext():
                    if speaks:
                        write_report(folder)
    return folder


def _finished(config: Config, folder: Path, told: Sequence[Job]) -> bool:
    """Whether there is nothing to do, and nothing is to be touched."""
    if not results.current(folder, config) or not (folder / REPORT).exists():
        return False
    if any(stages.newest_step(job) < job.config.train.steps for job in told):
        return False
    for job in told:
        stages.check_same(job)
        _say(f"{job.stage}: there already, {job.config.train.steps} steps")
    _say(f"evaluation: there already, {folder / records.RESULT}")
    return True


class Experiment:
    """What the stages of one run share."""

    def __init__(
        self,
        config: Config,
        settings: Settings,
        folder: Path,
        corpus: Corpus | None,
        tokenizer: Tokenizer,
        mesh: Any,
        clock: Clock,
    ) -> None:
        self.config, self.settings, self.folder, self.mesh, self.clock = config, settings, folder, mesh, clock
        self.corpus = str(corpus.folder) if corpus else ""
        self.tokenizer = tokenizer
        self.measured: dict[str, float] = {}
        """The last held-out figures."""

    def loader(self, config: Config) -> Loader:
        return make(part_loader_config(config), self.corpus, self.tokenizer, cache=self.settings.cache)

    def held_out(self, config: Config) -> held_out.HeldOut:
        return held_out.make(config, self.corpus, self.tokenizer, self.settings.cache, self.mesh)

    def go(self, told: Sequence[Job], writes: Records) -> None:
        """Train every stage, and evaluate the last state."""
        state = None
        for number in range(len(told)):
            state = self.train(told, number, writes)
        if state is None and of_first(lambda: results.current(self.folder, self.config)):
            _say(f"evaluation: there already, {self.folder / records.RESULT}")
            return
        if state is None:
            state = self.last_state(told, writes)
        with self.clock.of("evaluation"):
            self.evaluate(told, state, writes)

    def train(self, told: Sequence[Job], number: int, writes: Records) -> State | None:
        """The last state of a stage; None where it was there before, and is not needed yet."""
        job, self.measured = told[number], {}
        if of_first(lambda: stages.newest_step(job)) >= job.config.train.steps:
            stages.check_same(job)
            _say(f"{job.stage}: there already, {job.config.train.steps} steps")
            return None
        loader, measured = self.loader(job.config), self.held_out(job.config)
        _say(f"{job.stage}: {_about(job.config, loader)}; {measured.describe(job.config.evaluation.batches)}")
        settings = job.config.evaluation

        def measure(model: Transformer, step: int) -> dict[str, float]:
            self.measured = measured.measure(model)
            return self.measured

        held = Evaluation(settings.every, measure)
        fills = infilling.make(job.config, self.corpus, self.tokenizer) if settings.infill_every else None
        others = [Evaluation(settings.infill_every, lambda model, step: fills.measure(model)[0])] if fills else []
        if settings.suites and settings.suites_every:
            others.append(Evaluation(settings.suites_every, lambda model, step: self.by_suites(model, job, step)))
        exchange("ready to train")  # hosts tokenize at their own pace, and Orbax has no patience
        try:
            return Trainer(job, loader, writes, self.clock, held, others).run(self.mesh)
        except checkpoints.Damaged as error:
            if not number or job.start is None:
                raise UserError(
                    f"cannot begin from {job.start}: it is damaged ({error}); take it away, and the run that made it "
                    "trains its last steps again"
                ) from error
            self.retrain(told, number - 1, job.start, str(error), writes)
        return self.train(told, number, writes)

    def retrain(self, told: Sequence[Job], number: int, damaged: epath.Path, said: str, writes: Records) -> State:
        """A stage's last steps once more, from the checkpoint before its last, which is damaged."""
        _say(f"{damaged} is damaged ({said}): it is set aside, and its last steps are trained again")
        writes.event("damaged", stage=told[number].stage, what=f"{damaged}: {said}")
        if jax.process_index() == 0:
            stages.set_aside(damaged)
        exchange("set aside")
        state = self.train(told, number, writes)
        assert state is not None
        return state

    def last_state(self, told: Sequence[Job], writes: Records) -> State:
        job = told[-1]
        folder = epath.Path(job.checkpoints) / str(job.config.train.steps)
        try:
            return checkpoints.load(folder, like_state(job.config), job.config, job.inputs, job.may_change)
        except checkpoints.Damaged as error:
            return self.retrain(told, len(told) - 1, folder, str(error), writes)

    def by_suites(self, model: Transformer, job: Job, step: int) -> dict[str, float]:
        """What `codelm eval` measures, of a model that is in memory."""
        settings, family = job.config.evaluation, job.config.tokenizer.family
        lm = LM(model.config, model, self.tokenizer, "codelm", None, family, f"checkpoints/{job.stage}/{step}")
        return of_run.measure(lm, self.folder, settings.suites, settings.suites_tasks)

    def evaluate(self, told: Sequence[Job], state: State, writes: Records) -> None:
        """What training measured after its last step is not measured again."""
        first, last = told[0], told[-1]
        measured = self.held_out(last.config)
        found = dict(self.measured) if self.measured else measured.measure(state.model)
        parts = schedules.parts_before(first.config.train, first.config.train.steps)
        found["unigram_loss"] = measured.unigram_loss(self.loader(first.config), parts)
        fills, filled = infilling.make(last.config, self.corpus, self.tokenizer).measure(state.model)
        if last.config.evaluation.suites:
            found |= self.by_suites(state.model, last, last.config.train.steps)
        samples = results.samples(last.config, state.model, self.tokenizer, filled)
        writes.metrics(last.stage, last.config.train.steps, last.steps_before + last.config.train.steps, found | fills)
        if jax.process_index() == 0:
            results.write(self.folder, self.config, told, found | fills, samples, self.clock)


def _inputs(config: Config, settings: Settings, folder: Path, speaks: bool) -> tuple[Corpus | None, Tokenizer]:
    """The corpus and the tokenizer, made by the first process while the others wait."""
    if not speaks:
        exchange("inputs")
        return inputs.left_in(folder, config)
    corpus = inputs.own_corpus(config, settings.dir) if inputs.needs_own_corpus(config) else None
    file = inputs.tokenizer_file(config, corpus, settings.dir)
    tokenizer = load(file)
    # Where codelm.load looks for it.
    write_atomically(folder / "checkpoints" / f"tokenizer{file.suffix}", file.read_bytes())
    exchange("inputs")
    if corpus:
        kept, dropped = corpus.manifest["kept"], corpus.manifest["dropped"]
        lost = ", ".join(f"{row['documents']} {reason}" for reason, row in dropped.items())
        _say(f"corpus: {kept['documents']:,} files, {kept['bytes'] / 1e6:.1f} MB; dropped {lost or 'none'}")
    _say(f"tokenizer: {tokenizer.vocab_size:,} pieces")
    return corpus, tokenizer


def _describe(config: Config, folder: Path) -> None:
    size, device = count_parameters(config.model).total / 1e6, jax.devices()[0]
    _say(f"{config.name}: {size:.1f}M parameters on {jax.device_count()} x {device.device_kind}, in {folder}")


@contextlib.contextmanager
def told_of_memory() -> Iterator[None]:
    """In one line, with what to do about it."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in said and "out of memory" not in said.lower():
            raise
        raise UserError(
            f"out of memory ({said[:160]}): take a smaller data.batch_size, more parts (train.accumulate), "
            "model.remat=full, or more devices"
        ) from error


def _about(config: Config, loader: Loader) -> str:
    tokens = sum(rows.stratum.tokens for rows in loader.strata)
    return (
        f"{config.train.steps} steps of {config.data.batch_size} x {config.data.seq_len} tokens, of {tokens / 1e6:.2f}M"
    )


@contextlib.contextmanager
def _alone(folder: Path, speaks: bool) -> Iterator[None]:
    """The only run in this folder."""
    if not speaks:
        yield
        return
    check_writable(folder / records.LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / records.LOCK).open("a+")
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror or error}; give another --dir") from error
    try:
        with lock:
            _lock(lock, folder)
            yield
    finally:
        with contextlib.suppress(OSError):  # nothing but the lock: the run never began
            if [path.name for path in folder.iterdir()] == [records.LOCK]:
                (folder / records.LOCK).unlink()
                folder.rmdir()


def _lock(lock: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise UserError(
            f"a run is in progress in {folder} (process {holder}): wait for it, or give this one another --name"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _since_start() -> float:
    """Seconds since this process began: importing is part of starting anew."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return max(up - ticks / os.sysconf("SC_CLK_TCK"), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
