"""`codelm quantize`: its table, what it writes, when it writes nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import codelm
from codelm import cli
from codelm.quantised import Quantised
from experiments import quantize_command, quantize_quality
from infer.prompts import family_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize_command, "TURNS", 1)
    monkeypatch.setattr(quantize_command, "TURN", 0.0)


def quantize(done: Path, *more: object) -> int:
    return cli.main(["quantize", *map(str, more), "--cache", str(done.parent / "cache"), "--holes", "6"])


def rows_of(out: str) -> dict[str, list[str]]:
    """The table, by what each row is."""
    rows = [line for line in out.splitlines() if not line.startswith(("on ", "wrote "))]
    return {line[:22].strip(): line[22:].split() for line in rows}


@pytest.mark.slow
def test_a_run_is_measured_as_it_measured_itself(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(done, done, tmp_path / "out") == 0
    out, _ = capsys.readouterr()
    rows, result = rows_of(out), json.loads((done / "result.json").read_text())
    before, after, change = map(float, rows["bits per byte"])
    assert before == pytest.approx(result["held_out_bits_per_byte"], abs=6e-5)
    assert change == pytest.approx(after - before, abs=2e-4)
    assert abs(change) < 0.02
    assert {"holes, % exact", "… edit similarity", "tokens/s"} < rows.keys()
    assert "6 holes" in out
    plain, again = codelm.load(done), codelm.load(tmp_path / "out")
    arrays = again.model.arrays()
    megabytes = sum(x.nbytes for x in plain.model.arrays().values()) / 1e6
    assert float(rows["weights, MB"][0]) == pytest.approx(megabytes, abs=0.06)
    assert isinstance(arrays["blocks.up"], Quantised)
    assert again.prompt_format == plain.prompt_format == "codelm"
    assert again.tokenizer is not None
    assert again.tokenizer.fingerprint == plain.tokenizer.fingerprint
    assert isinstance(again.generate("def ", max_new_tokens=4), str)
    assert family_of(again).fim
    assert quantize(done, tmp_path / "out", tmp_path / "twice", "--text", "codelm/errors.py") == 2
    assert "quantised already" in capsys.readouterr().err


@pytest.mark.slow
def test_what_costs_too_much_is_written_only_by_force(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (done, tmp_path / "out", "--bits", "4", "--group", "16", "--max_loss", "-1", "--text", "codelm/errors.py")
    assert quantize(done, *command) == 2
    out, err = capsys.readouterr()
    assert "4 bits in 16s" in out
    assert "bits per byte, more than --max_loss -1, so nothing is written" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert quantize(done, *command, "--force") == 0
    assert "MB on disk" in capsys.readouterr().out
    assert codelm.load(tmp_path / "out").model.blocks.up[...].values.dtype == "int4"


def test_given_text_is_measured_in_bits_of_its_bytes(done: Path, tmp_path: Path) -> None:
    """Every token but the first is predicted, from those before it in its row."""
    (tmp_path / "a.py").write_text("import os\n\n\ndef f(x):\n    return x + 1\n" * 12)
    (tmp_path / "b.py").write_text("# ünïcode\nclass A:\n    pass\n")
    lm = codelm.load(done)
    length = lm.config.max_seq_len
    examination = quantize_quality.of_text(lm, [tmp_path], 4)
    nats, size = 0.0, 0
    for path in tmp_path.iterdir():
        ids = lm.tokenizer.encode_document(path.read_text())
        size += len(lm.tokenizer.decode_bytes(ids[1:]))
        for start in range(0, len(ids) - 1, length):
            row = ids[start : start + length + 1]
            scores = lm.logits([row[:-1]])[0].astype(np.float64)
            chosen = scores[np.arange(len(row) - 1), row[1:]]
            nats += float((np.log(np.exp(scores).sum(-1)) - chosen).sum())
    assert examination.bits_per_byte(lm.model) == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert examination.text.endswith("tokens of 2 files")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--bits", "3"], "bits"),
        (["--bits", "8", "--group", "32"], "group=32 is for 4 bits"),
        (["--bits", "4", "--group", "24"], "group=24 does not divide the 64 weights that blocks.query sums over"),
        (["--text", "nothere"], "no file or folder at nothere"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    more: list[str], said: str, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(done, done, tmp_path / "out", *more) == 2
    err = capsys.readouterr().err
    assert (said in err, err.count("\n")) == (True, 1), err
    assert list(tmp_path.iterdir()) == []


def test_text_is_asked_for_where_none_was_held_out(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = codelm.checkpoint.newest(codelm.checkpoint.located(done / "checkpoints"))
    assert quantize(done, newest, tmp_path / "out") == 2
    assert "is no run, which would have text held out: name files or folders with --text" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    assert quantize(done, done, tmp_path / "out") == 2
    assert "already there" in capsys.readouterr().err
