"""Batches as a pure function of (config, step): the same rows whatever the hosts, workers or step it was resumed at.

>>> loader = make(config, corpus="runs/quickstart/corpus")
>>> loader.batch(7)["tokens"].shape        # the whole batch of step 7
>>> loader.local_batch(7, host=1, hosts=4) # the rows that the second of four hosts makes
>>> for batch in loader.batches(start=7, workers=4): ...   # made ahead by four processes
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import absl.flags
import grain
import numpy as np

from codelm import formats
from codelm.caches import CACHE
from codelm.config import Config, resolve
from codelm.data_config import DataConfig, SourceConfig
from codelm.errors import UserError
from codelm.format_table import Family
from codelm.formats import File
from codelm.tokenizer import PAD, Tokenizer, load
from data import arrangement, runners, segments, tokenizing
from data.arrangement import Arrangement, Stratum
from data.mixture import Mixture, Part
from data.rows import Arrays, copied, lay, stack
from data.writing import Writer, Written, overhead

_SHARES = 1 << 40  # weights as integers out of so many
FOREVER = 1 << 40


@dataclass(frozen=True)
class Row:
    """One row, and what it is made of."""

    number: int
    source: str
    epoch: int
    arrays: Arrays
    documents: tuple[Written, ...]
    writer: Writer
    """Knows the names of their files."""


@dataclass(frozen=True)
class StratumRows:
    """One stratum of one source."""

    name: str
    writer: Writer
    arrangement: Arrangement
    stratum: Stratum
    seed: int

    @cached_property
    def order(self) -> Any:
        """Of every row ever drawn, which row of the arrangement it is: shuffled anew each epoch."""
        return grain.MapDataset.range(self.stratum.rows).seed(self.seed).shuffle().repeat()

    def documents(self, number: int, seq_len: int, rng: np.random.Generator) -> list[Written]:
        """A segment that needs less than what was set aside for it leaves more to the next."""
        written, spare = [], seq_len
        segments = self.arrangement.row(self.stratum.first + int(self.order[number]))
        rest = sum(length for _, length, _ in segments)
        for parts, length, complete in segments:
            rest -= length
            found = self.writer.write(parts, spare - rest, complete, rng)
            spare -= sum(document.positions for document in found)
            written += found
        return written


@dataclass(frozen=True)
class Loader:
    """See the module; made by `make`."""

    seq_len: int
    batch_size: int
    seed: int
    pad: int
    strata: tuple[StratumRows, ...]
    mixture: Mixture

    def batch(self, step: int) -> Arrays:
        return self.local_batch(step, 0, 1)

    def local_batch(self, step: int, host: int, hosts: int) -> Arrays:
        """Rows `host`/`hosts` of the batch: of four hosts, the second makes the second quarter."""
        if hosts < 1 or self.batch_size % hosts:
            raise UserError(f"{hosts} hosts cannot share data.batch_size={self.batch_size}: it is no multiple")
        if not 0 <= host < hosts:
            raise UserError(f"there is no host {host}: {hosts} hosts are counted from 0")
        each = self.batch_size // hosts
        return self.rows(step, range(host * each, (host + 1) * each))

    def rows(self, step: int, wanted: Sequence[int]) -> Arrays:
        """The wanted rows of a batch, counted from 0."""
        return stack([self.row(step * self.batch_size + number).arrays for number in wanted])

    def row(self, number: int) -> Row:
        """Row `number` of all rows ever; randomness comes from the seed and this number alone."""
        if number < 0:
            raise UserError(f"there is no row {number}: steps and rows are counted from 0")
        stratum, drawn = self.mixture.locate(number)
        rows = self.strata[stratum]
        rng = np.random.Generator(np.random.Philox(key=[self.seed % (1 << 64), number]))
        documents = rows.documents(drawn, self.seq_len, rng)
        replies_only = [rows.writer.level == "chat"] * len(documents)
        arrays = lay(documents, self.seq_len, self.pad, replies_only)
        return Row(number, rows.name, drawn // rows.stratum.rows, arrays, tuple(documents), rows.writer)

    def epochs(self, step: int) -> dict[str, float]:
        """How often each source was gone through before `step`."""
        taken = self.mixture.taken(step * self.batch_size)
        return {rows.name: count / rows.stratum.rows for rows, count in zip(self.strata, taken, strict=True)}

    def batches(
        self,
        start: int = 0,
        stop: int = FOREVER,
        wanted: Sequence[int] | None = None,
        workers: int = 0,
        ahead: int = 2,
    ) -> Generator[Arrays]:
        """Batches from `start` on, or the wanted rows of them; they end only at `stop`. `ahead` of them are made while
        earlier ones are used: by a thread, or by each of `workers` processes, which make whole batches, so that none
        is lost or doubled. Close it to end them."""
        if start < 0 or workers < 0:
            raise UserError(f"start={start} and workers={workers} must be at least 0")
        rows = range(self.batch_size) if wanted is None else wanted
        steps = grain.MapDataset.range(start, stop).map(partial(self.rows, wanted=rows))
        if workers:
            absl.flags.FLAGS.mark_as_parsed()  # Grain's processes read flags, which only absl's own `main` parses
            options = grain.MultiprocessingOptions(workers, ahead)
            batches = iter(steps.to_iter_dataset(grain.ReadOptions(0, 0)).mp_prefetch(options))
        else:
            batches = iter(steps.to_iter_dataset(grain.ReadOptions(1, ahead)))
        with contextlib.closing(batches):
            for batch in batches:
                # What comes from a process is in memory shared with it, which a batch that is kept would keep from
                # being given back: at the end of a script, too late.
                yield copied(batch) if workers else batch


def make(
    config: Config,
    corpus: str | Path = "",
    tokenizer: Tokenizer | None = None,
    *,
    split: str = "train",
    cache: str | Path = CACHE,
    workers: int = 0,
) -> Loader:
    """The loader of an experiment. `corpus` is its own corpus, for the sources that name no other; the tokenizer is
    that of `config.tokenizer.path` unless given. What is made on the way (tokens, rows) by `workers` processes (0: one
    a core) stays in `cache`, and is found there by the next."""
    config = resolve(config)
    tokenizer = tokenizer or _tokenizer(config)
    _check(config, tokenizer)
    makes = partial(_source, config, str(corpus), tokenizer, split, Path(cache), workers or runners.cores())
    sources = [makes(n) for n in range(len(config.data.sources))]
    pad = tokenizer.special.get(PAD, 0)
    strata = tuple(rows for source in sources for rows in source)
    return Loader(config.data.seq_len, config.data.batch_size, config.seed, pad, strata, _mixture(config.data, sources))


def _source(
    config: Config, own: str, tokenizer: Tokenizer, split: str, cache: Path, workers: int, number: int
) -> list[StratumRows]:
    """The strata of a source of the mixture."""
    source, data, family = config.data.sources[number], config.data, formats.family(config.tokenizer.family)
    where = f"data.sources.{number}"
    folder = source.corpus or own
    if not folder:
        raise UserError(f"{where} is the experiment's own corpus, and none was given: see codelm data build --help")
    if source.level == "chat" and split != "train":
        raise UserError(f"{where} is conversations, which have no split '{split}': leave it out of data.sources")
    try:
        split = "" if source.level == "chat" else split
        store = tokenizing.store(folder, split, tokenizer, family.name, cache, workers)
        found = arrangement.of_source(store, source, data, overhead(family, tokenizer, data), config.seed, cache)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    writer = Writer(store, tokenizer, family, source.level, data)
    name = _name(config.data.sources, number)
    seeds = np.random.SeedSequence((config.seed, number)).generate_state(len(found.strata))
    return [
        StratumRows(name if stratum.name == "all" else f"{name} {stratum.name}", writer, found, stratum, int(seed))
        for stratum, seed in zip(found.strata, seeds, strict=True)
    ]


def _name(sources: Sequence[SourceConfig], number: int) -> str:
    """What a person calls a source: its folder, and its number where that does not tell it from the others."""
    name = short_name(sources[number])
    alike = [source for source in sources if short_name(source) == name]
    return name if len(alike) == 1 else f"{name}#{number}"


def short_name(source: SourceConfig) -> str:
    return Path(source.corpus).name or "corpus"


def _mixture(data: DataConfig, sources: list[list[StratumRows]]) -> Mixture:
    """Rows all have the same length, so shares of tokens are shares of rows."""
    parts = []
    for number, step in enumerate((0, *data.boundaries)):
        weights = [source.weight[min(number, len(source.weight) - 1)] for source in data.sources]
        shares = [
            weight / sum(weights) * rows.stratum.share
            for weight, source in zip(weights, sources, strict=True)
            for rows in source
        ]
        whole = tuple(max(round(share * _SHARES), 1) if share else 0 for share in shares)
        parts.append(Part(step * data.batch_size, whole))
    return Mixture(tuple(parts))


def _tokenizer(config: Config) -> Tokenizer:
    if not config.tokenizer.path:
        raise UserError("the loader needs a tokenizer: set tokenizer.path, or give the one learnt on the corpus")
    return load(config.tokenizer.path)


def _check_special_tokens(data: DataConfig, family: Family, tokenizer: Tokenizer) -> None:
    """Writing with a tokenizer that lacks one says which."""
    formats.text(family, tokenizer, "", end=True)
    if data.fim.rate:
        for mode in family.fim:
            formats.fim(family, tokenizer, "", "", "", mode=mode)
        if data.fim.spans.several and family.several is not None:
            most = len(family.several.masks)
            formats.fim_several(family, tokenizer, [""] * (most + 1), [""] * most)
    if family.repository is not None:
        formats.repository(family, tokenizer, "name", [File("path", "")])


def _check(config: Config, tokenizer: Tokenizer) -> None:
    """What only the tokenizer and the family together tell."""
    data, family = config.data, formats.family(config.tokenizer.family)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, and the model rows for {config.model.vocab_size}: set "
            f"tokenizer.vocab_size to {tokenizer.vocab_size}"
        )
    if data.fim.rate and not family.fim:
        raise UserError(f"{family.name} has no fill-in-the-middle format: set data.fim.rate to 0")
    if data.fim.rate and data.fim.spans.several and family.several is None:
        raise UserError(f"{family.name} has no format for several holes: set data.fim.spans.several to 0")
    if family.repository is None and any(source.level == "repository" for source in data.sources):
        raise UserError(f"{family.name} has no format for repositories: use sources of level file")
    _check_special_tokens(data, family, tokenizer)
    fixed = len(family.start) + overhead(family, tokenizer, data).hole + segments.LEAST
    needed = next(n for n in range(fixed, 2 * fixed + 9) if n - 2 * (n // arrangement.SAID_SHARE) >= fixed)
    if data.seq_len < needed:
        raise UserError(f"data.seq_len={data.seq_len} is too short for text with holes and paths: {needed} at least")
