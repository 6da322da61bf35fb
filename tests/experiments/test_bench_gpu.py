"""The measurement of GPUs, where there is none: its whole way on a CPU, and what it tries in which order."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from experiments.bench import gpu
from experiments.bench.gpu import OUT_OF_MEMORY, Options, Trial


def test_the_whole_of_it_in_small(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    argv = ["gpu", "--platform", "cpu", "--tiny", "--cases", "1.3b:8192", "--tokens", "512", "--attention", "xla"]
    monkeypatch.setattr("sys.argv", argv)
    gpu.main()
    told = json.loads(capsys.readouterr().out)["cases"]["1.3b:8192"]
    best = told["best"]
    assert (best["attention"], best["remat"], best["rows"], best["seq_len"]) == ("xla", "matmuls", 2, 256)
    assert best["mfu"] > 0
    assert best["tokens_per_second"] == pytest.approx(512 / best["seconds"])
    assert {"attention", "matrix products"} <= set(best["by_kind"])
    assert len(best["operations"]) == gpu.OPERATIONS
    assert len(told["tried"]) == 1


def test_what_a_trial_refuses_is_told() -> None:
    told = gpu.alone(Trial("150m:2048", gpu.CHOICES[0], 512, "cpu", tiny=True), 60)
    assert "attention backend 'pallas' refuses: it needs a GPU" in told["error"]
    assert gpu.alone(Trial("150m:2048", gpu.CHOICES[0], 512, "cpu", tiny=True), 0.1) == {"error": "no time left"}


@dataclass
class Pretended:
    """Trials that take a minute each, of a device that fits 8,192 tokens of the larger model."""

    now: float = 0.0
    tried: list[Trial] = field(default_factory=list)

    def alone(self, trial: Trial, seconds: float) -> dict[str, Any]:
        self.now += 60
        self.tried.append(trial)
        if trial.case.startswith("1.3b") and trial.tokens > 8_192:
            return {"error": OUT_OF_MEMORY}
        faster = trial.choice.attention == "xla"
        return {"mfu": 0.5 + 0.1 * faster, "by_kind": {}, "by_phase": {}, "operations": [{}] * 20}


def test_the_most_tokens_that_fit_and_every_case_before_a_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended()
    monkeypatch.setattr(gpu, "alone", pretended.alone)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: pretended.now)
    options = Options(cases=("1.3b:2048", "150m:2048"), tokens=(16_384, 8_192), seconds=200)
    found = list(gpu.trials(options))
    first = [(trial.case, trial.choice, trial.tokens) for trial in pretended.tried]
    assert first == [
        ("1.3b:2048", gpu.CHOICES[0], 16_384),
        ("1.3b:2048", gpu.CHOICES[0], 8_192),
        ("150m:2048", gpu.CHOICES[0], 16_384),
        ("1.3b:2048", gpu.CHOICES[1], 16_384),
    ]
    left = [told for _, told in found if told.get("error") == "no time left"]
    assert len(found) == len(first) + len(left)
    assert {case for case, told in found if told in left} == set(options.cases)
    summary = gpu.summary([told for case, told in found if case == "1.3b:2048"])
    assert summary["best"]["mfu"] == 0.5
    assert len(summary["best"]["operations"]) == gpu.OPERATIONS
    assert [told.get("error") for told in summary["tried"][:3]] == [OUT_OF_MEMORY, None, OUT_OF_MEMORY]


@pytest.mark.parametrize("case", gpu.CASES)
def test_cases_are_shipped_configs(case: str) -> None:
    config = gpu.config_of(Trial(case, gpu.CHOICES[0], 32_768, "", tiny=False))
    assert config.data.batch_size * config.data.seq_len == 32_768
    assert (config.model.attention, config.model.remat, config.model.compute_dtype) == ("pallas", "matmuls", "bfloat16")
    assert config.train.accumulate == 1
