"""`codelm plan` as it is called: a small model compiled for real chips, arithmetic for GPUs, and every refusal."""

import importlib.util
import json
from typing import Any

import pytest

from codelm import cli

SMALL = [
    "--model.depth", "2", "--model.width", "256", "--model.head_dim", "128", "--model.heads", "2",
    "--model.vocab_size", "512", "--tokenizer.vocab_size", "512", "--data.seq_len", "256", "--data.batch_size", "16",
    "--mesh.data", "1", "--mesh.fsdp", "-1", "--midtrain.steps", "0",
    "--train.accumulate", "1", "--model.remat", "full",
]  # fmt: skip
PROMISED = {
    "fits", "hbm_bytes_per_chip", "hbm_limit", "flops_per_step", "roofline_seconds", "predicted_mfu",
    "tokens_per_second", "collectives", "bound_by",
}  # fmt: skip


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert cli.main(["plan", "configs/base_150m.py", *SMALL, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu compiles for TPUs: the extra tpu")
def test_a_step_compiled_for_four_chips(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--topology", "v5e:2x2")
    assert found.keys() >= PROMISED
    assert (found["fits"], found["method"], found["devices"]) == (True, "compiled", 4)
    parameters = 512 * 256 + 256 + 2 * (2 * 256 + 256 * 128 * (2 + 1 + 1 + 2) + 3 * 256 * 768)
    assert found["hbm_split"]["parameters"] == pytest.approx(parameters, rel=0.01)  # 4 bytes each, on 4 chips
    assert found["hbm_split"]["optimizer"] == pytest.approx(2 * parameters, rel=0.01)
    assert sum(found["hbm_split"].values()) == pytest.approx(found["hbm_bytes_per_chip"])
    tokens, matrices = 16 * 256, parameters - 256 - 2 * 2 * 256
    attention = 2 * 12 * 256 * 256 / 2  # 2 layers, all heads together 256 wide, half of the 256 keys
    assert found["flops_per_step"] == pytest.approx(tokens * (6 * matrices + attention))
    assert 4 * found["executed_flops_per_chip"] > found["flops_per_step"]  # layers are recomputed
    seconds = found["roofline_seconds"]
    assert found["step_seconds"] == seconds[found["bound_by"]] == max(seconds.values())
    assert seconds["compute"] == pytest.approx(found["executed_flops_per_chip"] / 197e12)
    assert found["tokens_per_second"] == pytest.approx(tokens / found["step_seconds"])
    assert found["predicted_mfu"] == pytest.approx(found["flops_per_step"] / (4 * 197e12 * found["step_seconds"]))
    assert set(found["collective_bytes_by_axis"]) >= {"fsdp"}
    assert all(row["count"] > 0 and row["bytes"] > 0 for row in found["collectives"].values())


@pytest.mark.slow  # three compilations: pytest -m slow tests/train/test_plan_command.py
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu compiles for TPUs: the extra tpu")
def test_what_does_not_fit_is_told_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--data.seq_len", "8192", "--data.batch_size", "4096", "--model.remat", "none"]
    assert cli.main(["plan", "configs/base_150m.py", *SMALL, *rows, "--topology", "v5e:2x2"]) == 0
    shown = capsys.readouterr().out
    assert "does not fit, by" in shown
    assert "advice       fits with --model.remat full" in shown


def test_gpus_are_reckoned_and_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--topology", "h100:8", "--model.remat", "full")
    assert found.keys() >= PROMISED
    assert found["method"] == "arithmetic"
    assert found["roofline_seconds"]["compute"] == pytest.approx(found["flops_per_step"] * 4 / 3 / 8 / 989e12)
    assert found["predicted_mfu"] <= 0.75
    large = planned(capsys, "--topology", "h100:8", "--data.batch_size", "1048576")
    assert not large["fits"]
    assert cli.main(["plan", "configs/base_150m.py", *SMALL, "--topology", "h100:8"]) == 0
    assert "by arithmetic only, nothing was compiled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "which cluster? --topology v5p:4x4x8, or h100:64"),
        (["--topology", "v5x:4x4"], "no topology 'v5x:4x4'; nearest: v5p:"),
        (["--topology", "v5e:4x5"], "no topology 'v5e:4x5'; nearest: v5e:"),
        (["--topology", "h1000:8"], "no topology 'h1000:8'; of GPUs say how many: h100:8"),
        (["--topology", "h100:8", "--slices", "2"], "of GPUs say how many there are"),
        (["--topology", "h100:8", "--search"], "--search compiles what it tries"),
        (["--topology", "v5e:2x2", "--slices", "0"], "--slices 0: take at least 1"),
        (["--topology", "h100:8", "--mesh.fsdp", "16"], "needs 16 devices, but there are 8"),
        (
            ["--topology", "h100:8", "--train.accumulate", "4"],
            "in each of train.accumulate=4 parts does not divide over",
        ),
        (["--topology", "h100:8", "--mesh.context", "3"], "context=3 does not divide data.seq_len=256"),
        (["--topology", "h100:8", "--stage", "midtrain"], "has no mid-training: midtrain.steps is 0"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    if "--slices" in more and "v5e:2x2" in more:
        pytest.importorskip("libtpu")
    assert cli.main(["plan", "configs/base_150m.py", *SMALL, *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0


def test_without_libtpu_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else found(name, *rest)
    )
    assert cli.main(["plan", "configs/base_150m.py", *SMALL, "--topology", "v5e:2x2"]) == 2
    assert 'needs libtpu: make install EXTRAS="tpu"' in capsys.readouterr().err
