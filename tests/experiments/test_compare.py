"""The comparison shows what differs, in the order of the results, and curves of what was logged."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from codelm import cli
from codelm.config import Config, ModelConfig, TrainConfig, resolve
from codelm.train_config import MidtrainConfig
from experiments import compare, records
from tests.experiments import run_folders


def config(depth: int = 2, **train: float) -> Config:
    return resolve(Config(name=f"d{depth}", model=ModelConfig(depth=depth), train=TrainConfig(**train)))  # pyrefly: ignore


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    metrics = [
        {"stage": "pretrain", "step": 1, "tokens": 100, "loss": 8.0},
        {"stage": "pretrain", "step": 2, "tokens": 200, "loss": 6.0},
        {"stage": "pretrain", "step": 2, "held_out/loss": 6.5},
        {"stage": "midtrain", "step": 1, "tokens": 150, "loss": 5.0},
        {"stage": "midtrain", "step": 1, "held_out/loss": 5.5},
    ]
    run_folders.write(folder / "x-depth=2", config(), metrics, held_out_loss=3.5, tokens=2_000_000, infill_exact=0.25)
    run_folders.write(folder / "x-depth=4", config(4), held_out_loss=3.25, tokens=2_000_000, infill_exact=0.5)
    run_folders.write(folder / "x-depth=8", config(8, beta2=0.99), metrics[:2])
    return folder


def test_the_table_is_of_what_differs_best_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Width, heads and rate differ too, but the dial sets them from the depth."""
    assert cli.main(["compare", str(runs)]) == 0
    head, *body = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[:5] == ["run", "depth", "beta2", "held-out", "loss"]
    assert [line[0] for line in body] == ["x-depth=4", "x-depth=2", "x-depth=8"]
    assert body[0][1:5] == ["4", "0.95", "3.2500", "*"]
    assert body[1][1:4] == ["2", "0.95", "3.5000"]
    assert "50.0% *" in " ".join(body[0])
    assert "2M" in body[0]
    assert body[2][1:6] == ["(not", "finished)", "8", "0.99", "–"]
    assert "width" not in head
    assert "learning_rate" not in head


def test_a_field_of_the_dial_shows_when_it_was_set() -> None:
    assert compare.differing([config(2), config(4)]) == ["model.depth"]
    rates = [config(2, learning_rate=1e-3), config(2, learning_rate=2e-3)]
    assert compare.differing(rates) == ["train.learning_rate"]
    assert compare.differing([config(2), config(4, learning_rate=3e-3)]) == ["model.depth", "train.learning_rate"]
    assert compare.differing([config(2), config(2)]) == []


def test_json_has_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["compare", "--json", str(runs / "x-depth=2"), str(runs / "x-depth=4"), str(runs / "x-depth=2")]) == 0
    )
    table = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["config"]) for row in table] == [
        ("x-depth=4", {"model.depth": 4}),
        ("x-depth=2", {"model.depth": 2}),
    ]
    assert table[0]["result"]["held_out_loss"] == 3.25
    assert table[0]["result"]["infill_similarity"] is None


def test_curves_go_on_from_stage_to_stage(runs: Path) -> None:
    record = records.load(runs / "x-depth=2")
    assert compare.curve(record, "loss") == ([100, 200, 350], [8.0, 6.0, 5.0])
    assert compare.curve(record, "held_out/loss") == ([200, 350], [6.5, 5.5])


def test_a_long_curve_is_averaged(tmp_path: Path) -> None:
    lines = [{"stage": "pretrain", "step": n, "tokens": n, "loss": float(n % 2)} for n in range(1, 601)]
    record = records.load(run_folders.write(tmp_path / "long", config(), lines))
    tokens, losses = compare.curve(record, "loss")
    assert tokens == [2 * n + 1.5 for n in range(300)]
    assert set(losses) == {0.5}


def test_names_lose_what_they_share(tmp_path: Path) -> None:
    names = ["q-x-rate=1e-05-depth=2", "q-x-rate=1e-06-depth=2"]
    found = [records.load(run_folders.write(tmp_path / name, config())) for name in names]
    assert compare.short_names(found) == ["rate=1e-05", "rate=1e-06"]
    assert compare.short_names(found[:1]) == names[:1]


def test_the_page_has_table_and_curves(runs: Path, tmp_path: Path) -> None:
    assert cli.main(["compare", str(runs), "--out", str(tmp_path / "page.html")]) == 0
    html = (tmp_path / "page.html").read_text()
    assert html.count("<svg") == 2
    assert "<td class='n best'>3.2500</td>" in html
    assert "<title>depth=8</title>" in html


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda run: (run / "result.json").write_text("{"), "result.json is damaged"),
        (lambda run: (run / "result.json").write_text('{"codelm_result": 2}'), "is no result that this codelm reads"),
        (lambda run: (run / "metrics.jsonl").write_text("{\n{}\n"), "metrics.jsonl:1 is not JSON"),
        (lambda run: (run / "config.json").unlink(), "no run at"),
    ],
)
def test_damage_is_one_line(break_it: Callable, said: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_it(runs / "x-depth=2")
    assert cli.main(["compare", str(runs / "x-depth=2")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_runs_that_never_began_are_left_out(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "run.lock").write_text("")
    assert cli.main(["compare", str(tmp_path / "failed"), str(runs / "x-depth=2")]) == 0
    captured = capsys.readouterr()
    assert "x-depth=2" in captured.out
    assert f"left out, it never began: {tmp_path / 'failed'}" in captured.err
    assert cli.main(["compare", str(tmp_path / "failed")]) == 2
    assert "none of these runs has begun" in capsys.readouterr().err
    assert cli.main(["compare"]) == 2
    assert "which runs?" in capsys.readouterr().err


def test_losses_of_other_rows_do_not_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = config()
    longer = dataclasses.replace(told, midtrain=MidtrainConfig(steps=5, seq_len=2 * told.data.seq_len))
    for name, each in (("short", told), ("long", longer)):
        run_folders.write(tmp_path / name, each, held_out_loss=3.0)
    assert cli.main(["compare", str(tmp_path)]) == 0
    lengths = f"{told.data.seq_len} and {2 * told.data.seq_len}"
    assert f"held-out losses are of rows of {lengths} tokens" in capsys.readouterr().err


def test_a_line_that_is_being_written_is_left_out(runs: Path) -> None:
    with (runs / "x-depth=8" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "pretr')
    assert len(records.load(runs / "x-depth=8").metrics) == 2
