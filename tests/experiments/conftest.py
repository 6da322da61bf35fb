"""One small finished run, for tests that look at it and for those that change a copy."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codelm import cli, config_io
from codelm.config import Config, CorpusConfig, DataConfig, MeshConfig, ModelConfig, TokenizerConfig, TrainConfig
from codelm.data_config import SourceConfig
from codelm.train_config import CheckpointConfig, EvaluationConfig, MidtrainConfig, TrackConfig
from experiments.records import RESULT
from tests.data import batches as made_batches
from tests.data.batches import VOCAB
from tests.data.made_corpus import repositories

MODEL = ModelConfig(depth=2, width=64, heads=4, kv_heads=2, head_dim=16, mlp_width=96, compute_dtype="float32")


def over_a_corpus(folder: Path) -> Config:
    """A tiny experiment over a corpus that is there, for runs in processes of their own."""
    folder.mkdir()
    batches = made_batches.make(folder, held_out=0.4)
    return Config(
        name="run",
        model=ModelConfig(depth=1, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, compute_dtype="float32"),
        tokenizer=TokenizerConfig(path=str(batches.tokenizer_path), vocab_size=VOCAB),
        data=DataConfig(seq_len=64, batch_size=8, sources=(SourceConfig(corpus=str(batches.corpus)),)),
        track=TrackConfig(every=1),
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of these tests have."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One worker at a time."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def config(shared: Path) -> Path:
    path = shared / "small.json"
    with alone(shared):
        if not path.exists():
            _write_config(path, repositories(shared / "code", count=10, files=8))
    return path


def _write_config(path: Path, code: Path) -> None:
    told = Config(
        name="small",
        corpus=CorpusConfig(sources=(f"repositories:{code}",), validation=0.2),
        model=MODEL,
        tokenizer=TokenizerConfig(vocab_size=640),
        data=DataConfig(seq_len=64, batch_size=8),
        train=TrainConfig(steps=12, warmup_steps=2, learning_rate=3e-3),
        midtrain=MidtrainConfig(steps=3, batch_size=8),
        evaluation=EvaluationConfig(
            every=6,
            batches=2,
            infill_every=8,
            infill_examples=4,
            infill_tokens=8,
            suites=("bits-per-byte",),
            suites_every=8,
            suites_tasks=4,
        ),
        checkpoint=CheckpointConfig(every=6),
        track=TrackConfig(every=4),
        mesh=MeshConfig(data=2, fsdp=-1),
    )
    path.write_text(config_io.to_json(told))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def command(config: Path, runs: Path, *more: str) -> list[str]:
    return ["run", str(config), "--dir", str(runs), "--cache", str(runs / "cache"), *more]


@pytest.fixture(scope="session")
def done(config: Path, runs: Path, shared: Path) -> Path:
    """Each worker has a copy."""
    with alone(shared):
        if not (shared / "runs" / "small" / RESULT).exists():
            assert cli.main(command(config, shared / "runs")) == 0
    return shutil.copytree(shared / "runs", runs, dirs_exist_ok=True) / "small"
