"""Tiny models with random weights, large enough that every token of the text before shows in the scores."""

import dataclasses
import functools

import numpy as np

from codelm import tokenizer_training
from codelm.config import ModelConfig
from codelm.lm import LM
from codelm.model import Transformer, create
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer
from tests.codelm.test_tokenizer import CODE

CONTEXT = 48
VOCAB = 512


@functools.cache
def tokenizer() -> Tokenizer:
    return from_proto(tokenizer_training.train(CODE.splitlines(keepends=True), VOCAB))


@functools.cache
def tiny_lm(window: int = 0, seed: int = 0) -> LM:
    """With a window, every second layer slides."""
    config = ModelConfig(
        depth=2,
        width=32,
        heads=2,
        kv_heads=1,
        head_dim=16,
        mlp_width=64,
        vocab_size=VOCAB,
        max_seq_len=CONTEXT,
        tied_embeddings=False,
        sliding_window=window,
        full_attention_every=2 if window else 0,
        compute_dtype="float32",
        remat="none",
    )
    values = create(config, seed).arrays()
    larger = {name: value * SCALES.get(name.removeprefix("blocks."), 1.0) for name, value in values.items()}
    return LM(config, Transformer(config, larger), tokenizer(), "codelm")


SCALES = {"query": 4.0, "key": 4.0, "value": 3.0, "out": 6.0, "gate": 3.0, "up": 3.0, "down": 6.0, "head": 25.0}


def like(lm: LM, by: float) -> LM:
    """A model that mostly writes what another does: its weights are off by so much of their size."""
    rng = np.random.default_rng(0)
    values = lm.model.arrays()
    off = {name: value * (1 + by * rng.normal(size=value.shape).astype(np.float32)) for name, value in values.items()}
    return dataclasses.replace(lm, model=Transformer(lm.config, off))
