"""A small corpus of which a part is held out, and a model too small to learn anything."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from codelm.config import Config, ModelConfig, dial
from codelm.data_config import SourceConfig
from codelm.model import Transformer, create
from codelm.train_config import EvaluationConfig
from tests.data import batches as made_batches
from tests.data.batches import VOCAB, Batches
from tests.data.conftest import gcs as gcs  # a fixture of these tests too

TINY = ModelConfig(
    depth=1,
    width=32,
    heads=2,
    kv_heads=2,
    head_dim=16,
    mlp_width=64,
    vocab_size=VOCAB,
    logit_multiplier=3.0,
    logit_softcap=1.0,
    compute_dtype="float32",
)


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    return made_batches.make(tmp_path_factory.mktemp("held_out"), held_out=0.6)


@pytest.fixture(scope="session")
def model() -> Transformer:
    return create(dial(TINY, VOCAB), 0)


def config_of(batches: Batches, *sources: SourceConfig, evaluation: int = 2, **data: Any) -> Config:
    config = batches.config(*sources, **({"seq_len": 128} | data))
    return dataclasses.replace(config, model=TINY, evaluation=EvaluationConfig(batches=evaluation))


def chats(folder: Path) -> SourceConfig:
    path = folder / "chats.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    return SourceConfig(corpus=str(path), level="chat")
