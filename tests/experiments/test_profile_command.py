"""A profile of a tiny model's steps: its table, its trace, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codelm import cli, config_io
from codelm.config import Config, DataConfig, MeshConfig, ModelConfig, TokenizerConfig, TrainConfig
from codelm.train_config import MidtrainConfig
from train import traces

MODEL = ModelConfig(depth=2, width=64, heads=2, kv_heads=2, head_dim=32, mlp_width=512, compute_dtype="float32")
# Of two parts, so that it has several programs; over all simulated devices.
CONFIG = Config(
    name="tiny",
    model=MODEL,
    tokenizer=TokenizerConfig(vocab_size=256),
    data=DataConfig(seq_len=64, batch_size=16),
    train=TrainConfig(steps=10, accumulate=2),
    mesh=MeshConfig(data=4, fsdp=2),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(config_io.to_json(CONFIG))
    return path


def test_where_the_time_goes(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "trace"
    assert cli.main(["profile", str(config), "--steps", "2", "--out", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "compiling a step of tiny" in err
    told = json.loads(out)
    rows = told["operations"]
    assert len(told["step_seconds"]) == 2
    assert told["tokens_per_second"] == pytest.approx(16 * 64 / told["seconds"])
    # Simulated devices wait for each other in collectives, and do little else.
    alone = [row for row in rows if row["kind"] != "collectives"]
    assert "matrix products" in {row["kind"] for row in alone[:10]}
    # Both ways over the layers, of both parts and all devices: 2 x 2 x 8, and gate and up make it twice as many.
    forward = [row for row in rows if row["what"] == "dot_general bsd,df->bsf" and row["phase"] == "forward"]
    assert sum(row["count"] for row in forward) == 2 * 2 * 2 * 8
    assert all(row["where"].startswith("codelm/model.py:") for row in forward)
    assert {"forward", "backward", "update"} <= set(told["by_phase"])
    assert "collectives" in told["by_kind"]
    # Threads are no busier than all the time there is.
    times = traces.read(Path(told["trace"]))
    assert 0 < told["operation_seconds"] < times.places * max(told["traced_seconds"])
    assert sum(row["seconds"] for row in rows) == pytest.approx(told["operation_seconds"])
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert all(row["seconds"] >= 0 for row in rows)
    for parts in (told["by_kind"], told["by_phase"]):
        assert sum(parts.values()) == pytest.approx(told["operation_seconds"])


@pytest.mark.slow
def test_the_table_of_mid_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = tmp_path / "tiny.json", tmp_path / "trace"
    midtrain = MidtrainConfig(steps=2, seq_len=128, batch_size=16, rope_scaling="yarn")
    config.write_text(config_io.to_json(replace(CONFIG, midtrain=midtrain)))
    argv = ["--stage", "midtrain", "--steps", "1", "--top", "5", "--out", str(folder)]
    assert cli.main(["profile", str(config), *argv]) == 0
    head, table, where = capsys.readouterr().out.split("\n\n")
    assert head.startswith("tiny: ")
    assert "16 x 128 tokens a step, on 8 x cpu" in head
    assert "MFU" in head
    assert "threads of the CPU" in head
    assert len(table.splitlines()) == 1 + 5
    assert "codelm/" in table
    assert f"--logdir {folder}" in where
    assert Path(where.splitlines()[0].removeprefix("trace: ")).is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--top", "0"], "--top must be at least 1, not 0"),
        (["--out", "FILE/trace"], "is not a folder to write in"),
        (["--mesh.data", "16", "--mesh.fsdp", "1"], "needs 16 devices, but there are 8"),
        (["--stage", "midtrain"], "tiny has no mid-training"),
    ],
)
def test_what_it_refuses(
    more: list[str], said: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    argv = ["--out", str(tmp_path / "trace"), *(word.replace("FILE", str(file)) for word in more)]
    assert cli.main(["profile", str(config), *argv]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "trace").exists()
