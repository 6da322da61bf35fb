"""A model to use: weights, tokenizer and a simple way to generate. `codelm.load` makes one."""

import dataclasses
import functools
import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int

from codelm import cache as kv
from codelm import checkpoint, config_io, huggingface_config, huggingface_weights, tokenizer
from codelm.cache import Cache
from codelm.config import ModelConfig, checked
from codelm.config_io import from_dict
from codelm.errors import UserError
from codelm.model import PAD, Transformer
from codelm.sharding import everywhere, place
from codelm.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Int[np.ndarray, " T"]
# What ends a text in the families there are; generating text stops at those its tokenizer has.
TEXT_ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|im_end|>", "<EOT>")


@dataclass(frozen=True)
class LM:
    config: ModelConfig
    model: Transformer
    tokenizer: Tokenizer | None
    """None for a folder that has no tokenizer: ids still work."""
    family: str
    """The Hugging Face model_type, or codelm."""
    tokenizer_file: Path | None = None
    prompt_format: str = ""
    """The prompt format that it was trained in; empty = not said, see `infer.prompts.family_of`."""
    source: str = ""
    """The folder that its weights are from."""

    def logits(self, ids: Int[np.ndarray | Array, "B T"] | Sequence[Sequence[int]]) -> Float[np.ndarray, "B T V"]:
        """Scores of every next token, in float32."""
        return np.asarray(_logits(self.model, jnp.asarray(self._checked(ids))))

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Collection[int | str] = (),
        **sampling: Any,
    ) -> Any:
        """What follows the prompt: text for text, ids for ids, a list for a list. Temperature 0 takes the likeliest.

        Stops before a token or a string of `stop`; for text also before a token that ends one. Further settings are
        those of `infer.sampling.Sampling`: top_k, top_p, min_p, penalties, logit_bias.

        >>> lm.generate("def fibonacci(n):", max_new_tokens=32)
        """
        several = not isinstance(prompt, str) and len(prompt) > 0 and not isinstance(prompt[0], int | np.integer)
        written = importlib.import_module("infer.completing").generate(
            self,
            prompt if several else [prompt],
            max_new_tokens,
            {"temperature": temperature, **sampling},
            seed,
            stop,
        )
        return written if several else written[0]

    def infill(
        self, prefix: str | Sequence[str], suffix: str | Sequence[str], max_new_tokens: int = 64, **options: Any
    ) -> Any:
        """What belongs between prefix and suffix: a Completion, for lists a list, with n > 1 a list of each.

        The options are those of `infer.completing.infill`: mode, n, sampling, seed, stop, path, heal, family.

        >>> lm.infill("def add(a, b):\\n    return ", "\\n", max_new_tokens=16, mode="psm").text
        """
        one = isinstance(prefix, str)
        holes = [(prefix, suffix)] if one else list(zip(prefix, suffix, strict=True))
        filled = importlib.import_module("infer.completing").infill(self, holes, max_new_tokens, **options)
        found = [completions[0] if options.get("n", 1) == 1 else completions for completions in filled]
        return found[0] if one else found

    def complete(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Collection[int] = ()
    ) -> list[list[int]]:
        """What `generate` gives for each prompt at temperature 0, all of them at once: as many steps as for one.

        With a mesh of several processes, all of them call it.
        """
        rows = [self._checked([ids])[0] for ids in prompts]
        if self.config.rope.scaling == "dynamic":  # keys turn anew as each text grows: nothing to share
            return [_until(self._likeliest(row.tolist(), max_new_tokens), stop) for row in rows]
        tokens = np.zeros((len(rows), 1 << (max(map(len, rows)) - 1).bit_length()), np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        written = np.asarray(_greedy(self.model, tokens, np.array([len(ids) for ids in rows]), max_new_tokens))
        return [_until(row.tolist(), stop) for row in written]

    def next_scores(self, ids: Sequence[int]) -> Float[np.ndarray, " V"]:
        """Of every token after these, all of them read anew; room comes in powers of two, so that few shapes are
        compiled."""
        tokens = np.zeros((1, 1 << (len(ids) - 1).bit_length()), np.int32)
        tokens[:, : len(ids)] = self._checked([ids])
        return np.asarray(_next(self.model, tokens, len(ids)))

    def _likeliest(self, ids: list[int], max_new_tokens: int) -> list[int]:
        written: list[int] = []
        while len(written) < max_new_tokens:
            written.append(int(np.argmax(self.next_scores([*ids, *written]))))
        return written

    def _checked(self, ids: Int[np.ndarray | Array, "B T"] | Sequence[Sequence[int]]) -> Int[np.ndarray, "B T"]:
        """Ids as an array, refused when empty, ragged or outside the vocabulary (which jax would clip in silence)."""
        try:
            array = np.asarray(ids)
        except ValueError as error:
            raise UserError("rows of ids differ in length; give rows of one length, or one row at a time") from error
        if array.ndim == 2 and not array.size:
            raise UserError("there are no ids: give a non-empty prompt")
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise UserError(f"ids must be a non-empty array of integers [rows, tokens], not {array.dtype}{array.shape}")
        if array.min() < 0 or array.max() >= self.config.vocab_size:
            worst = array.min() if array.min() < 0 else array.max()
            raise UserError(f"token id {worst} is outside the vocabulary of {self.config.vocab_size}")
        return array.astype(np.int32)


def load(path: str | Path, compute_dtype: Literal["", "float32", "bfloat16"] = "") -> LM:
    """A model from a run (its newest checkpoint), a checkpoint, or a Hugging Face folder.

    It computes in the dtype it was made in unless told another.

    With a mesh set (`jax.set_mesh`), arrays go straight to their places on it.
    """
    folder, prompt_format = _newest(checkpoint.located(path)), ""
    if (folder / checkpoint.DESCRIPTION).exists():
        description = checkpoint.read_description(folder)
        config, family, prompt_format = description.config, description.family, description.prompt_format
        if description.quantisation:
            values = checkpoint.read_quantised(folder, description)
        else:
            values = checkpoint.read_parameters(folder, config)
    elif checkpoint.is_training(folder):
        config, family, values = _of_training(folder)
        prompt_format = checkpoint.read_training_description(folder)["config"]["tokenizer"]["family"]
    elif (folder / "config.json").exists():
        config, family = huggingface_config.read_config(Path(folder))
        values = huggingface_weights.load_parameters(Path(folder), config, family)
    else:
        raise UserError(f"no model in {path}: neither {checkpoint.DESCRIPTION}, checkpoints, nor config.json")
    if compute_dtype:
        config = dataclasses.replace(config, compute_dtype=compute_dtype)
    # Those of a run share one: RUN/checkpoints/tokenizer.model
    beside = (folder, folder.parent.parent, checkpoint.located(path) / "checkpoints")
    file = next((at / name for at in beside for name in checkpoint.TOKENIZERS if (at / name).exists()), None)
    file = Path(file) if file else None
    model, found = Transformer(config, values), tokenizer.load(file) if file else None
    return LM(config, model, found, family, file, prompt_format, str(folder))


def _newest(path: epath.Path) -> epath.Path:
    """The checkpoint to read: the folder itself, or the last of a run's."""
    if not path.is_dir():
        raise UserError(f"no model at {path}: {'it is a file' if path.exists() else 'no such folder'}")
    stages = path / "checkpoints"
    is_run = (path / "config.json").exists() and (path / "run.lock").exists()
    if is_run:
        config = config_io.load(Path(path) / "config.json")
        stages = checkpoint.folder_of_stages(path, config.name, config.checkpoint.folder)
    found = checkpoint.newest(stages)
    if is_run and found is None:
        raise UserError(f"{path} has no checkpoint yet: none in {stages}")
    return found or path


def _of_training(folder: epath.Path) -> tuple[ModelConfig, str, dict[str, Array]]:
    """The parameters that training saved, without the rest of its state."""
    content = checkpoint.read_training_description(folder)["config"]
    config = checked(from_dict(ModelConfig, content["model"], "model"), "model", ModelConfig)
    return config, "codelm", checkpoint.read_parameters(folder, config)


_logits = jax.jit(lambda model, ids: model(ids))


@jax.jit
def _next(model: Transformer, tokens: Int[np.ndarray | Array, "1 T"], end: Int[Array, ""] | int) -> Float[Array, " V"]:
    """Scores after the first `end` tokens."""
    index = jnp.arange(tokens.shape[1])[None]
    positions, segments = jnp.where(index < end, index, 0), jnp.where(index < end, 0, PAD)
    hidden, _, _ = model.hidden(jnp.asarray(tokens), positions, segments)
    return model.logits(jax.lax.dynamic_slice_in_dim(hidden, end - 1, 1, axis=1))[0, 0]


@functools.partial(jax.jit, static_argnames="count")
def _greedy(
    model: Transformer, tokens: Int[np.ndarray | Array, "B T"], lengths: Int[np.ndarray | Array, " B"], count: int
) -> Int[Array, "B N"]:
    """The likeliest `count` tokens after each row's prompt. What is written stands in the same slots of every row, with
    each row's own positions: the slots between a shorter prompt and it are empty, so nothing attends to them."""
    index, last = jnp.arange(tokens.shape[1])[None], jnp.asarray(lengths)[:, None] - 1
    positions, segments = jnp.where(index <= last, index, 0), jnp.where(index <= last, 0, PAD)
    cache = kv.empty(model.config, tokens.shape[0], tokens.shape[1] + count)
    hidden, cache, _ = model.hidden(jnp.asarray(tokens), positions, segments, cache)
    ends = place(index == last, "batch", "slots")[..., None]
    first = _likeliest(model, jnp.where(ends, hidden, 0).sum(axis=1, keepdims=True))

    def step(carry: tuple[Array, Cache | None], done: Array) -> tuple[tuple[Array, Cache | None], Array]:
        token, cache = carry
        hidden, cache, _ = model.hidden(token, last + 1 + done, cache=cache)
        return (_likeliest(model, hidden), cache), token

    _, written = jax.lax.scan(step, (first, cache), jnp.arange(count))
    return written[:, :, 0].T


def _likeliest(model: Transformer, hidden: Float[Array, "B 1 D"]) -> Int[Array, "B 1"]:
    return everywhere(jnp.argmax(model.logits(hidden), axis=-1).astype(jnp.int32))


def _until(ids: list[int], stop: Collection[int]) -> list[int]:
    """The ids before the first of `stop`."""
    return next((ids[:n] for n, i in enumerate(ids) if i in stop), ids)
