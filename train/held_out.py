"""Held-out text during training: its loss, by position too, bits per byte by language, and the loss of middles.

>>> held_out = make(config, corpus, tokenizer)
>>> held_out.measure(model)  # {"held_out/loss": 3.1, "held_out/bits_per_byte": 1.4, ...}

The text is the first `evaluation.batches` batches of the validation split without holes and paths: the same ones every
time, no row twice. Loss is the mean over all tokens that are learnt, those of the format (a document's end) included.
Bits are those of the same tokens, and bytes those of the text they stand for: a token that is only read, like the first
one of a document whose format has no start token, counts with neither.

Cost: `evaluation.batches` forward passes, each about a third of a step of training, and as many for every chooser of
holes that `data.fim.spans` gives a share. The batches are made once and stay in the host's memory: 24 bytes a token.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float64, Int

from codelm import formats
from codelm.caches import CACHE
from codelm.config import Config, resolve
from codelm.data_config import FimConfig, SourceConfig, SpansConfig
from codelm.errors import UserError
from codelm.format_table import Slot
from codelm.formats import Role
from codelm.loss import token_losses
from codelm.model import Transformer
from codelm.sharding import has_mesh, place
from codelm.tokenizer import Tokenizer
from data import dataset, feed, loader, runners, tokenizing
from data.loader import Loader, Row
from data.rows import stack
from data.writing import Writer, Written
from train import position_buckets

SPLIT = "validation"
MOST_LANGUAGES = 8
LEAST_BYTES = 1000  # of a language that has a figure of its own
UNIGRAM_TOKENS = 1 << 20  # of training, that a unigram model is made of
_GROUPS = MOST_LANGUAGES + 1  # of tokens whose sums are kept apart; the last is for all other languages
_NONE = -1  # the group of tokens that do not count

# The arrays [rows, tokens] of a batch, and for each target the group it counts in and the bytes it stands for.
Batch = dict[str, Int[np.ndarray, "B S"]]
# Of the tokens of one document, groups and bytes.
Counts = tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]


@dataclass(frozen=True)
class HeldOut:
    """See the module; made by `make`."""

    loader: Loader
    """Of the text as it is."""
    languages: tuple[str, ...]
    """Those that have a group, in order."""
    text: list[Batch]
    middles: Mapping[str, list[Batch]]
    """By chooser: documents with a hole, of which what fills it counts."""
    mesh: Mesh | None

    def measure(self, model: Transformer) -> dict[str, float]:
        """On several processes all of them call it, and get the same."""
        sums, by_position = self._sums(model, self.text)
        nats, tokens, size = sums.sum(axis=0)
        found = {"held_out/loss": nats / tokens, "held_out/bits_per_byte": _bits(nats, size)}
        for language, (nats, _, size) in zip(self.languages, sums, strict=False):
            if size >= LEAST_BYTES:
                found[f"held_out/bits_per_byte/{language}"] = _bits(nats, size)
        for chooser, batches in self.middles.items():
            nats, tokens, _ = self._sums(model, batches)[0][0]
            if tokens:
                found[f"held_out/fim_loss/{chooser}"] = nats / tokens
        found |= position_buckets.metrics(self.loader.seq_len, by_position)
        return {name: float(value) for name, value in found.items()}

    def unigram_loss(self, seen: Loader, batches: int) -> float:
        """What counting tokens gets on this text, in nats a token: cross-entropy of its targets under the counts, plus
        one each, of the targets of training's first batches, up to a million tokens of them."""
        wanted = min(batches * seen.batch_size, max(UNIGRAM_TOKENS // seen.seq_len, 1))
        vocabulary = self.loader.strata[0].writer.tokenizer.vocab_size
        counts = np.ones(vocabulary)
        for number in range(wanted):
            counts += np.bincount(_learnt(seen.row(number)), minlength=vocabulary)
        rows = map(self.loader.row, range(len(self.text) * self.loader.batch_size))
        targets = np.concatenate([_learnt(row) for row in rows if not row.epoch])
        return float(-np.log(counts / counts.sum())[targets].mean())

    def describe(self, asked: int) -> str:
        """One line; `asked` is evaluation.batches."""
        rows, length = self.loader.batch_size, self.loader.seq_len
        line = f"held out: {len(self.text)} batches of {rows} x {length:,} tokens of {', '.join(self.languages)}"
        fewer = f" (evaluation.batches={asked}, but no more text is held out)"
        return line + fewer * (len(self.text) < asked)

    def _sums(
        self, model: Transformer, batches: Sequence[Batch]
    ) -> tuple[Float64[np.ndarray, "G 3"], Float64[np.ndarray, "P 2"]]:
        """Nats, tokens and bytes of each group; nats and tokens of each bucket of positions."""
        first = position_buckets.starts(self.loader.seq_len)
        found = [_sums_of_rows(model, self._on_devices(batch), first) for batch in batches]
        groups, positions = (
            np.sum([np.asarray(sums, np.float64).sum(axis=0) for sums in each], axis=0)
            for each in zip(*found, strict=True)
        )
        return groups, positions

    def _on_devices(self, batch: Batch) -> Mapping[str, Any]:
        if self.mesh is None:
            return batch
        sharding, rows = feed.batch_sharding(self.mesh), self.loader.batch_size
        here = feed.rows_here(sharding, rows, self.loader.seq_len)
        return {name: feed.globally(values, here, rows, sharding) for name, values in batch.items()}


def make(
    config: Config,
    corpus: str | Path,
    tokenizer: Tokenizer,
    cache: str | Path = CACHE,
    mesh: Mesh | None = None,
) -> HeldOut:
    """Of a stage's config and the experiment's own corpus. With a mesh, a process makes only the rows it holds; the
    same mesh is then set when it measures."""
    config = resolve(config)
    loader_of = partial(_loader, config, str(corpus), tokenizer, cache)
    text = loader_of(FimConfig(rate=0.0))
    languages = _most_common(text)
    rows: Sequence[int] = range(text.batch_size)
    if mesh is not None:
        rows = feed.rows_here(feed.batch_sharding(mesh), text.batch_size, text.seq_len)
    batches_of = partial(_batches, rows=rows, most=config.evaluation.batches)
    middles = {
        chooser: batches_of(loader_of(only(config.data.fim, chooser)), partial(_middle, chooser))
        for chooser in choosers(config)
    }
    return HeldOut(text, languages, batches_of(text, partial(_text, languages)), middles, mesh)


# ---- what is held out ----


def sources(config: Config, corpus: str) -> tuple[SourceConfig, ...]:
    """The sources of a mixture that hold text out, each with its largest share; conversations never do."""
    found = []
    for source in config.data.sources:
        if source.level == "chat" or not max(source.weight):
            continue
        if SPLIT in dataset.load(source.corpus or corpus).manifest["splits"]:
            found.append(replace(source, weight=(max(source.weight),)))
    if not found:
        raise UserError(
            "no text is held out to evaluate on: build the corpus with corpus.validation above 0, of two repositories "
            "or more"
        )
    return tuple(found)


def choosers(config: Config) -> list[str]:
    """The choosers of holes that the experiment trains with."""
    fim = config.data.fim
    if not fim.rate or not formats.family(config.tokenizer.family).fim:
        return []
    return [name for name, share in asdict(fim.spans).items() if share]


def only(fim: FimConfig, chooser: str) -> FimConfig:
    """A hole by this chooser in every document."""
    shares = dict.fromkeys(asdict(fim.spans), 0.0) | {chooser: 1.0}
    return replace(fim, rate=1.0, empty=0.0, repository="last", spans=SpansConfig(**shares))


def _loader(config: Config, corpus: str, tokenizer: Tokenizer, cache: str | Path, fim: FimConfig) -> Loader:
    """Languages of which no file is held out are left out, instead of refused as in training."""
    found = []
    for source in sources(config, corpus):
        where = (source.corpus or corpus, SPLIT, tokenizer, config.tokenizer.family, Path(cache), runners.cores())
        there = tuple(name for name in source.languages if name in tokenizing.store(*where).languages)
        if there or not source.languages:
            found.append(replace(source, languages=there))
    if not found:
        raise UserError("no file in the languages of data.sources is held out: set corpus.validation higher")
    data = replace(config.data, sources=tuple(found), boundaries=(), fim=fim, metadata=0.0)
    return loader.make(replace(config, data=data), corpus, tokenizer, split=SPLIT, cache=cache)


def _most_common(text: Loader) -> tuple[str, ...]:
    """Languages by held-out tokens: the same on every process, whichever rows it makes."""
    counts = Counter[str]()
    for store in {rows.writer.store.folder: rows.writer.store for rows in text.strata}.values():
        counts.update(store.manifest["tokens_by_language"])
    return tuple(name for name, _ in counts.most_common(MOST_LANGUAGES))


# ---- batches ----


def _batches(
    made: Loader, count: Callable[[Written, Writer], Counts], *, rows: Sequence[int], most: int
) -> list[Batch]:
    """Fewer than `most` where there is no more text: what comes a second time does not count."""
    steps = next((step for step in range(1, most) if min(made.epochs(step).values()) >= 1), most)
    return [_batch([made.row(step * made.batch_size + row) for row in rows], count) for step in range(steps)]


def _batch(rows: Sequence[Row], count: Callable[[Written, Writer], Counts]) -> Batch:
    arrays = stack([row.arrays for row in rows])
    groups = np.full_like(arrays["tokens"], _NONE)
    size = np.zeros_like(groups)
    for n, row in enumerate(rows):
        at = 0
        for document in row.documents if not row.epoch else ():
            stop = at + document.positions
            of_ids, bytes_of_ids = count(document, row.writer)
            groups[n, at:stop], size[n, at:stop] = of_ids[1:], bytes_of_ids[1:]  # of targets
            at = stop
    names = ("tokens", "targets", "positions", "segment_ids")
    return {**{name: arrays[name] for name in names}, "groups": groups, "bytes": size}


def _text(languages: Sequence[str], document: Written, writer: Writer) -> Counts:
    """All of a document counts, in the group of its language; of several files, each in its own."""
    codes = {name: code for code, name in enumerate(languages)}
    names = [writer.store.languages[int(writer.store.documents["language"][part])] for part, _, _ in document.files]
    of_files = np.array([codes.get(name, MOST_LANGUAGES) for name in names])
    return of_files[_files(document)], source_bytes(document, writer)


def _middle(chooser: str, document: Written, writer: Writer) -> Counts:
    """What fills the hole and ends it, unless another chooser had to cut it."""
    chose = any(hole.chooser == chooser for hole in document.holes)
    groups = np.where(np.equal(document.roles, Role.MIDDLE) & chose, 0, _NONE)
    return groups, np.zeros_like(groups)


def source_bytes(document: Written, writer: Writer) -> Int[np.ndarray, " N"]:
    """Of each token of a document without holes and paths, how many bytes of the source it stands for: none where it
    belongs to the format, as does the space that some formats put before a text."""
    text = np.equal(document.roles, Role.TEXT)
    size = np.array([len(writer.tokenizer.pieces[i]) for i in document.ids]) * text
    if Slot.LEAD in writer.family.text:
        files = _files(document)
        for n, (_, start, _) in enumerate(document.files):
            size[np.flatnonzero(text & (files == n))[:1]] -= start == 0
    return size


def _files(document: Written) -> Int[np.ndarray, " N"]:
    """Which of its files each token of a document belongs to; what the format puts after one belongs to it."""
    text = np.cumsum(np.equal(document.roles, Role.TEXT))
    ends = np.cumsum([stop - start for _, start, stop in document.files])
    # The token of the next segment that is learnt ahead comes after all of them.
    return np.minimum(np.searchsorted(ends, np.maximum(text - 1, 0), side="right"), len(ends) - 1)


def _learnt(row: Row) -> Int[np.ndarray, " N"]:
    return row.arrays["targets"][row.arrays["loss_weights"] > 0]


# ---- computing ----


@jax.jit
def _sums_of_rows(
    model: Transformer, batch: Mapping[str, Any], first: Int[Array, " P"]
) -> tuple[Float[Array, "B G 3"], Float[Array, "B P 2"]]:
    """Nats, tokens and bytes of each row's groups, nats and tokens of its buckets of positions: small enough to have
    on every process."""
    config = model.config
    hidden, _, _ = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])
    head = {"logit_multiplier": config.logit_multiplier, "softcap": config.logit_softcap}
    losses = token_losses(hidden, model.output_table, batch["targets"], **head)
    groups, size, positions = (place(batch[name], "batch", "sequence") for name in ("groups", "bytes", "positions"))
    inside = groups[..., None] == jnp.arange(_GROUPS)
    values = (losses, jnp.ones_like(losses), size.astype(jnp.float32))
    sums = jnp.stack([jnp.where(inside, value[..., None], 0.0).sum(axis=1) for value in values], axis=-1)
    by_position = position_buckets.sums(losses, groups != _NONE, positions, first)
    return jax.reshard((sums, by_position), P()) if has_mesh() else (sums, by_position)


def _bits(nats: float, size: float) -> float:
    """A byte."""
    return nats / math.log(2) / max(size, 1)
