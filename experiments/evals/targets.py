"""What is measured: a model that is here, through the engine that serves it."""

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from codelm import checkpoint
from codelm import lm as models
from codelm.arithmetic import count_parameters
from codelm.format_table import Mode
from codelm.formats import Repository
from codelm.lm import LM
from codelm.loss import token_losses
from codelm.model import PAD, Transformer
from experiments.evals.suite import Losses, Prompt
from infer.completing import Completion, engine_of, infill, written
from infer.prompts import family_of, takes_holes, text_ends, tokenizer_of
from infer.request import Request
from infer.sampling import Sampling

Heal = Literal["none", "prefix", "both"]


@dataclass(frozen=True)
class Decoding:
    """How one text is written."""

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...]
    seed: int

    def at_most(self, tokens: int) -> "Decoding":
        """0 = as it is."""
        return replace(self, max_new_tokens=tokens) if tokens else self


@dataclass(frozen=True)
class Written:
    text: str
    tokens: int
    seconds: float
    first: float
    """Seconds until its first token."""


class Unanswered(Exception):
    """The model gave no answer, however often it was asked: why, in one line."""


class Target(Protocol):
    """A model, wherever it is. All of it may be called from many threads."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What it is, and how it is asked: part of every result."""
        ...

    def ask(self, prompt: Prompt, decoding: Decoding) -> Written: ...

    def losses(self, text: str) -> Losses: ...

    def close(self) -> None: ...


class Local:
    """A run, a checkpoint or a Hugging Face folder."""

    def __init__(self, lm: LM, name: str, mode: Mode | None = None, heal: Heal = "prefix", family: str = "") -> None:
        self.lm, self.mode, self.heal, self.family = lm, mode, heal, family
        self.identity = {
            "name": name,
            "checkpoint": "/".join(Path(lm.source).parts[-2:]),
            "weights": _weights(lm.model),
            "parameters": count_parameters(lm.config).total,
            "context": lm.config.max_seq_len,
            "compute_dtype": lm.config.compute_dtype,
            "format": family or lm.prompt_format or lm.family,
            "mode": mode or "the format's own",
            "heal": heal,
        }
        self.knows_files = bool(family_of(lm, family).repository) if takes_holes(lm, family) else False
        self._starting, self._started = threading.Lock(), False

    def close(self) -> None:
        if self._started:
            engine_of(self.lm).close()
        engine_of.cache_clear()  # which would keep the weights

    def ask(self, prompt: Prompt, decoding: Decoding) -> Written:
        self._start()
        made = self._continued(prompt, decoding) if prompt.suffix is None else self._filled(prompt, decoding)
        return Written(
            made.text,
            made.timing.new_tokens,
            round(made.timing.decode + made.timing.to_first_token, 4),
            round(made.timing.to_first_token, 4),
        )

    def _start(self) -> None:
        """Only now, because losses need no engine; a model with dynamic rope scaling has none (`infer.uncached`)."""
        with self._starting:
            if not self._started and self.lm.config.rope.scaling != "dynamic":
                engine_of(self.lm).start()
                self._started = True

    def losses(self, text: str) -> Losses:
        """A text longer than the context is read in windows that overlap by half, so that every token but the first
        ones has at least half a context before it."""
        tokenizer, longest = tokenizer_of(self.lm), self.lm.config.max_seq_len
        ids = tokenizer.encode_document(text)
        found = np.zeros(0, np.float32)
        while len(found) < len(ids) - 1:
            start = max(len(found) - longest // 2, 0) if len(found) else 0
            window = ids[start : start + longest]
            found = np.concatenate([found, token_nats(self.lm.model, window)[len(found) - start :]])
        first = len(tokenizer.start)  # what the format begins a document with
        sizes = np.cumsum([0, *(len(tokenizer.pieces[i]) for i in ids[first:])])
        lead = int(sizes[-1]) - len(text.encode())  # the space that some tokenizers put before it
        begin, *ends = np.maximum(sizes - lead, 0)[1 - min(first, 1) :].tolist() or [0]
        return Losses(found[max(first - 1, 0) :], ends, begin)

    def _filled(self, prompt: Prompt, decoding: Decoding) -> Completion:
        path, repo, prefix = prompt.path or None, Repository(prompt.files, prompt.repository), prompt.prefix
        if not self.knows_files:
            path, repo, prefix = None, Repository(), joined(prompt)
        return infill(
            self.lm,
            [(prefix, prompt.suffix or "")],
            decoding.max_new_tokens,
            mode=self.mode,
            path=path,
            repo=repo if path and (repo.files or repo.name) else None,
            sampling={"temperature": decoding.temperature, "top_p": decoding.top_p},
            seed=decoding.seed,
            stop=decoding.stop,
            heal="" if self.heal == "none" else self.heal,
            family=self.family,
            priority="batch",
        )[0][0]

    def _continued(self, prompt: Prompt, decoding: Decoding) -> Completion:
        """Of a prompt too long for the context, the end is read."""
        tokenizer = tokenizer_of(self.lm)
        room = self.lm.config.max_seq_len - decoding.max_new_tokens
        request = Request(
            tokenizer.encode_document(joined(prompt))[-max(room, 1) :],
            decoding.max_new_tokens,
            Sampling(temperature=decoding.temperature, top_p=decoding.top_p),
            decoding.seed,
            stop_ids=text_ends(tokenizer),
            stop=decoding.stop,
            priority="batch",
        )
        (((text,), timing),) = written(self.lm, [request])
        return Completion(text.text, text.ids, text.finish, text.mean_logprob, timing)


def local(path: Path, mode: Mode | None, heal: Heal, family: str) -> Local:
    return Local(models.load(path), path.resolve().name, mode, heal, family)


def joined(prompt: Prompt) -> str:
    """What is before the hole, other files before it, for a model whose format knows no files."""
    return "".join(f"# {file.path}\n{file.text}\n" for file in prompt.files) + prompt.prefix


def _weights(model: Transformer) -> str:
    """Sixteen hex digits over the bits of every parameter."""
    arrays = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(model)}
    content = json.dumps(checkpoint.sums(arrays), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def token_nats(model: Transformer, ids: list[int]) -> Float[np.ndarray, " T"]:
    """Of each token after the first; room comes in powers of two, so that few shapes are compiled."""
    tokens = np.zeros((1, 1 << max(len(ids) - 1, 1).bit_length()), np.int32)
    tokens[0, : len(ids)] = ids
    return np.asarray(_nats_of_row(model, tokens, len(ids)))[0, : len(ids) - 1]


@jax.jit
def _nats_of_row(model: Transformer, tokens: Int[Array, "1 T"], count: Int[Array, ""] | int) -> Float[Array, "1 T"]:
    index = jnp.arange(tokens.shape[1])[None]
    positions, segments = jnp.where(index < count, index, 0), jnp.where(index < count, 0, PAD)
    hidden, _, _ = model.hidden(jnp.asarray(tokens), positions, segments)
    targets = jnp.roll(jnp.asarray(tokens), -1, axis=1)
    head = {"logit_multiplier": model.config.logit_multiplier, "softcap": model.config.logit_softcap}
    return token_losses(hidden, model.output_table, targets, **head)
