"""Real processes of `codelm run`, killed at random moments, told to stop, out of disk: what they leave is what an
uninterrupted run leaves, bit for bit."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from codelm import config_io
from codelm.config import TrainConfig
from codelm.train_config import CheckpointConfig, EvaluationConfig, MidtrainConfig
from tests.experiments.conftest import over_a_corpus

ROOT = Path(__file__).parents[2]
STEPS, MORE = 40, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over a corpus that is there, and a folder for runs."""
    folder = tmp_path_factory.mktemp("kills")
    config = replace(
        over_a_corpus(folder / "made"),
        train=TrainConfig(steps=STEPS, warmup_steps=2, learning_rate=3e-3),
        midtrain=MidtrainConfig(steps=MORE, seq_len=128, batch_size=4),
        evaluation=EvaluationConfig(every=15, batches=1, infill_examples=0),
        checkpoint=CheckpointConfig(every=7),
    )
    (folder / "config.json").write_text(config_io.to_json(config))
    return folder


def start(place: Path, runs: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "codelm", "run", str(place / "config.json"), "--dir", str(place / runs)]
    command += ["--cache", str(place / "cache")]
    # One device: eight simulated ones would only be slow here.
    environment = os.environ | {"XLA_FLAGS": ""}
    out = (place / f"{runs}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment, **options)


def log(place: Path, runs: str) -> str:
    return (place / f"{runs}.log").read_text()


def step(place: Path, runs: str) -> int:
    """How many steps of both stages have been written down."""
    try:
        lines = (place / runs / "run" / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return 0
    return sum('"loss"' in line for line in lines)


def wait_for(process: subprocess.Popen[bytes], place: Path, runs: str, wanted: int) -> None:
    while process.poll() is None and step(place, runs) < wanted:
        time.sleep(0.005)


def metrics(place: Path, runs: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (place / runs / "run" / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "speed"} for line in lines]


def arrays(place: Path, runs: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for stage, last in (("pretrain", STEPS), ("midtrain", MORE)):
        loaded: Any = ocp.load_checkpointables(str(place / runs / "run" / "checkpoints" / stage / str(last)))
        for part in ("parameters", "training"):
            found |= {f"{stage}/{name}": np.asarray(value) for name, value in loaded[part].items()}
    return found


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    assert start(place, "whole").wait() == 0, log(place, "whole")
    assert [line["step"] for line in metrics(place, "whole") if "loss" in line] == [
        *range(1, STEPS + 1),
        *range(1, MORE + 1),
    ]
    return place


def same_as_whole(place: Path, runs: str) -> None:
    assert metrics(place, runs) == metrics(place, "whole")
    want, got = arrays(place, "whole"), arrays(place, runs)
    assert want.keys() == got.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    results = [json.loads((place / r / "run" / "result.json").read_text()) for r in (runs, "whole")]
    assert results[0]["evaluation"] == results[1]["evaluation"]


def test_killed_at_random_moments(whole: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    rng, kills = random.Random(seed), []
    print(f"seed {seed}")
    for first, last in ((1, 12), (13, 30), (31, STEPS + MORE - 1)):
        process = start(whole, "killed")
        kills.append(rng.randint(first, last))
        wait_for(process, whole, "killed", kills[-1])
        time.sleep(rng.random() * 0.2)  # in the middle of a step, of writing, of saving
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(whole, "killed").wait() == 0, log(whole, "killed")
    same_as_whole(whole, "killed")


@pytest.mark.slow
def test_told_to_stop_it_saves_in_time_and_exits_with_0(whole: Path) -> None:
    process = start(whole, "stopped")
    wait_for(process, whole, "stopped", 10)
    process.send_signal(signal.SIGTERM)
    before = time.monotonic()
    assert process.wait() == 0, log(whole, "stopped")
    assert time.monotonic() - before < 30  # what machines that are taken away give
    assert "the same command goes on from there" in log(whole, "stopped")
    assert start(whole, "stopped").wait() == 0
    same_as_whole(whole, "stopped")


@pytest.mark.slow
def test_a_disk_that_fills_up(whole: Path) -> None:
    """A limit on the size of files stands in for it: the records, or a checkpoint, cannot be written any more."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 10, 24 << 10))

    process = start(whole, "full", preexec_fn=limited)
    assert process.wait() == 2, log(whole, "full")
    said = log(whole, "full").splitlines()[-1]
    assert said.startswith("codelm: error: ")
    assert "File too large" in said or "could not be saved" in said
    assert start(whole, "full").wait() == 0, log(whole, "full")
    same_as_whole(whole, "full")
