"""What a build says of bad options, bad files, and what may not have been meant."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from data import build, clean_unit
from tests.data.building import (
    corpus_config,
    drops,
    manifest_of,
    refused,
    run,
    settings,
)
from tests.data.made_corpus import module, repositories


def test_what_is_wrong_is_said_in_one_line(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = ["--source", f"repositories:{clean}"], ["--out", str(tmp_path / "c")]
    assert "build what?" in refused(capsys, *out)
    assert "give --out" in refused(capsys, *source)
    assert "--source is given twice" in refused(capsys, *source, *source, *out)
    assert "--source is given twice" in refused(capsys, "--source=stdlib", "--source=packages", *out)
    assert "--source is given twice" in refused(capsys, *source, "--source=packages", *out)
    assert "nowhere" in refused(capsys, "--source", f"repositories:{tmp_path}/nowhere", *out)
    assert "give one of them" in refused(capsys, *source, *out, "--corpus.sources", "stdlib")
    assert "give one of them" in refused(capsys, "--source=stdlib", *out, "--corpus.sources=packages")
    assert f"no folder of benchmarks at {tmp_path}/no" in refused(
        capsys, *source, *out, "--decontaminate", f"{tmp_path}/no"
    )
    assert "no language 'Pyhton'" in refused(capsys, *source, *out, "--corpus.languages", "Pyhton")
    assert "--memory must be at least 1" in refused(capsys, *source, *out, "--memory", "0")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    assert "is not a corpus" in refused(capsys, *source, "--out", str(tmp_path / "full"))
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    assert "cannot write" in refused(capsys, *source, "--out", "/proc/nothing/here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"], "nothing half-written is left"


def test_an_empty_corpus_says_where_everything_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r" / "one").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "r" / "one" / f"f{n}.py").write_text(module(n))
    said = refused(capsys, "--source", f"repositories:{tmp_path / 'r'}", "--out", str(tmp_path / "c"))
    assert "all 3 documents were dropped (3 unlicensed)" in said
    assert "--corpus.licences.unlicensed keep" in said
    assert not (tmp_path / "c").exists()


def test_bad_files_are_skipped_counted_and_listed(clean: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clean, tmp_path / "r")
    lines = [json.dumps({"text": module(n), "license": "MIT"}) for n in range(7000, 7010)]
    (folder / "rows.jsonl").write_text("\n".join([*lines[:5], '{"text": ', *lines[5:]]))
    (folder / "torn.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd broken")
    argv = ["--source", f"files:{folder}/rows.jsonl", f"files:{folder}/torn.jsonl.zst", "--out", str(tmp_path / "c")]
    assert run(*argv) == 0
    unreadable = [drop for drop in drops(tmp_path / "c") if drop["reason"] == "unreadable"]
    assert len(unreadable) == manifest_of(tmp_path / "c")["dropped"]["unreadable"]["documents"] == 2
    assert any("torn.jsonl.zst" in drop["path"] for drop in unreadable)
    assert manifest_of(tmp_path / "c")["kept"]["documents"] == 10


def test_a_step_that_fails_drops_the_document_and_says_so(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clean_unit.describe

    def fails(document: Any, *rest: Any) -> Any:
        if document.path == "module_2.py":
            raise RecursionError("too deep")
        return real(document, *rest)

    monkeypatch.setattr(clean_unit, "describe", fails)
    build.build(corpus_config(f"repositories:{clean}"), settings(tmp_path / "c"))
    assert manifest_of(tmp_path / "c")["dropped"]["error"]["documents"] == 6
    assert {d["detail"] for d in drops(tmp_path / "c")} == {"RecursionError: too deep"}


def test_what_may_not_have_been_meant_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = repositories(tmp_path / "one", count=1)
    assert run("--source", f"repositories:{one}", "--out", str(tmp_path / "a")) == 0
    said = capsys.readouterr().out
    assert "nothing is held out" in said
    assert "nothing was decontaminated" in said
    two = repositories(tmp_path / "two", count=2)
    (two / "bare").mkdir()
    (two / "bare" / "x.py").write_text(module(4242))
    assert run("--source", f"repositories:{two}", "--out", str(tmp_path / "b"), "--corpus.skip", "decontaminate") == 0
    said = capsys.readouterr().out
    assert re.search(r"note: 4\d\.\d% is held out where 2.0% was asked for|note: 5\d\.\d% is held out", said)
    assert "1 documents have no known licence; --corpus.licences.unlicensed keep" in said
    assert "decontaminated" not in said
