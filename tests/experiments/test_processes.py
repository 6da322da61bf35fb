"""Real processes of `codelm run` under jax.distributed: they train what one process trains, and when one of them is
killed, told to stop or given something else, all of them stop with one line and the same command goes on."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codelm import config_io
from codelm.config import Config, MeshConfig, TrainConfig
from codelm.data_config import FimConfig
from codelm.errors import UserError
from codelm.train_config import CheckpointConfig, EvaluationConfig
from experiments.distributed import ProcessOptions
from tests.experiments.conftest import over_a_corpus

ROOT = Path(__file__).parents[2]
STEPS = 24
DEVICES = 4  # of all processes together: the mesh is the same however many there are
HEARTBEAT = 10

Started = list[subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over a corpus that is there, and a folder for runs."""
    folder = tmp_path_factory.mktemp("processes")
    base = over_a_corpus(folder / "made")
    config = replace(
        base,
        data=replace(base.data, fim=FimConfig(rate=0.5)),
        mesh=MeshConfig(data=-1, fsdp=2),
        train=TrainConfig(steps=STEPS, warmup_steps=2, learning_rate=3e-3),
        evaluation=EvaluationConfig(every=12, batches=1, infill_examples=2, infill_tokens=8),
        checkpoint=CheckpointConfig(every=4),
    )
    write(folder / "config.json", config)
    return folder


def write(path: Path, config: Config) -> None:
    path.write_text(config_io.to_json(config))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run(place: Path, runs: str, *more: str, log: str = "", devices: int = DEVICES) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "codelm", "run", str(place / "config.json"), "--dir", str(place / runs)]
    command += ["--cache", str(place / "cache"), *more]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    out = (place / f"{log or runs}.log").open("wb")
    return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)


def start(place: Path, runs: str, *more: str, count: int = 2) -> Started:
    told = ["--coordinator", free_address(), "--processes", str(count), "--heartbeat", str(HEARTBEAT), *more]
    return [
        run(place, runs, *told, "--process", str(n), log=f"{runs}-{n}", devices=DEVICES // count) for n in range(count)
    ]


def codes(started: Started, within: float = 120) -> list[int]:
    end = time.monotonic() + within
    try:
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in started]
    finally:
        for process in started:
            process.kill()


def log(place: Path, name: str) -> str:
    return (place / f"{name}.log").read_text()


def last_line(place: Path, name: str) -> str:
    return log(place, name).splitlines()[-1]


def steps(place: Path, runs: str) -> list[dict[str, Any]]:
    try:
        lines = map(json.loads, (place / runs / "run" / "metrics.jsonl").read_text().splitlines())
        return [{k: v for k, v in line.items() if k != "speed"} for line in lines]
    except (OSError, ValueError):
        return []


def wait_for(started: Started, place: Path, runs: str, step: int) -> None:
    while all(process.poll() is None for process in started) and len(steps(place, runs)) < step:
        time.sleep(0.02)
    assert all(process.poll() is None for process in started), log(place, f"{runs}-0")


def same(place: Path, runs: str, other: str, tolerance: float = 0.0) -> None:
    """Every figure of every step and evaluation."""
    got, want = steps(place, runs), steps(place, other)
    assert len(want) == STEPS + 3, "steps, two evaluations, and the one at the end"
    assert [line.keys() for line in got] == [line.keys() for line in want]
    for one, another in zip(got, want, strict=True):
        assert one.pop("stage") == another.pop("stage")
        assert one == pytest.approx(another, rel=tolerance, abs=tolerance)


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    assert codes([run(place, "whole")]) == [0], log(place, "whole")
    return place


def test_what_several_processes_train_is_what_one_trains_whatever_happens_to_them(whole: Path) -> None:
    """Told to stop, killed, gone on with by one process on another mesh. Killed coordinators are below."""
    both = start(whole, "two")
    wait_for(both, whole, "two", 2)
    both[1].send_signal(signal.SIGTERM)
    assert codes(both, within=30) == [0, 0], log(whole, "two-0")
    said = {last_line(whole, f"two-{process}") for process in (0, 1)}
    (stopped,) = {int(line.split("saved step ")[1].split()[0]) for line in said}

    both = start(whole, "two")
    wait_for(both, whole, "two", 10)
    assert f"pretrain: going on from step {stopped}\n" in log(whole, "two-0")
    both[1].send_signal(signal.SIGKILL)
    assert codes(both, within=HEARTBEAT) == [75, -9], log(whole, "two-0")
    assert re.fullmatch(
        r"codelm: error: process 1 \(.+\) is gone, so all stop: run the same command on all hosts again, it goes on "
        r"from step \d+ of pretrain",
        last_line(whole, "two-0"),
    )

    assert codes([run(whole, "two", "--mesh.fsdp", "1", devices=2)]) == [0], log(whole, "two")
    same(whole, "two", "whole", tolerance=1e-5)


def start_differing(place: Path, runs: str, *more: str) -> Started:
    """Process 1 is given more."""
    told = ["--coordinator", free_address(), "--processes", "2", "--heartbeat", str(HEARTBEAT)]
    first = run(place, runs, *told, "--process", "0", log=f"{runs}-0")
    return [first, run(place, runs, *told, "--process", "1", *more, log=f"{runs}-1")]


