"""What the report checks and shows."""

from pathlib import Path

import pytest

from codelm import cli
from data import build
from tests.data.building import (
    corpus_config,
    manifest_of,
    run,
    settings,
)


def test_a_damaged_shard_is_named(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build.build(corpus_config(f"repositories:{clean}"), settings(tmp_path / "c"))
    shard = next((tmp_path / "c").glob("*train*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert cli.main(["data", "report", str(tmp_path / "c")]) == 2
    assert f"{shard} is corrupt" in capsys.readouterr().err
    shard.write_bytes(content[:-1])
    assert cli.main(["data", "report", str(tmp_path / "c")]) == 2
    assert f"{shard} is missing or cut short" in capsys.readouterr().err


def test_the_report_is_a_page_that_holds_what_the_manifest_says(planted: Path, tmp_path: Path) -> None:
    from html.parser import HTMLParser

    out = tmp_path / "c"
    assert run("--source", f"repositories:{planted}", "--out", str(out)) == 0
    assert cli.main(["data", "report", str(out)]) == 0
    page = (out / "report.html").read_text()
    for reason, row in manifest_of(out)["dropped"].items():
        assert f"<td >{reason}</td><td class=n>{row['documents']:,}</td>" in page
    assert "a_near_copy.py" in page
    for published in (page, (out / "manifest.json").read_text()):
        assert "&lt;AWS_ACCESS_KEY&gt;" in page, "the unlicensed file is shown,"
        assert "AKIA" not in published, "but not its key"
        assert "jane.roe" not in published
    text: list[str] = []
    parser = HTMLParser()
    parser.handle_data = text.append  # pyrefly: ignore
    parser.feed(page)
    assert "Drops to look at" in text
    assert "<script" not in page


def test_report_refuses_what_is_no_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "report", str(tmp_path)]) == 2
    assert "no corpus at" in capsys.readouterr().err
