"""Real processes under jax.distributed: they assemble the batch that one process makes, each from its own rows."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from codelm.config_io import to_json
from codelm.data_config import FimConfig
from data.feed import feed
from tests.data.batches import EVERY_CHOOSER, Batches

STEP = 41
DATA = {"fim": FimConfig(0.8, spans=EVERY_CHOOSER), "temperature": 2.0}


def run(batches: Batches, folder: Path, processes: int, devices: int, mesh: dict[str, int]) -> list[dict[str, Any]]:
    """What each process saw; they start together, with nothing in their cache."""
    (folder / "config.json").write_text(to_json(batches.config(**DATA)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    started = []
    for process in range(processes):
        told = {"address": address, "processes": processes, "process": process, "mesh": mesh, "step": STEP}
        told |= {"config": str(folder / "config.json"), "corpus": str(batches.corpus), "cache": str(folder / "cache")}
        told |= {"out": str(folder / f"{process}.npy")}
        argv = [sys.executable, "-m", "tests.data.feed_process", json.dumps(told)]
        started.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [np.load(folder / f"{n}.npy", allow_pickle=True).item() for n in range(processes)]


@pytest.mark.parametrize(
    ("processes", "devices", "mesh", "rows_each"),
    [
        (2, 2, {"data": 2, "fsdp": 2}, 4),
        (4, 1, {"data": 2, "context": 2}, 4),
        pytest.param(4, 1, {"data": 4}, 2, marks=pytest.mark.slow),
    ],
)
def test_processes_assemble_the_global_batch(
    batches: Batches, tmp_path: Path, processes: int, devices: int, mesh: dict[str, int], rows_each: int
) -> None:
    expected = batches.loader(**DATA).batch(STEP)
    seen = run(batches, tmp_path, processes, devices, mesh)
    for name, whole in expected.items():
        assembled = np.full(whole.shape, -7, whole.dtype)
        for process in seen:
            for index, values in process["shards"][name]:
                assembled[index] = values
        np.testing.assert_array_equal(assembled, whole)
    assert {process["checksum"] for process in seen} == {int(expected["tokens"].sum())}
    assert [len(process["rows"]) for process in seen] == [rows_each] * processes, "each makes its own rows only"


def test_one_process_feeds_a_mesh(batches: Batches) -> None:
    loader = batches.loader(**DATA)
    mesh = jax.make_mesh((1, 1), ("data", "context"))
    with jax.set_mesh(mesh):
        made = list(feed(loader, mesh, start=3, stop=6))
    assert len(made) == 3
    for step, batch in zip(range(3, 6), made, strict=True):
        for name, values in loader.batch(step).items():
            np.testing.assert_array_equal(batch[name], values)
