"""`codelm data show` and `data stats`: what a user sees, and what they refuse."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from codelm import cli
from codelm.config_io import to_json
from codelm.data_config import FimConfig, SourceConfig
from tests.data.batches import EVERY_CHOOSER, Batches


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["data", *argv])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def config(batches: Batches, tmp_path: Path) -> Path:
    """Every chooser, over a corpus that is named."""
    given = batches.config(SourceConfig(corpus=str(batches.corpus)), fim=FimConfig(1.0, spans=EVERY_CHOOSER))
    (tmp_path / "config.json").write_text(to_json(given))
    return tmp_path / "config.json"


def test_json_is_the_row(config: Path, batches: Batches, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", str(config), "--row", "11", "--json", "--cache", str(batches.cache))
    assert code == 0
    shown = json.loads(out)
    loader = batches.loader(SourceConfig(corpus=str(batches.corpus)), fim=FimConfig(1.0, spans=EVERY_CHOOSER))
    for name, values in loader.batch(1).items():
        np.testing.assert_array_equal(shown[name], values[3])
    assert (shown["step"], shown["row_of_step"], shown["epoch"]) == (1, 3, 0)
    assert [source["segment"] for source in shown["sources"]] == list(range(len(shown["sources"])))
    for source in shown["sources"]:
        assert source["positions"] == shown["segment_ids"].count(source["segment"])
        for file in source["files"]:
            assert (file["repository"], file["path"]) in batches.texts()


def test_a_row_shows_its_text_and_where_it_is_from(
    config: Path, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = ("--cache", str(batches.cache))
    row = batches.loader(SourceConfig(corpus=str(batches.corpus)), fim=FimConfig(1.0, spans=EVERY_CHOOSER)).row(5)
    code, out, _ = run(capsys, "show", str(config), "--row", "5", *cache)
    assert code == 0
    assert out.startswith("row 5 (step 0, row 5) of code, epoch 0: ")
    for number, document in enumerate(row.documents):
        assert f"── segment {number}, positions " in out
        names = row.writer.store.names(document.files[0][0])
        assert f"{names.repository}: {names.path} ({names.language})" in out
        for hole in document.holes:
            assert f"{hole.mode} by {hole.chooser}" in out
    middles = [document for document in row.documents if document.holes and document.holes[0].mode in ("psm", "spm")]
    assert out.count("⟦") >= len(middles) > 0


def test_colours_are_the_roles(config: Path, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    from codelm.formats import Role
    from data.show_command import STYLES, _lines

    loader = batches.loader(fim=FimConfig(1.0), metadata=1.0)
    text = next(line for line in _lines(loader.row(0), loader, marks="") if "<|fim_prefix|>" in line.plain)
    shown = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert shown[STYLES[Role.SENTINEL]].startswith("<|")
    assert shown[STYLES[Role.MIDDLE]].endswith("<|endoftext|>")
    assert STYLES[Role.CONTEXT] in shown
    assert "".join(text.plain[s.start : s.end] for s in text.spans) == text.plain


def test_stats_of_a_mixture(config: Path, batches: Batches, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data.sources.0.level", "repository", "--train.steps", "20", "--cache", str(batches.cache))
    argv = (str(config), *options, "--data.seq_len", "1024", "--data.repository.order", "imports")
    code, out, _ = run(capsys, "stats", *argv, "--json")
    assert code == 0
    shown = json.loads(out)
    (stratum,) = shown["strata"]
    texts = batches.texts()
    assert stratum["documents"] == len({repository for repository, _ in texts})
    assert stratum["tokens"] == sum(len(batches.tokenizer.encode(text)) for text in texts.values())
    assert stratum["epochs"] == pytest.approx(160 / stratum["rows"])
    ((what, lengths),) = shown["lengths"].items()
    assert what == f"repositories of {batches.corpus}"
    assert sum(lengths.values()) == stratum["documents"]
    sizes = Counter[str]()
    for (repository, _), text in texts.items():
        sizes[repository] += len(batches.tokenizer.encode(text))
    assert lengths["4096"] == sum(4096 <= size < 8192 for size in sizes.values()) > 0
    sample = shown["sample"]
    assert sample["rows"] == 160
    assert 0 < sample["of_them_with_a_dependency_inside"] <= sample["rows_with_several_files"] <= 160
    holes = {name: count for name, count in sample["holes"].items() if not name.startswith("because")}
    assert sum(holes.values()) == sample["documents"], "rate 1"
    code, out, _ = run(capsys, "stats", *argv)
    assert code == 0
    assert f"{sample['of_them_with_a_dependency_inside']:,} of {sample['rows_with_several_files']:,} rows" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["show"], "which config?"),
        (["show", "configs/quickstart.py", "--row", "-1"], "--row counts from 0"),
        (["show", "configs/quickstart.py", "--row", "x"], "--row"),
        (["stats", "configs/quickstart.py", "--rows", "0"], "--rows must be at least 1"),
        (["show", "CONFIG", "--data.sources.0.corpus", "nowhere"], "data.sources.0: no corpus at nowhere"),
        (["show", "CONFIG", "--split", "valid"], "has no split 'valid'"),
        (["show", "CONFIG", "--tokenizer.path", "nowhere.model"], "no tokenizer at nowhere.model"),
        (["show", "CONFIG", "--data.fim.rate", "2"], "data.fim.rate must be between 0 and 1"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], said: str, config: Path, batches: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(config) if word == "CONFIG" else word for word in argv]
    cache = ["--cache", str(batches.cache)] if str(config) in argv else []
    code, out, err = run(capsys, *argv, *cache)
    assert (code, out) == (2, "")
    assert err.startswith("codelm: error: ")
    assert err.count("\n") == 1
    assert said in err
