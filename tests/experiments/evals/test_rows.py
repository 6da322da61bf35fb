"""A folder of rows: goes on where it was, takes nothing that was measured otherwise, and says what is damaged."""

import json
import os
from pathlib import Path

import pytest

from codelm.errors import UserError
from experiments.evals import rows
from experiments.evals.rows import Row, Writer
from tests.experiments.evals.fakes import header


def row(task: str, sample: int = 0, **scores: float) -> Row:
    return Row(task, sample, 7, ["text"], "text", scores or {"pass": 1.0})


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "suite"
    writer = Writer(folder, header())
    writer.add(row("b"), {"seconds": 1.0})
    writer.add(row("a"), {"seconds": 2.0})
    writer.close()
    again = Writer(folder, header())
    assert set(again.done) == {("a", 0), ("b", 0)}
    again.finish([("a", 0), ("b", 0)], {"codelm_eval": 1})
    assert rows.load(folder).rows == [row("a"), row("b")]  # in order, however they came
    assert rows.find(tmp_path) == [folder]


@pytest.mark.parametrize("text", ["a\u2028b\x85c\rd\x1ce", "half \ud800 of one", "\0", "ünïcödé"])
def test_any_text_a_model_may_write_comes_back(tmp_path: Path, text: str) -> None:
    written = Row("a", 0, 7, [text], text, {"pass": 0.0})
    writer = Writer(tmp_path, header())
    writer.add(written, {})
    writer.finish([("a", 0)], {"codelm_eval": 1})
    assert rows.load(tmp_path).rows == [written]
    assert list(Writer(tmp_path, header()).done.values()) == [written]


def test_a_line_cut_by_a_crash_is_left_out_and_its_sample_asked_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path, header())
    writer.add(row("a"), {})
    writer.add(row("b"), {})
    writer.close()
    path = tmp_path / rows.ROWS
    os.truncate(path, path.stat().st_size - 9)
    again = Writer(tmp_path, header())
    assert set(again.done) == {("a", 0)}
    again.add(row("b"), {})
    again.finish([("a", 0), ("b", 0)], {"codelm_eval": 1})
    assert len(rows.load(tmp_path).rows) == 2


def test_what_was_measured_otherwise_is_refused_with_the_difference(tmp_path: Path) -> None:
    Writer(tmp_path, header(decoding={"temperature": 0.0})).close()
    with pytest.raises(UserError, match=r"decoding.temperature was 0.0, is 0.8\): give another --out"):
        Writer(tmp_path, header(decoding={"temperature": 0.8}))


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluation in"):
        rows.load(tmp_path)
    writer = Writer(tmp_path, header())
    writer.add(row("a"), {})
    with pytest.raises(UserError, match="is not finished: the command that began it goes on"):
        rows.load(tmp_path)
    writer.finish([("a", 0)], {"codelm_eval": 1})
    (tmp_path / rows.ROWS).write_text('{"task": "a"}\n')
    with pytest.raises(UserError, match=r"rows.jsonl, line 1: no row of a measurement"):
        rows.load(tmp_path)
    (tmp_path / rows.HEADER).write_text(json.dumps({"codelm_eval": 99}))
    with pytest.raises(UserError, match="of another version than the 1"):
        rows.load(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path, header())
    writer.add(row("a"), {})
    writer._times.close()
    writer._times = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(UserError, match="No space left on device; what was scored stays, and the same command goes on"):
        writer.add(row("b"), {})
    writer.close()
    assert set(Writer(tmp_path, header()).done) == {("a", 0)}
