"""What is printed where there is no terminal."""

import pytest

from train.console import Console

SPEED = {"tokens_per_second": 1234.5, "mfu": 0.41, "goodput": 0.9}


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("pretrain", 0, 400, 10, speaks=True)
    for step in range(1, 401):
        console.step(step, {"loss": 5.0}, SPEED)
    console.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("pretrain  step 20/400  loss 5.000  1,234 tokens/s  MFU 41%  goodput 90%  0:0")
    assert lines[-1].startswith("pretrain  step 400/400")


def test_the_last_step_is_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("midtrain", 5, 7, 10, speaks=True)
    for step in (6, 7):
        console.step(step, {"loss": float("nan")}, SPEED | {"mfu": 0.0})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("midtrain  step 7/7  loss nan  1,234 tokens/s  goodput 90%")


def test_other_processes_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("pretrain", 0, 10, 1, speaks=False)
    console.step(10, {"loss": 5.0}, SPEED)
    console.say("hello")
    console.close()
    assert capsys.readouterr().err == ""
