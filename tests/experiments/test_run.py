"""The whole of `codelm run` in small: every stage, left out when it is there, refused when it would not fit."""

import dataclasses
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

import codelm
from codelm import caches, cli, config_io
from codelm.errors import UserError
from experiments import replay_command, results, run_command
from experiments.evals import rows
from tests.experiments.conftest import command


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_what_it_promises(done: Path) -> None:
    left = {path.name for path in done.iterdir()}
    assert {"config.json", "environment.json", "metrics.jsonl", "events.jsonl", "tensorboard", "checkpoints"} <= left
    assert {"corpus", "samples.json", "result.json", "report.html"} <= left
    assert (done / "checkpoints" / "pretrain" / "12").is_dir()
    assert (done / "checkpoints" / "midtrain" / "3").is_dir()
    around = json.loads((done / "environment.json").read_text())
    assert around["packages"]["jax"]
    assert around["devices"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    assert config_io.from_json((done / "config.json").read_text()).train.steps == 12
    result = json.loads((done / "result.json").read_text())
    assert result["tokens"] == 12 * 8 * 64 + 3 * 8 * 256
    assert 0 <= result["infill_exact"] <= 1
    assert result["unigram_loss"] > 0


def test_evaluation_is_written_down_as_it_happens(done: Path) -> None:
    found = lines(done / "metrics.jsonl")
    held = [(line["stage"], line["step"]) for line in found if "held_out/loss" in line]
    assert held == [("pretrain", 6), ("pretrain", 12), ("midtrain", 0), ("midtrain", 3), ("midtrain", 3)]
    infill = [(line["stage"], line["step"]) for line in found if "infill/exact" in line]
    assert infill == [("pretrain", 8), ("midtrain", 3)]
    rates = [line["learning_rate"] for line in found if "learning_rate" in line]
    assert max(rates[-2:]) <= 1e-3 * 1.001  # a third of pretraining's
    clocks = [line["clock"] for line in lines(done / "events.jsonl") if line["event"] == "session"]
    assert clocks[0]["productive"] > 0


def test_suites_are_measured_while_it_trains_and_after_it(done: Path) -> None:
    name = "eval/bits-per-byte/bits_per_byte"
    found = [line for line in lines(done / "metrics.jsonl") if name in line]
    assert [(line["stage"], line["step"]) for line in found] == [("pretrain", 8), ("midtrain", 3)]
    for line in found:
        measured = rows.load(done / "evals" / f"{line['stage']}-{line['step']}" / "bits-per-byte-first4")
        assert measured.result["figures"]["bits_per_byte"]["value"] == line[name]
        assert len(measured.rows) == 4
    assert json.loads((done / "result.json").read_text())["evaluation"][name] == found[-1][name]
    assert len(rows.find(done)) == 2


def test_the_report_shows_the_run(done: Path) -> None:
    page = (done / "report.html").read_text()
    for title in ("Loss", "Learning rate", "Gradient norm", "Speed"):
        assert page.count(f'aria-label="{title}"') == 1
    for said in ("unigram entropy", "held-out bits per byte", "midtrain", "goodput", "compile", "learning_rate"):
        assert said in page
    speeds = [line["speed"]["seconds"] for line in lines(done / "metrics.jsonl") if "speed" in line]
    spent = [line["clock"]["productive"] for line in lines(done / "events.jsonl") if line["event"] == "session"]
    assert sum(speeds) <= spent[0] * 1.01  # no stage counts the time of the one before it
    assert "://" not in page.split("<svg")[0]  # one file that needs no other
    told = results.told(done)
    assert "unigram entropy" in told
    assert told.count("--- the model continues") == len(results.PROMPTS)
    assert "--- the model fills the hole" in told


def test_loss_by_position_is_shown_before_and_after_mid_training(done: Path) -> None:
    """Of the same rows, those of mid-training: 256 tokens."""
    page, told = (done / "report.html").read_text(), results.told(done)
    assert "Loss by position, before and after mid-training" in page
    measured = [line for line in lines(done / "metrics.jsonl") if "held_out/position/0" in line]
    before, after = (next(line for line in measured if line["step"] == step) for step in (0, 3))
    names = {0: "0–15", 16: "16–31", 32: "32–63", 64: "64–127", 128: "128–255"}
    there = [start for start in names if f"held_out/position/{start}" in before]
    assert len(there) > 2
    for start in there:
        was, now = (line[f"held_out/position/{start}"] for line in (before, after))
        assert f"<td>{names[start]}</td><td class=n>{was:.4f}</td><td class=n>{now:.4f}</td>" in page
        assert f"{names[start]} {was:.2f} → {now:.2f}" in told
    assert before["stage"] == "midtrain"


def test_the_model_of_a_run_can_be_loaded(done: Path) -> None:
    lm = codelm.load(done)
    assert lm.config.max_seq_len == 256
    assert lm.config.rope.theta > 10_000
    samples = json.loads((done / "samples.json").read_text())
    assert lm.generate(samples[0]["prompt"], max_new_tokens=24) == samples[0]["completion"]
    before = codelm.load(done / "checkpoints" / "pretrain" / "12")
    assert before.config.max_seq_len == 64


def test_a_step_of_a_run_can_be_done_again(done: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def files() -> list[Any]:
        return sorted((path, path.stat().st_mtime_ns) for path in done.rglob("*"))

    before, told = files(), ["replay", str(done), "--cache", str(runs / "cache")]
    assert cli.main([*told, "--stage", "midtrain", "--step", "3", "--bisect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"loss", "grad_norm", "grad_norm/attention"} <= set(found["recorded"])
    assert found["different"] == found["elsewhere"] == {}
    assert [row["row"] for row in found["rows"]] == list(range(8))
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    tokens = [row["tokens"] for row in found["rows"]]
    loss = sum(row["loss"] * count for row, count in zip(found["rows"], tokens, strict=True)) / sum(tokens)
    assert loss == pytest.approx(found["metrics"]["loss"], rel=1e-4)
    assert [len(half["rows"]) for pair in found["bisection"] for half in pair] == [4, 4, 2, 2, 1, 1]
    assert found["rows"][found["culprit"]]["documents"][0]["files"][0]["path"]
    assert files() == before
    shown = "\n".join(map(str, replay_command.lines(found)))
    assert "midtrain step 3" in shown
    assert f"as recorded: {len(found['recorded'])} figures, bit for bit" in shown
    assert f"all rows are finite; row {found['culprit']} adds the most" in shown
    first = found["rows"][0]["documents"][0]["files"][0]
    assert f"{first['repository']}: {first['path']} ({first['language']})" in shown
    assert "not recorded" in str(replay_command.verdict(found | {"recorded": []}))
    moved = {"different": {"loss": [2.0, 1.0]}, "elsewhere": {"jax": ["0.11.2", "0.12.0"]}}
    said = "differs from the record: loss 2.0, was 1.0. It ran elsewhere: jax was 0.11.2, is 0.12.0"
    assert str(replay_command.verdict(found | moved)) == said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--step", "13"], "has no step 13 of pretrain: the last one recorded is 12"),
        (["--step", "0"], "--step counts from 1, not 0"),
        (["--step", "5", "--stage", "midtrain"], "has no step 5 of midtrain: the last one recorded is 3"),
        (["--step", "one"], "See codelm replay --help"),
        ([], "See codelm replay --help"),
    ],
)
def test_a_step_that_was_never_done(done: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    assert cli.main(["replay", str(done), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0
    assert cli.main(["replay", str(done.parent), "--step", "1"]) == 2
    assert "a run's folder holds config.json" in capsys.readouterr().err


def test_a_step_without_the_tokenizer_of_the_run(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done, tmp_path / "small")
    learnt = next((tmp_path / "small").glob("tokenizer-*.model"))
    learnt.unlink()
    assert cli.main(["replay", str(tmp_path / "small"), "--step", "1"]) == 2
    assert f"{learnt} is missing" in capsys.readouterr().err
    assert not learnt.exists()


def test_again_does_nothing_again(config: Path, runs: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (done / "metrics.jsonl").read_bytes(), (done / "result.json").read_bytes()
    assert cli.main(command(config, runs)) == 0
    captured = capsys.readouterr()
    assert "pretrain: there already" in captured.err
    assert "midtrain: there already" in captured.err
    assert "evaluation: there already" in captured.err
    assert "unigram entropy" in captured.out
    assert ((done / "metrics.jsonl").read_bytes(), (done / "result.json").read_bytes()) == before


def test_more_mid_training_goes_on_from_what_is_there(
    config: Path, runs: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(config, runs, "--midtrain.steps", "4")) == 2
    said = capsys.readouterr().err
    assert "train.steps was 3 and is 4" in said
    assert "--may_change train.steps" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--train.learning_rate", "0.01"], "train.learning_rate was 0.003 and is 0.01"),
        (["--model.width", "128"], "model.width was 64 and is 128"),
        (["--data.seq_len", "128", "--model.max_seq_len", "64"], "longer than model.max_seq_len=64"),
        (["--model.vocab_size", "320"], "smaller than tokenizer.vocab_size=640"),
        (["--train.start", "nowhere"], "neither a run nor one of its checkpoints"),
        (["--mesh.data", "3"], "mesh.data=3 does not divide data.batch_size=8"),
        (["--midtrain.batch_size", "4"], "midtrain: data.batch_size=4 does not divide over mesh"),
    ],
)
def test_what_cannot_be_is_one_line(
    config: Path, runs: Path, done: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in done.rglob("*") if path.name != "run.lock")
    assert cli.main(command(config, runs, *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.strip().count("\n") == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in done.rglob("*") if path.name != "run.lock") == before


def test_no_devices_of_the_asked_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu': no TPU found.\nAnd much more.")

    monkeypatch.setattr(run_command.jax, "devices", nothing)
    monkeypatch.setattr(run_command.jax.config, "update", lambda *_: None)
    with pytest.raises(UserError, match=r"^no tpu devices here \(Unable .* no TPU found.\); try --platform cpu$"):
        run_command.find_devices("tpu")


def test_two_runs_in_one_folder_are_refused(
    config: Path, runs: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (done / "run.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(command(config, runs)) == 2
    assert "a run is in progress" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_in(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(command(config, tmp_path / "file")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_corpus_that_changed_is_noticed(
    config: Path, runs: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = config_io.load(config)
    quality = dataclasses.replace(told.corpus.quality, max_bytes=told.corpus.quality.max_bytes - 1)
    other = dataclasses.replace(told, corpus=dataclasses.replace(told.corpus, quality=quality))
    path = config.with_name("other.json")
    path.write_text(config_io.to_json(other))
    assert cli.main(command(path, runs)) == 2
    assert "corpus.quality.max_bytes was" in capsys.readouterr().err


def test_what_is_compiled_is_kept_unless_jax_was_told_where(tmp_path: Path) -> None:
    given = jax.config.jax_compilation_cache_dir
    try:
        caches.keep_compiled(tmp_path)
        assert jax.config.jax_compilation_cache_dir == given is not None
        jax.config.update("jax_compilation_cache_dir", None)
        caches.keep_compiled(tmp_path)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", given)
