"""A sweep runs what is not finished, goes on past failures, makes inputs once, and leaves nothing behind on Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codelm import cli
from codelm.commandline import parse_with_config
from codelm.config import Config, CorpusConfig, TokenizerConfig, fingerprint, resolve
from codelm.config_command import ShowOptions
from data import build, inputs, runners
from experiments import sweep_command, sweep_inputs
from experiments.sweeps import Run
from tests.data.made_corpus import repositories

SWEEP = """
from experiments.sweeps import Sweep, over
def sweep() -> Sweep:
    return Sweep("configs/quickstart.py", over("seed", 1, 2, 3))
"""
# In place of `codelm run`: what its run does is in the environment, by seed; it says when it began and ended.
FAKE = """
import json, os, sys, time
config, seed = os.environ["FINGERPRINT_" + sys.argv[2]], sys.argv[2]
kind = os.environ.get("KIND_" + seed, "finish")
begun = time.time()
time.sleep(0.3)
open(os.path.join(sys.argv[1], "times"), "a").write(f"{begun} {time.time()}\\n")
if kind == "fail":
    sys.exit("first line\\ncodelm: error: no such thing\\n")
if kind == "kill":
    os.kill(os.getpid(), 9)
if kind == "finish":
    result = {"codelm_result": 1, "fingerprint": config, "held_out_loss": float(seed), "seconds": 1.0}
    json.dump(result, open(os.path.join(sys.argv[1], "result.json"), "w"))
    os.rename(os.path.join(sys.argv[1], "config"), os.path.join(sys.argv[1], "config.json"))
"""


def fake(run: Run, folder: Path) -> list[str]:
    from codelm import config_io

    (folder / run.name / "config").write_text(config_io.to_json(run.config))
    os.environ[f"FINGERPRINT_{run.config.seed}"] = fingerprint(run.config)
    return [sys.executable, "-S", "-c", FAKE, str(folder / run.name), str(run.config.seed)]


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sweep over three seeds, whose runs are fakes, and need no corpus."""
    (tmp_path / "seeds.py").write_text(SWEEP)

    def command(run: Run, folder: Path) -> list[str]:
        (folder / run.name).mkdir(parents=True, exist_ok=True)
        return fake(run, folder)

    monkeypatch.setattr(sweep_command, "command", command)
    monkeypatch.setattr(sweep_inputs, "prepare", lambda configs, runs: list(configs))
    return str(tmp_path / "seeds.py")


def times(folder: Path) -> list[tuple[float, ...]]:
    """When each run began and ended, in the order in which they began."""
    lines = [line for file in folder.glob("*/times") for line in file.read_text().splitlines()]
    return sorted(tuple(map(float, line.split())) for line in lines)


def test_runs_one_after_the_other_or_beside_each_other(
    sweep_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "one")]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[1:]] == [f"quickstart-seed={n}" for n in (1, 2, 3)]
    assert "quickstart-seed=2: held-out loss 2.000 in 1 s; 1 left, about" in err
    first, second, third = times(tmp_path / "one")
    assert first[1] <= second[0]
    assert second[1] <= third[0]
    assert cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "two"), "--jobs", "2"]) == 0
    first, second, third = times(tmp_path / "two")
    assert second[0] < first[1]
    assert third[0] >= min(first[1], second[1])


def test_what_fails_is_told_and_the_rest_goes_on(
    sweep_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KIND_1", "fail")
    monkeypatch.setenv("KIND_2", "preempted")
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "runs"), "--jobs", "3"])
    log = tmp_path / "runs" / "quickstart-seed=1" / "log.txt"
    assert "2 of 3 runs failed" in str(stop.value.code)
    assert f"quickstart-seed=1: exit code 1: codelm: error: no such thing; see {log}" in str(stop.value.code)
    assert "quickstart-seed=2: it ended without result.json" in str(stop.value.code)
    assert log.read_text().startswith("first line\n")
    assert "quickstart-seed=3" in capsys.readouterr().out
    monkeypatch.delenv("KIND_1")
    monkeypatch.setenv("KIND_2", "kill")
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "runs"), "--jobs", "2"])
    assert "1 of 3 runs failed" in str(stop.value.code)
    assert "killed by SIGKILL" in str(stop.value.code)
    assert "3 runs, 1 of them finished before" in capsys.readouterr().err
    monkeypatch.delenv("KIND_2")
    assert cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "runs")]) == 0
    assert [
        len((tmp_path / "runs" / f"quickstart-seed={n}" / "times").read_text().splitlines()) for n in (1, 2, 3)
    ] == [
        2,
        3,
        1,
    ]


def test_a_result_of_another_config_is_not_this_runs(sweep_file: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "quickstart-seed=2"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"codelm_result": 1, "fingerprint": "0" * 16}))
    only = ["--only", "*seed=2", "*seed=3"]
    assert cli.main(["sweep", sweep_file, "--dir", str(tmp_path / "runs"), *only]) == 0
    assert len(times(tmp_path / "runs")) == 2
    assert not (tmp_path / "runs" / "quickstart-seed=1").exists()