def test_what_is_wrong_with_one_process_is_told_by_all(place: Path) -> None:
    assert codes(start_differing(place, "cache", "--cache", "/proc/no"), within=60) == [2, 2]
    why = last_line(place, "cache-1").removeprefix("codelm: error: ")
    assert why.startswith("cannot write /proc/no")
    assert last_line(place, "cache-0") == f"codelm: error: process 1 stopped: {why}, so all stop"


@pytest.mark.slow
def test_several_go_on_where_one_stopped(whole: Path) -> None:
    alone = run(whole, "more", "--mesh.fsdp", "1", devices=2)
    wait_for([alone], whole, "more", 10)
    alone.send_signal(signal.SIGTERM)
    assert codes([alone]) == [0], log(whole, "more")
    assert codes(start(whole, "more")) == [0, 0], log(whole, "more-0")
    assert "pretrain: going on from step " in log(whole, "more-0")
    same(whole, "more", "whole", tolerance=1e-5)


@pytest.mark.slow
def test_the_same_bits_whoever_was_killed_and_by_four_processes(whole: Path) -> None:
    assert codes(start(whole, "calm")) == [0, 0], log(whole, "calm-0")
    for victim in (0, 1):
        runs = f"killed{victim}"
        both = start(whole, runs)
        wait_for(both, whole, runs, 10)
        both[victim].send_signal(signal.SIGKILL)
        assert codes(both, within=HEARTBEAT) == [[-9, 75], [75, -9]][victim], log(whole, f"{runs}-{1 - victim}")
        who = ["process 0 (the coordinator, 127.0.0.1)", "process 1 ("][victim]
        assert f"error: {who}" in last_line(whole, f"{runs}-{1 - victim}")
        assert codes(start(whole, runs)) == [0, 0], log(whole, f"{runs}-0")
        same(whole, runs, "calm")
    assert codes(start(whole, "four", count=4), within=300) == [0] * 4, log(whole, "four-0")
    same(whole, "four", "whole", tolerance=1e-5)
    four = start(whole, "fewer", count=4)
    wait_for(four, whole, "fewer", 10)
    four[2].send_signal(signal.SIGKILL)
    assert codes(four, within=HEARTBEAT) == [75, 75, -9, 75]
    assert all("error: process 2 (" in last_line(whole, f"fewer-{process}") for process in (0, 1, 3))


@pytest.mark.slow
def test_hosts_that_are_not_alike_and_meshes_that_do_not_fit(place: Path) -> None:
    assert codes(start_differing(place, "own", "--dir", str(place / "other")), within=60) == [2, 2]
    assert "error: process 1 does not see process 0's" in last_line(place, "own-0")
    assert not (place / "own" / "run").exists()
    assert codes(start_differing(place, "seeds", "--seed", "7"), within=60) == [2, 2]
    for process in (0, 1):
        why = "process 1 was given another command than process 0: seed is 7 and there 0"
        assert last_line(place, f"seeds-{process}") == f"codelm: error: {why}"
    assert not (place / "seeds").exists()
    told = ["--coordinator", free_address(), "--processes", "2", "--join_timeout", "1", "--process", "0"]
    assert codes([run(place, "late", *told)], within=60) == [2]
    assert "error: not all processes joined at 127.0.0.1:" in last_line(place, "late")
    assert codes(start(place, "large", "--mesh.fsdp", "8"), within=60) == [2, 2]
    for process in (0, 1):
        assert "mesh data=-1 x fsdp=8 needs a multiple of 8 devices, but there are 4" in last_line(
            place, f"large-{process}"
        )


def test_a_coordinator_that_does_not_answer(place: Path) -> None:
    address = free_address()
    told = ["--coordinator", address, "--processes", "2", "--join_timeout", "1"]
    assert codes([run(place, "late", *told, "--process", "1", log="late-1")]) == [2]
    said = log(place, "late-1").splitlines()
    assert len(said) == 1
    assert said[0].startswith(
        f"codelm: error: the coordinator {address} did not answer within 1 s (Connection refused)"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"coordinator": "here:1"}, "belong together"),
        ({"processes": 2, "process": 0}, "belong together"),
        ({"coordinator": "here:1", "processes": 2, "process": 2}, "2 processes are counted from 0"),
        ({"coordinator": "here", "processes": 2, "process": 1}, "HOST:PORT is needed"),
        ({"distributed": True, "heartbeat": 0}, "1 at least"),
    ],
)
def test_options_that_tell_too_little(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ProcessOptions(**options).check()


def test_no_cluster_and_one_that_slurm_describes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert codes([run(place, "nowhere", "--distributed")]) == [2]
    assert "--distributed: JAX finds no cluster here" in last_line(place, "nowhere")
    told = {"JOB_ID": "77", "STEP_NODELIST": "localhost", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert codes([run(place, "slurm", "--distributed", "--join_timeout", "1")]) == [2]
    assert f"the coordinator localhost:{61440 + 77} did not answer within 1 s" in last_line(place, "slurm")
