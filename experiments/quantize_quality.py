"""How good a model is, in two figures to compare before and after: bits per byte, and holes filled exactly.

On what its run held out, as the run measured itself, or on text that is given. Greedy, so nothing is left to chance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from codelm import config_io, text_files
from codelm.config import resolve
from codelm.errors import UserError
from codelm.lm import LM
from codelm.loss import token_losses
from codelm.model import Transformer
from data import inputs
from data.document import Document
from experiments import stages
from experiments.records import CONFIG, LOCK
from infer.prompts import family_of, tokenizer_of
from train import held_out, infilling
from train.infilling import LONGEST, Infilling

ROWS, LENGTH = 8, 512  # of text that is given, read at once
BATCHES = 16
MIDDLE = 32  # tokens that fill a hole in it at most


@dataclass(frozen=True)
class Quality:
    bits_per_byte: float
    exact: float
    """Share of holes; not a number without any."""
    similarity: float


@dataclass(frozen=True)
class Examination:
    """The same questions for every model."""

    bits_per_byte: Callable[[Transformer], float]
    infilling: Infilling | None
    text: str
    """What it is on."""

    def of(self, lm: LM) -> Quality:
        found = self.infilling.measure(lm.model)[0] if self.infilling else {}
        exact, similarity = (found.get(f"infill/{name}", math.nan) for name in ("exact", "similarity"))
        return Quality(self.bits_per_byte(lm.model), exact, similarity)


def of_run(folder: Path, holes: int, cache: Path) -> Examination:
    """On what a run held out: its own batches, and so many holes."""
    if not (folder / CONFIG).is_file() or not (folder / LOCK).is_file():
        raise UserError(f"{folder} is no run, which would have text held out: name files or folders with --text")
    config = resolve(config_io.load(folder / CONFIG))
    corpus, tokenizer = inputs.left_in(folder, config)
    config = stages.jobs(config, folder, {})[-1].config
    config = replace(config, evaluation=replace(config.evaluation, infill_examples=holes))
    own = str(corpus.folder) if corpus else ""
    text, filling = held_out.make(config, own, tokenizer, cache), infilling.make(config, own, tokenizer)
    rows = f"{len(text.text)} batches of {text.loader.batch_size} x {text.loader.seq_len:,} tokens held out by the run"
    return Examination(lambda model: text.measure(model)["held_out/bits_per_byte"], filling, rows)


def of_text(lm: LM, paths: Sequence[Path], holes: int) -> Examination:
    """On files and folders, in random order, as much as is read in a minute or two."""
    tokenizer, rng = tokenizer_of(lm), np.random.default_rng(0xB17)
    files = text_files.find(list(paths))
    shuffled = [files[at] for at in rng.permutation(len(files))]
    read = (Document("".join(text_files.lines(file)), str(file.path), "", file.language, "", "") for file in shuffled)
    documents: list[Document] = []
    length = min(LENGTH, lm.config.max_seq_len)
    tokens = np.zeros((0, length + 1), np.int32)
    for document in read:
        if len(tokens) >= ROWS * BATCHES:
            break
        documents.append(document)
        tokens = np.concatenate([tokens, _rows(tokenizer.encode_document(document.text), length)])
    if not len(tokens):
        raise UserError(f"no text in {', '.join(map(str, paths))}: binary or empty files alone")
    tokens = tokens[: ROWS * BATCHES]
    size = np.array([len(piece) for piece in tokenizer.pieces])[tokens[:, 1:]].sum(where=tokens[:, 1:] >= 0)

    def bits_per_byte(model: Transformer) -> float:
        nats = sum(float(_nats(model, part)) for part in np.split(tokens, range(ROWS, len(tokens), ROWS)))
        return nats / math.log(2) / max(int(size), 1)

    filling = _filling(lm, documents, rng, holes)
    return Examination(bits_per_byte, filling, f"{len(tokens)} x {length:,} tokens of {len(documents)} files")


def _rows(ids: Sequence[int], length: int) -> Int[np.ndarray, "R T"]:
    """A text in rows, each beginning with the token that the one before it ends with; -1 where it is over."""
    starts = range(0, len(ids) - 1, length)
    rows = np.full((len(starts), length + 1), -1, np.int32)
    for row, start in zip(rows, starts, strict=True):
        part = ids[start : start + length + 1]
        row[: len(part)] = part
    return rows


@jax.jit
def _nats(model: Transformer, rows: Int[np.ndarray | Array, "B T"]) -> Float[Array, ""]:
    tokens, targets, config = jnp.maximum(rows[:, :-1], 0), rows[:, 1:], model.config
    head = {"logit_multiplier": config.logit_multiplier, "softcap": config.logit_softcap}
    losses = token_losses(model.hidden(tokens)[0], model.output_table, jnp.maximum(targets, 0), **head)
    return jnp.where(targets >= 0, losses, 0.0).sum()


def _filling(lm: LM, documents: Sequence[Document], rng: np.random.Generator, holes: int) -> Infilling | None:
    """None for a model that fills no holes."""
    try:
        family = family_of(lm)
    except UserError:
        return None
    longest = min(lm.config.max_seq_len, LONGEST)
    if not family.fim or longest < 2 * MIDDLE + 1:
        return None
    tries = islice(cycle(enumerate(documents)), 4 * holes)
    return infilling.of_documents(tries, rng, family, tokenizer_of(lm), holes, MIDDLE, longest)