def test_bad_input_is_one_line(sweep_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, said in [
        ([sweep_file, "--jobs", "0"], "--jobs must be at least 1"),
        ([sweep_file, "--only", "*sed=1"], "matches no run; nearest: quickstart-seed=1"),
        ([str(tmp_path / "none.py")], "no sweep at"),
        ([sweep_file, "--job", "2"], "nearest: '--jobs'"),
        ([sweep_file, "--dir", sweep_file], "cannot write"),
    ]:
        assert cli.main(["sweep", *argv]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert [line for line in err.splitlines() if "error" in line] == err.splitlines()[-1:]


def test_printed_commands_run_what_the_sweep_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.py").write_text(SWEEP.replace('over("seed", 1, 2, 3)', 'over("corpus.opt_out", "a b", "$HOME\'")'))
    assert cli.main(["sweep", str(tmp_path / "s.py"), "--print", "--dir", "some runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, value in zip(lines, ("a b", "$HOME'"), strict=True):
        shown = line.replace(sys.executable, "printf '%s\\n'", 1)  # a shell takes it apart
        argv = subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True).stdout.splitlines()
        assert argv == shlex.split(line)[1:]
        assert argv[:5] == ["-m", "codelm", "run", "configs/quickstart.py", "--dir=some runs"]
        config = parse_with_config(ShowOptions, [argv[3], *argv[5:]], "x").config
        assert config.corpus.opt_out == value
        assert config.name.startswith("quickstart-opt_out=")


CHILD = """
import os, signal, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
open(sys.argv[1] + "/pids", "w").write(f"{os.getpid()} {grandchild.pid}")
def save(*_):
    open(sys.argv[1] + "/saved", "a").write("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from codelm import cli
from experiments import sweep_command, sweep_inputs
sweep_inputs.prepare = lambda configs, runs: None
sweep_command.command = lambda run, folder: [sys.executable, "-S", "-c", sys.argv[3], str(folder / run.name)]
sys.exit(cli.main(["sweep", sys.argv[1], "--dir", sys.argv[2], "--jobs", "2"]))
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_every_run_after_it_has_saved(stop: signal.Signals, sweep_file: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PARENT, sweep_file, str(tmp_path / "runs"), CHILD]
    sweep = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while len(found := list((tmp_path / "runs").glob("*/pids"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)
    sweep.send_signal(stop)
    _, err = sweep.communicate(timeout=20)
    assert sweep.returncode == 130
    assert "stopping 2 runs" in err
    assert sorted((tmp_path / "runs").glob("*/saved")) == sorted(path.with_name("saved") for path in found)
    assert {path.with_name("saved").read_text() for path in found} == {"x"}
    for pid in (int(pid) for path in found for pid in path.read_text().split()):
        assert not alive(pid)
    assert not (tmp_path / "runs" / "quickstart-seed=3").exists()


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and waits for its parent does not."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.01)
    return True


def test_runs_share_what_they_would_make_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One corpus for all that have the same one, one tokenizer for each size; every run has both in its folder."""
    code = repositories(tmp_path / "code", count=5, files=3)
    built = []
    monkeypatch.setattr(runners, "cores", lambda: 1)  # in this process: others take seconds to start
    monkeypatch.setattr(build, "build", lambda *a, real=build.build: built.append(1) or real(*a))

    def config(name: str, vocab_size: int, validation: float = 0.2) -> Config:
        corpus = CorpusConfig(sources=(f"repositories:{code}",), validation=validation)
        return resolve(Config(name=name, corpus=corpus, tokenizer=TokenizerConfig(vocab_size=vocab_size)))

    configs = [config("a", 600), config("b", 640), config("c", 640), config("d", 600, 0.4)]
    runs = tmp_path / "runs"
    sweep_inputs.prepare(configs, runs)
    assert len(built) == 2
    assert capsys.readouterr().err.count("learning a tokenizer") == 3
    digests = [inputs.own_corpus(c, runs).manifest["digest"] for c in configs]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    sizes = [inputs.tokenizer(c, inputs.own_corpus(c, runs), runs).vocab_size for c in configs]
    assert sizes == [600, 640, 640, 600]
    assert len(built) == 2
    assert "learning" not in capsys.readouterr().err
    names = [sorted(path.name for path in (runs / name).iterdir()) for name in "abcd"]
    assert [len(found) for found in names] == [2, 2, 2, 2]
    assert names[1] == names[2] != names[0]
    assert os.path.samefile(runs / "a" / "corpus" / "manifest.json", runs / "b" / "corpus" / "manifest.json")
    sweep_inputs.prepare(configs, runs)
    assert len(built) == 2
