"""The suggestion by curves whose steepest point and rise are known; the losses are those of the growing rates."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from codelm import cli
from codelm.config import Config, MeshConfig, TrainConfig, resolve
from codelm.config_io import to_json
from codelm.errors import UserError
from codelm.model import create
from data.loader import Loader
from experiments import learning_rate_command
from experiments.learning_rate_command import losses_at
from experiments.learning_rate_range import suggest, until_hopeless
from tests.data.batches import Batches, make
from train.losses import losses as training_losses

RATES = np.geomspace(1e-5, 1.0, 101)


def curve(noise: float = 0.0, rises: float = 0.1, seed: int = 0) -> np.ndarray:
    """Falls by 3 about 1e-3, a decade wide, and rises by 6 in each decade past `rises`."""
    log = np.log10(RATES)
    fall = 3 / (1 + np.exp(-(log + 3) / 0.25))
    rise = 6 * np.maximum(log - np.log10(rises), 0)
    return 8.3 - fall + rise + np.random.default_rng(seed).normal(0, noise, len(RATES))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_steepest_and_rise_are_found(noise: float) -> None:
    """A quarter of the 3 is lost an eighth of a decade past the rise; a step is a twentieth of one."""
    found = suggest(RATES, curve(noise))
    assert abs(np.log10(found.steepest) + 3) < 0.2
    assert -1 < np.log10(found.diverges) < -1 + 0.125 + 0.15
    assert found.rate == found.diverges / 10


def test_a_loss_that_never_rises_suggests_the_steepest() -> None:
    found = suggest(RATES, curve(0.02, rises=10.0))
    assert np.isinf(found.diverges)
    assert found.rate == found.steepest


def test_what_is_no_number_is_the_rise() -> None:
    losses = curve(0.02, rises=10.0)
    losses[80] = np.nan
    assert suggest(RATES, losses).diverges == RATES[80]
    assert suggest(RATES, losses[:80]).diverges == RATES[80], "given up there"


def test_a_wild_end_does_not_hide_the_fall() -> None:
    wild = np.abs(np.random.default_rng(1).normal(0, 10, len(RATES))) * (RATES > 0.05)
    found = suggest(RATES, curve(0.02) + wild)
    assert abs(np.log10(found.steepest) + 3) < 0.2
    assert -1.5 < np.log10(found.diverges) < -1


def test_runs_that_say_nothing_are_refused() -> None:
    flat = 8.3 + np.random.default_rng(0).normal(0, 0.05, len(RATES))
    with pytest.raises(UserError, match="the loss did not fall anywhere up to a rate of 1"):
        suggest(RATES, flat)
    with pytest.raises(UserError, match="the loss was no number after 4 steps"):
        suggest(RATES, np.r_[curve()[:4], np.full(97, np.nan)])


def test_a_hopeless_run_is_given_up() -> None:
    assert list(until_hopeless(iter([3.0, 2.0, 3.9, 4.1, 2.0]))) == [3.0, 2.0, 3.9, 4.1]
    assert list(until_hopeless(iter([3.0, 2.0, 1.0]))) == [3.0, 2.0, 1.0]
    assert str(list(until_hopeless(iter([3.0, np.nan, 1.0])))) == "[3.0, nan]"


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    return make(tmp_path_factory.mktemp("batches"))


def small(batches: Batches) -> Config:
    sizes = {"width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 32}
    config = batches.config(seq_len=64, batch_size=2)
    model = replace(config.model, **sizes, compute_dtype="float32", remat="none")
    return resolve(replace(config, model=model, train=TrainConfig(steps=5)))


@pytest.mark.slow
def test_every_step_takes_its_own_rate(batches: Batches) -> None:
    config = small(batches)
    loader: Loader = batches.loader(seq_len=64, batch_size=2)
    model = create(config.model, config.seed)
    measure = jax.jit(lambda batch: training_losses(model, config.train, batch)[1].parts["loss"])
    untouched = [float(measure(batch)) for batch in loader.batches(0, 4)]
    late = list(losses_at(config, np.array([1e-20, 1e-20, 1e-2, 1e-20]), loader.batches(0, 4)))
    assert late[:3] == pytest.approx(untouched[:3], rel=1e-5)
    assert late[3] < untouched[3] - 0.01


def test_the_command(
    batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learning_rate_command, "losses_at", lambda config, rates, batches: iter(curve(0.02).tolist()))
    (tmp_path / "c.json").write_text(to_json(replace(small(batches), mesh=MeshConfig(data=2, fsdp=1, context=4))))
    corpus = f"--data.sources.0.corpus={batches.corpus}"
    argv = ["lr-range", str(tmp_path / "c.json"), corpus, f"--cache={batches.cache}", "--steps=101"]
    assert cli.main([*argv, "--out", str(tmp_path / "page.html"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rates"] == pytest.approx(RATES[: len(found["losses"])].tolist())
    assert found["rate"] == found["diverges"] / 10
    html = (tmp_path / "page.html").read_text()
    assert all(f">{what} {found[key]:.2g}<" in html for what, key in (("steepest",) * 2, ("rises", "diverges")))
    assert cli.main(argv) == 0
    assert f"try --train.learning_rate {found['rate']:.2g} (a tenth of where it rises)" in capsys.readouterr().out
    flat = lambda config, rates, batches: iter([8.0, 8.1] * 50)  # noqa: E731
    monkeypatch.setattr(learning_rate_command, "losses_at", flat)
    for more, said in [("--steps=10", "at least 20"), ("--low=20", "the first below the second"), ("", "did not fall")]:
        assert cli.main([*argv, *([more] if more else []), "--out", str(tmp_path / "flat.html")]) == 2
        assert said in capsys.readouterr().err
    assert "each step" in (tmp_path / "flat.html").read_text(), "to see why"
