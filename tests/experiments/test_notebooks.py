"""Every notebook runs from top to bottom on a small run, and what it looks at is what the model does."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float

import codelm
from codelm.errors import UserError
from codelm.lm import LM
from experiments.notebooks import looking, showing

FOLDER = Path(showing.__file__).parent
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.py") if "# %%" in path.read_text())
IDS = [70, 3, 200, 3, 91, 70, 3, 200, 3, 91, 5, 17, 100, 101, 102, 103, 104, 105]


@pytest.fixture(scope="module")
def run(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(done, tmp_path_factory.mktemp("notebooks") / "small")


@pytest.fixture(scope="module")
def lm(run: Path) -> LM:
    return codelm.load(run)


def test_there_are_notebooks_of_all_four_kinds() -> None:
    assert NOTEBOOKS == ["induction", "infill", "reading", "span_choosers"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, str(run)])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    figures = re.findall(rf"^{re.escape(str(run))}/notebooks/.+\.html$", capsys.readouterr().out, re.MULTILINE)
    asked = (FOLDER / f"{name}.py").read_text().count("show(")
    assert len(figures) == asked > 0
    assert all("<svg" in text or "<table" in text or "<pre" in text for text in map(_read, figures))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_cells_of_prose_and_code(name: str) -> None:
    cells = re.split(r"^# %%", (FOLDER / f"{name}.py").read_text(), flags=re.MULTILINE)
    assert cells[0] == ""
    prose = [cell for cell in cells[1:] if cell.startswith(" [markdown]\n")]
    assert len(prose) >= 3
    for cell in prose:
        assert all(line == "#" or line.startswith("# ") for line in cell.strip().splitlines()[1:])


def test_which_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])  # as Jupyter starts one
    monkeypatch.setenv("CODELM_RUN", str(run))
    assert showing.run_folder() == run
    monkeypatch.setenv("CODELM_RUN", str(run / "nowhere"))
    with pytest.raises(UserError, match=r"no run at .*nowhere: `make demo` makes runs/quickstart"):
        showing.run_folder()


# ---- what they look at ----


def test_attention_is_what_a_layer_computes(lm: LM) -> None:
    """The first layer's, in plain numpy from its arrays."""
    arrays = {name: np.asarray(value, np.float64) for name, value in lm.model.arrays().items()}
    first = {name: arrays[f"blocks.{name}"][0] for name in ("attention_norm", "query", "key")}
    x = arrays["embedding"][IDS]
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + lm.config.norm_eps) * first["attention_norm"]
    query, key = (_turned(np.einsum("sd,dnh->snh", x, first[name]), lm) for name in ("query", "key"))
    key = np.repeat(key, lm.config.heads // lm.config.kv_heads, axis=1)
    scores = np.einsum("snh,tnh->nst", query, key) / np.sqrt(lm.config.head_dim)
    weights = np.where(np.tri(len(IDS), dtype=bool), np.exp(scores), 0.0)
    seen = looking.attention(lm.model, IDS)
    assert seen.shape == (2, 4, len(IDS), len(IDS))
    np.testing.assert_allclose(seen[0], weights / weights.sum(-1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(seen.sum(-1), 1.0, atol=1e-5)


def test_losses_are_those_of_the_logits(lm: LM) -> None:
    scores = np.asarray(lm.logits([IDS])[0], np.float64)
    expected = [np.log(np.exp(scores[n]).sum()) - scores[n, i] for n, i in enumerate(IDS[1:])]
    found = looking.losses(lm, IDS)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], expected, rtol=1e-4)


def test_a_model_of_all_its_layers_is_the_model(lm: LM) -> None:
    np.testing.assert_array_equal(looking.first_layers(lm, 2).logits([IDS]), lm.logits([IDS]))
    first = looking.first_layers(lm, 1)
    assert jnp.array_equal(first.model.blocks.query[...][0], lm.model.blocks.query[...][0])
    assert not np.allclose(first.logits([IDS]), lm.logits([IDS]), atol=1e-3)


def test_tokens_are_told_apart_by_shade_and_stay_text() -> None:
    html = showing.shaded(["a", "<b>\n"], [2.0, np.nan], 4.0, "nats")
    assert "#d9622b 50%" in html
    assert 'title="2.00 nats"' in html
    assert "&lt;b&gt;⏎\n" in html


def _turned(x: Float[np.ndarray, "S N H"], lm: LM) -> Float[np.ndarray, "S N H"]:
    """Rotated by position: each pair of dimensions by its own frequency, which the long-context stage raised."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] * lm.config.rope.theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _read(path: str) -> str:
    return Path(path).read_text()
