"""The fit finds the law that made the losses, says how well it knows it, and refuses runs that cannot tell it."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares

from codelm import cli
from codelm.arithmetic import count_parameters
from codelm.config import Config, ModelConfig, TokenizerConfig, TrainConfig, resolve
from codelm.errors import UserError
from experiments import scaling
from experiments.scaling import Law, Values
from tests.experiments import run_folders

CHINCHILLA = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)


def runs(law: Law, noise: float, seed: int = 0) -> tuple[Values, Values, Values]:
    sizes, lengths = np.meshgrid(np.geomspace(5e6, 1e10, 8), np.geomspace(1e8, 1e12, 8))
    parameters, tokens = sizes.ravel(), lengths.ravel()
    losses = law.E + law.A / parameters**law.alpha + law.B / tokens**law.beta
    return parameters, tokens, losses * np.exp(np.random.default_rng(seed).normal(0, noise, losses.shape))


@pytest.mark.parametrize("law", [CHINCHILLA, Law(E=0.8, A=50.0, B=3000.0, alpha=0.2, beta=0.4)])
def test_planted_constants_are_found(law: Law) -> None:
    exact = scaling.fit(*runs(law, 0.0))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(exact, name) == pytest.approx(getattr(law, name), rel=1e-3), name
    noisy = scaling.fit(*runs(law, 0.003))
    assert abs(noisy.E - law.E) < 0.05
    assert noisy.alpha == pytest.approx(law.alpha, abs=0.01)
    assert noisy.beta == pytest.approx(law.beta, abs=0.01)


def test_a_few_diverged_runs_hardly_move_it() -> None:
    """What the Huber loss is for: with squares these three would move the exponents by more than a tenth."""
    parameters, tokens, losses = runs(CHINCHILLA, 0.001)
    losses[[5, 30, 60]] *= 1.3
    law = scaling.fit(parameters, tokens, losses)
    assert law.alpha == pytest.approx(0.34, abs=0.01)
    assert law.beta == pytest.approx(0.28, abs=0.01)


def test_it_is_the_minimum_of_the_huber_loss() -> None:
    """Another method, another parametrisation, another implementation of the loss: none does better."""
    parameters, tokens, losses = runs(CHINCHILLA, 0.01, seed=3)
    law = scaling.fit(parameters, tokens, losses)

    def residuals(x: np.ndarray) -> np.ndarray:
        a, b, e, alpha, beta = x
        return np.log(np.exp(e) + np.exp(a) / parameters**alpha + np.exp(b) / tokens**beta) - np.log(losses)

    def cost(start: list[float]) -> float:
        return least_squares(residuals, start, loss="huber", f_scale=1e-3, x_scale=[1, 1, 0.1, 0.1, 0.1]).cost

    ours = [np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta]
    rest = np.abs(residuals(np.array(ours)))
    value = np.sum(np.where(rest < 1e-3, rest**2 / 2, 1e-3 * (rest - 5e-4)))
    assert value == pytest.approx(cost(ours), rel=1e-5)
    assert value <= cost([6.0, 6.0, 0.5, 0.34, 0.28]) * (1 + 1e-5)


def test_intervals_hold_the_truth_and_narrow_with_the_noise() -> None:
    widths = []
    for noise in (0.01, 0.001):
        made = runs(CHINCHILLA, noise)
        laws = scaling.resampled(scaling.fit(*made), *made, times=40)
        low, high = scaling.interval([law.alpha for law in laws])
        assert low <= 0.34 <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_the_best_size_is_the_lowest_point_of_a_budget(flops: float) -> None:
    sizes = np.geomspace(1e6, 1e13, 400_001)
    best = sizes[np.argmin(CHINCHILLA.E + 406.4 / sizes**0.34 + 410.7 / (flops / 6 / sizes) ** 0.28)]
    parameters, tokens = CHINCHILLA.optimal(flops)
    assert parameters == pytest.approx(best, rel=1e-3)
    assert 6 * parameters * tokens == pytest.approx(flops)


def test_runs_that_cannot_tell_are_refused() -> None:
    parameters, tokens, losses = runs(CHINCHILLA, 0.0)
    with pytest.raises(UserError, match="5 different runs are too few"):
        scaling.fit(parameters[:5], tokens[::9][:5], losses[:5])
    with pytest.raises(UserError, match="the runs have 1 numbers of tokens"):
        scaling.fit(parameters[:8], tokens[:8], losses[:8])
    few = np.isin(parameters, np.unique(parameters)[:2])
    with pytest.raises(UserError, match="the runs have 2 model sizes"):
        scaling.fit(parameters[few], tokens[few], losses[few])
    with pytest.raises(UserError, match="tokens follow from the model size"):
        scaling.fit(parameters[:8], 20 * parameters[:8], losses[:8])
    with pytest.raises(UserError, match="the loss does not fall"):
        scaling.fit(parameters, tokens, 1 / losses)
    rng = np.random.default_rng(0)
    for term, what in (("A", "model size"), ("B", "tokens")):  # without it, and a little noise in its place
        flat = dataclasses.replace(CHINCHILLA, **{term: 1e-9}).loss(parameters, tokens) * (
            1 + 1e-5 * rng.normal(size=64)
        )
        with pytest.raises(UserError, match=f"do not tell how the loss falls with the {what}|the loss does not fall"):
            scaling.fit(parameters, tokens, flat)
    losses[3] = np.nan
    with pytest.raises(UserError, match="must be positive numbers"):
        scaling.fit(parameters, tokens, losses)


def ladder(folder: Path, **tokenizer: int) -> Path:
    """Runs of three sizes and lengths, with the losses of the law at the sizes that multiply."""
    for depth in (2, 4, 8):
        for steps in (1000, 5000, 25_000):
            model, train = ModelConfig(depth=depth, tied_embeddings=depth < 8), TrainConfig(steps=steps)
            name = f"ladder-depth={depth}-steps={steps}"
            config = resolve(Config(name=name, model=model, train=train, tokenizer=TokenizerConfig(**tokenizer)))
            tokens = steps * config.data.seq_len * config.data.batch_size
            parameters = count_parameters(config.model)
            used = parameters.total - (parameters.embedding if depth == 8 else 0)  # norms are next to nothing
            loss = float(CHINCHILLA.loss(np.array(float(used)), np.array(float(tokens))))
            run_folders.write(folder / name, config, held_out_loss=loss, tokens=tokens)
    return folder


def test_the_command_fits_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, page = ladder(tmp_path / "runs"), tmp_path / "page.html"
    unfinished = resolve(Config(name="x"))
    run_folders.write(folder / "x", unfinished)
    argv = ["scaling", str(folder), "--resamples", "10", "--budgets", "1e20", "--out", str(page)]
    assert cli.main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "left out, without a held-out loss: x" in err
    assert found["runs"] == 9
    assert found["law"]["alpha"] == pytest.approx(0.34, abs=1e-3)
    assert found["law"]["E"] == pytest.approx(1.69, abs=1e-2)
    (best,) = found["optimal"]
    assert best["parameters"] == pytest.approx(CHINCHILLA.optimal(1e20)[0], rel=0.02)
    assert best["parameters_interval"][0] <= best["parameters"] <= best["parameters_interval"][1]
    assert cli.main(argv) == 0
    assert "alpha       0.34" in capsys.readouterr().out
    svg = ET.fromstring(page.read_text().split("<div class=wide>")[1].split("</div>")[0])
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}circle"))) == 9


def test_losses_of_other_tokens_are_not_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(ladder(tmp_path / str(size), vocab_size=size)) for size in (1000, 2000)]
    assert cli.main(["scaling", *folders]) == 2
    assert "the runs differ in tokenizer.vocab_size: their losses do not compare" in capsys.readouterr().err
    for argv, said in [
        ([str(tmp_path / "none")], "no run at"),
        ([folders[0], "--budgets", "0"], "--budgets are FLOPs"),
        ([folders[0], "--resamples", "1"], "--resamples must be at least 2"),
    ]:
        assert cli.main(["scaling", *argv]) == 2
        assert said in capsys.readouterr().err
