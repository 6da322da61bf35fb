"""Suites are made of what a run holds out, or of the files that are given: the same ones every time."""

from pathlib import Path

import pytest

from codelm import config_io
from codelm.config import Config, DataConfig
from codelm.data_config import SourceConfig
from codelm.errors import UserError
from data import dataset
from experiments.evals import source_files
from experiments.evals.catalogue import Data
from tests.data import batches as made_batches


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    return made_batches.build_corpus(folder, "code", made_batches.documents(), 0.4)


def run_with(folder: Path, *sources: SourceConfig) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config_io.to_json(Config(name="run", data=DataConfig(sources=sources))))
    (folder / "run.lock").touch()
    return folder


def held_out(corpus: Path) -> list[tuple[str, str]]:
    found = dataset.load(corpus).documents("validation")
    return [(one.path, one.text) for one in found if one.text.strip()]


def test_files_of_a_run_are_all_that_it_holds_out(corpus: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", SourceConfig(corpus=str(corpus)))
    assert [(one.path, one.text) for one in source_files.files(Data(run=run), "any")] == held_out(corpus)


def test_a_run_of_one_language_gives_files_of_that(corpus: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", SourceConfig(corpus=str(corpus), languages=("Go",)))
    found = source_files.files(Data(run=run), "any")
    assert {one.language for one in found} == {"Go"}
    assert [one.path for one in found] == [path for path, _ in held_out(corpus) if path.endswith(".go")]


def test_a_checkpoint_stands_for_its_run(corpus: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", SourceConfig(corpus=str(corpus)))
    assert source_files.run_of(run / "checkpoints" / "pretrain" / "160", "any") == run
    with pytest.raises(UserError, match="is no run"):
        source_files.run_of(tmp_path, "any")
    with pytest.raises(UserError, match="a server is no run"):
        source_files.run_of(None, "any")


def test_of_many_files_whole_stretches_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "MOST", 128)
    for number in range(500):
        (tmp_path / f"{number:03}.py").write_text(f"x = {number}\n")
    found = [int(one.path[:3]) for one in source_files.files(Data(given=str(tmp_path)), "any")]
    assert len(found) == 128
    assert found == sorted(found)
    starts = [number for number in found if number - 1 not in found]
    assert all(start % 64 == 0 for start in starts)
    assert found == [int(one.path[:3]) for one in source_files.files(Data(given=str(tmp_path)), "any")]


def test_what_is_no_text_is_left_out_and_long_files_are_cut(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x = 1\r\n")
    (tmp_path / "b.py").write_bytes(b"\x7fELF\x00\xff")
    (tmp_path / "c.py").write_text("y" * (source_files.LARGEST + 9))
    found = source_files.files(Data(given=str(tmp_path)), "any")
    assert [(one.path, len(one.text)) for one in found] == [("a.py", 6), ("c.py", source_files.LARGEST)]
