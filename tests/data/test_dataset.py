"""Corpora on disk and on object storage: what is published, and what a reader refuses."""

import json
from pathlib import Path

import pytest
from etils import epath

from codelm import cli
from codelm.errors import UserError
from data import dataset
from data.document import Document
from tests.data.made_corpus import module, repositories


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repositories(tmp_path_factory.mktemp("code"), count=3, files=3)


@pytest.fixture(scope="module")
def corpus(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "corpus"
    assert cli.main(["data", "build", "--source", f"repositories:{code}", "--out", str(out), "--workers", "1"]) == 0
    return out


def test_documents_come_back_as_they_were(corpus: Path) -> None:
    loaded = dataset.load(corpus)
    documents = [*loaded.documents("train"), *loaded.documents("validation")]
    assert len(documents) == len(loaded) == 9
    assert {d.text for d in documents} == {module(1000 * r + f) for r in range(3) for f in range(3)}
    first = documents[0]
    assert isinstance(first, Document)
    assert (first.language, first.licence, first.path) == ("Python", "MIT", "module_0.py")
    assert first.provenance
    loaded.verify()


def test_a_wrong_split_is_told_the_nearest(corpus: Path) -> None:
    with pytest.raises(UserError, match="has no split 'valid'; nearest: 'validation'"):
        dataset.load(corpus).split("valid")


def test_what_is_not_whole_is_refused(corpus: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in corpus.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    folder = copy("no manifest")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no corpus at .*interrupted"):
        dataset.load(folder)
    folder = copy("newer")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    with pytest.raises(UserError, match="has version 2; this codelm reads version 1"):
        dataset.load(folder)
    folder = copy("no shard")
    next(folder.glob("*train*")).unlink()
    with pytest.raises(UserError, match="missing or cut short"):
        dataset.load(folder)
    folder = copy("torn drops")
    (folder / "drops.jsonl.zst").write_bytes(b"")
    with pytest.raises(UserError, match=r"drops.jsonl.zst is corrupt"):
        dataset.load(folder).verify()


def test_a_corpus_is_built_on_and_read_from_object_storage(
    code: Path, corpus: Path, gcs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CACHE", str(tmp_path / "cache"))
    out = f"{gcs}/made/corpus"
    argv = ["data", "build", "--source", f"repositories:{code}", "--out", out, "--work", str(tmp_path / "work")]
    assert cli.main([*argv, "--workers", "1"]) == 0
    there, here = dataset.load(out), dataset.load(corpus)
    there.verify()
    for split in ("train", "validation"):
        assert list(there.documents(split)) == list(here.documents(split))
    assert cli.main(["data", "report", out]) == 0
    assert (epath.Path(out) / "report.html").exists()
    assert not (tmp_path / "work").exists()


def test_what_was_made_on_object_storage_is_published_here(gcs: str, tmp_path: Path) -> None:
    staged, out = epath.Path(f"{gcs}/staged/dataset"), epath.Path(tmp_path / "corpora" / "c")
    for content in ("one", "two"):
        (staged / "manifest.json").write_text(content)
        dataset.publish(staged, out)
        assert {file.name: file.read_text() for file in out.iterdir()} == {"manifest.json": content}
        (out / "of the old one").write_text("")
    assert [file.name for file in out.parent.iterdir()] == ["c"]


def test_on_object_storage_the_manifest_comes_last_and_goes_first(
    gcs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a publication that was killed half way is not taken for a corpus, nor for the old one."""
    staged, out = epath.Path(tmp_path / "staged"), epath.Path(f"{gcs}/order/corpus")
    for name in ("manifest.json", "dataset_info.json", "a.array_record"):
        (out / name).write_text("old")
    staged.mkdir()
    for name in ("a.array_record", "dataset_info.json", "drops.jsonl.zst", "manifest.json", "z.array_record"):
        (staged / name).write_text(name)
    gone: list[str] = []
    unlink = type(out).unlink
    monkeypatch.setattr(type(out), "unlink", lambda file: gone.append(file.name) or unlink(file))
    seen: list[list[str]] = []

    class Watched(type(out)):
        def copy(self, dst: epath.Path, overwrite: bool = False) -> epath.Path:  # pyrefly: ignore
            seen.append(sorted(file.name for file in out.iterdir()) if out.exists() else [])
            return super().copy(dst, overwrite=overwrite)

    dataset.publish(Watched(staged), out)
    assert seen[0] == [], "the old corpus is gone, before anything of the new one is there"
    assert gone[0] == "manifest.json"
    assert "manifest.json" not in [name for names in seen for name in names]
    assert sorted(file.name for file in out.iterdir()) == sorted(file.name for file in staged.iterdir())
