"""The command is quick to start, lists its verbs, and answers a wrong one with the nearest."""

import subprocess
import sys
import time

import pytest

from codelm import cli


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import codelm",
        "from codelm import cli; cli.main(['--help'])",
        "from codelm import cli; cli.main(['config', 'show', 'configs/quickstart.py'])",
        "from codelm import cli; cli.main(['tokenizer', '--help'])",
    ],
)
def test_start_is_fast_and_without_jax(code: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        out = python(code + "; import sys; print('jax' in sys.modules)")
        seconds.append(time.monotonic() - start)
        assert out.splitlines()[-1] == "False"
    assert min(seconds) < 1.5


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["-h"]):
        assert cli.main(argv) == 0
        out = capsys.readouterr().out
        for verb, (_, summary) in cli.VERBS.items():
            assert verb in out
            assert summary in out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*verb.split(), "--help"])
    assert not stop.value.code
    assert f"usage: codelm {verb}" in capsys.readouterr().out


def test_a_group_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tokenizer"]) == 0
    out = capsys.readouterr().out
    assert "tokenizer train" in out
    assert "config show" not in out


@pytest.mark.parametrize(
    ("argv", "nearest"), [(["confg"], "'config'"), (["tokenizer", "trian"], "'tokenizer train'"), (["x"], "'")]
)
def test_a_wrong_verb_names_the_nearest(argv: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"nearest: {nearest}" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("codelm ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m codelm config show configs/quickstart.py | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
