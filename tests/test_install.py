"""A fresh machine: a Python is found wherever it is, or one line says how to get one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FIND = ROOT / ".ci" / "find-python"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with bash and no Python at all."""
    for folder in ("bin", "home"):
        (tmp_path / folder).mkdir()
    for name in ("bash", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def put(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return path


def real(path: Path) -> Path:
    """This interpreter under another name."""
    return put(path, f'exec "{sys.executable}" "$@"')


def old(path: Path) -> Path:
    """A Python that says no, as 3.11 does to the question asked, or a pyenv shim without that version."""
    return put(path, "exit 1")


def find(machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(machine / "bin"), "HOME": str(machine / "home"), **variables}
    return subprocess.run([shutil.which("bash") or "bash", FIND], env=env, capture_output=True, text=True, check=False)


def found(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and os.path.realpath(done.stdout.strip()) == os.path.realpath(sys.executable)


def test_none_at_all_is_one_line(machine: Path) -> None:
    old(machine / "bin" / "python3")
    done = find(machine)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "uv python install 3.12" in done.stderr


@pytest.mark.parametrize("name", ["python3.12", "python3.14", "python3", "python", "py3", "python-custom"])
def test_on_path_under_any_name(machine: Path, name: str) -> None:
    old(machine / "bin" / "python3.11")
    real(machine / "bin" / name)
    assert found(find(machine))


def test_under_pyenv_behind_an_older_python3(machine: Path) -> None:
    old(machine / "bin" / "python3")
    old(machine / "bin" / "python3.12")  # a shim for a version that is not selected
    real(machine / "home" / ".pyenv" / "versions" / "3.13.1" / "bin" / "python")
    assert found(find(machine))
    (machine / "home" / ".pyenv").rename(machine / "elsewhere")
    assert found(find(machine, PYENV_ROOT=str(machine / "elsewhere")))


def test_through_uv(machine: Path) -> None:
    interpreter = real(machine / "uv-pythons" / "bin" / "python")
    put(machine / "bin" / "uv", f'[ "$2" = find ] && echo {interpreter}')
    assert found(find(machine))


def test_uv_installs_one_when_it_has_none(machine: Path) -> None:
    target = machine / "uv-pythons" / "python"
    real(machine / "hidden")
    for name in ("mkdir", "mv"):
        (machine / "bin" / name).symlink_to(shutil.which(name) or name)
    install = f"mkdir -p {target.parent}; mv {machine / 'hidden'} {target}"
    put(machine / "bin" / "uv", f'case "$2" in install) {install} ;; find) echo {target} ;; esac')
    assert found(find(machine))


def test_python_variable_decides(machine: Path) -> None:
    chosen = real(machine / "chosen")
    assert found(find(machine, PYTHON=str(chosen)))
    real(machine / "bin" / "python3.12")
    done = find(machine, PYTHON=str(old(machine / "wrong")))
    assert done.returncode == 1
    assert "PYTHON=" in done.stderr


def test_the_question_asked_refuses_what_cannot_run_codelm() -> None:
    """The one condition that decides, run by the interpreters there are, on the version numbers there could be."""
    question = FIND.read_text().split("usable='\n")[1].split("'\n")[0]
    assert "(3, 12)" in question
    for version, usable in (((3, 11, 9), False), ((3, 12, 0), True), ((3, 15, 0), True)):
        code = f"import sys; sys.version_info = {version}\n{question}"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert (out.strip() == "usable") == usable


def install(copy: Path, *extras: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", copy / ".ci" / "install", *extras], capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose Python writes down what it is asked to do instead of doing it."""
    for name in ("pyproject.toml", "constraints.txt", ".ci/install"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    make, log = 'mkdir -p .venv/bin; cp "$0" .venv/bin/python', 'echo "$*" >>pip.log'
    fake = f'case "$*" in *venv*) {make} ;; *pip*install*) {log} ;; esac'
    python = put(tmp_path / "fake-python", fake)
    put(tmp_path / ".ci" / "find-python", f"echo {python}")
    return tmp_path


def test_install_is_done_once_and_again_when_something_changed(checkout: Path) -> None:
    log = checkout / "pip.log"
    assert install(checkout).returncode == 0
    assert log.read_text().count("-c constraints.txt -e .\n") == 1
    assert install(checkout).stdout == ""
    assert log.read_text().count("\n") == 1

    install(checkout, "dev")  # another extra
    assert log.read_text().splitlines()[-1].endswith("-e .[dev]")
    install(checkout)
    install(checkout, "dev")
    assert log.read_text().count("\n") == 2

    install(checkout, "data", "tpu")  # several at once count as each
    assert log.read_text().splitlines()[-1].endswith("-e .[data,tpu]")
    install(checkout, "tpu")
    install(checkout, "dev", "data")
    assert log.read_text().count("\n") == 3

    with (checkout / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    install(checkout)
    assert log.read_text().count("\n") == 4


def test_install_without_a_python_makes_nothing(checkout: Path) -> None:
    put(checkout / ".ci" / "find-python", "echo 'error: none' >&2; exit 1")
    done = install(checkout)
    assert done.returncode == 1
    assert "error: none" in done.stderr
    assert not (checkout / ".venv").exists()
