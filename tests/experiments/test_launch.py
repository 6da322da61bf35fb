"""The scripts that start a run on several hosts, with stand-ins for the commands of a cluster."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "experiments" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
# Prints its arguments, is told to stop, leaves with the code in the file `code`.
CODELM = """trap 'echo saved; exit 0' TERM
echo "$@" >> {folder}/ran
[ -e {folder}/waits ] && for n in $(seq 100); do sleep 0.1; done
exit $(cat {folder}/code)"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    stand_in(tmp_path, "codelm", CODELM.format(folder=tmp_path))
    stand_in(tmp_path, "srun", 'shift; exec "$@"')
    stand_in(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/scontrol.log')
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(tmp_path / "bin")
    return tmp_path


def stand_in(folder: Path, name: str, body: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def start(cluster: Path, script: str, *arguments: str, code: int = 0, **variables: str) -> subprocess.Popen[str]:
    (cluster / "code").write_text(str(code))
    environment = {"PATH": f"{cluster}/bin:{os.environ['PATH']}", **variables}
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.Popen(command, cwd=cluster, env=environment, stderr=subprocess.PIPE, text=True)


def ran(cluster: Path) -> list[str]:
    return (cluster / "ran").read_text().splitlines() if (cluster / "ran").exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_they_parse_and_tell_what_they_need(script: Path, cluster: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    told = start(cluster, script.name)
    assert told.communicate()[1].startswith("usage: ")
    assert told.returncode == 2
    assert ran(cluster) == []


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (2, False), (75, True), (137, True)])
def test_slurm_queues_again_what_another_try_may_finish(cluster: Path, code: int, again: bool) -> None:
    process = start(cluster, "slurm.sh", "a config", "--dir", "d", code=code, SLURM_JOB_ID="7")
    assert process.wait() == code
    assert ran(cluster) == ["run a config --dir d --distributed"]
    assert (cluster / "scontrol.log").exists() == again


def test_slurm_passes_on_that_time_is_up(cluster: Path) -> None:
    (cluster / "waits").touch()
    process = start(cluster, "slurm.sh", "c", code=3, SLURM_JOB_ID="7")
    while not ran(cluster):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert (cluster / "scontrol.log").read_text() == "requeue 7\n"


@pytest.mark.parametrize(("told", "code"), [(False, 0), (False, 2), (True, 75)])
def test_a_pod_that_is_told_to_leave_is_not_taken_for_the_end(cluster: Path, told: bool, code: int) -> None:
    if told:
        (cluster / "waits").touch()
    stand_in(cluster, "xpk", f'for word in "$@"; do printf %s "${{word#--command=}}" > {cluster}/command; done')
    names = ("CLUSTER", "PROJECT", "ZONE", "TPU_TYPE", "IMAGE", "WORKLOAD")
    variables = dict.fromkeys(names, "x") | {"RUNS": "/shared/my runs"}
    assert start(cluster, "gke_xpk.sh", "c", code=code % 75, **variables).wait() == 0
    process = subprocess.Popen(["bash", "-c", (cluster / "command").read_text()], cwd=cluster)
    while not ran(cluster):
        time.sleep(0.02)
    if told:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == code
    assert ran(cluster) == ["run c --dir /shared/my runs --distributed"]


@pytest.mark.parametrize(("code", "times"), [(0, 1), (2, 1), (75, 3)])
def test_a_tpu_pod_is_started_again(cluster: Path, code: int, times: int) -> None:
    stand_in(cluster, "gcloud", 'for word in "$@"; do last=$word; done; exec bash -c "${last#--command=}"')
    variables = {"TPU": "x", "ZONE": "x", "PROJECT": "x", "CHECKOUT": str(cluster), "RESTARTS": "2", "PAUSE": "0"}
    assert start(cluster, "tpu_pod.sh", "c", code=code, **variables).wait() == code
    assert len(ran(cluster)) == times
