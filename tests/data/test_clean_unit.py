"""What a document is known by once it is clean."""

import dataclasses

import pytest

from codelm.corpus_config import CorpusConfig, DedupConfig, QualityConfig
from data import clean_unit
from data.document import Document
from data.tally import Tally


def described(text: str, path: str = "a.py", corpus: CorpusConfig | None = None):
    document = Document(text, path, "r", "Python", "MIT", "", 3, 4)
    return clean_unit.describe(document, corpus or CorpusConfig(), Tally())


def test_exact_copies_are_told_but_for_white_space() -> None:
    exact = [described(text)[0]["exact"].tolist() for text in ("a = 1\nb = 2\n", "a =  1\r\n\tb = 2", "a = 1\nb = 3\n")]
    assert exact[0] == exact[1] != exact[2]
    index, _ = described("é = 1")
    assert (index["size"], index["stars"], index["date"]) == (6, 3, 4)


def test_signatures_are_only_made_where_they_are_used() -> None:
    text = "some words that are enough for a shingle or two"
    assert described(text)[1].dtype == "uint8"
    assert described(text)[1].shape == (256,)
    whole = CorpusConfig(dedup=DedupConfig(level="repository", permutations=64))
    assert described(text, corpus=whole)[1].dtype == "uint32"
    assert described(text, corpus=whole)[1].shape == (64,)
    assert described(text, corpus=CorpusConfig(skip=("near_duplicates",)))[1].shape == (0,)
    assert described("", corpus=CorpusConfig())[1].shape == (256,), "no words at all"


def test_the_plainest_path_comes_first() -> None:
    order = [
        "io.py",
        "a_longer_name.py",
        "src/io.py",
        "src/lib/io.py",
        "io_backup.py",
        "src/io (1).py",
        "vendor/io.py",
        "src/third_party/io copy.py",
    ]
    shuffled = [order[n] for n in (3, 7, 0, 5, 1, 6, 2, 4)]
    assert sorted(shuffled, key=clean_unit.plainness, reverse=True) == order


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"sources": ("packages",)}, True),
        ({"validation": 0.5}, True),
        ({"dedup": DedupConfig(threshold=0.9, keep=("path",))}, True),
        ({"dedup": DedupConfig(shingle=7)}, False),
        ({"languages": ("Go",)}, False),
        ({"skip": ("lines",)}, False),
        ({"cut_copyright": True}, False),
        ({"quality": QualityConfig(max_lines=3)}, False),
    ],
)
def test_parts_are_cleaned_again_only_where_cleaning_changed(changed: dict, same: bool) -> None:
    before = clean_unit.Recipe(CorpusConfig()).fingerprint()
    after = clean_unit.Recipe(dataclasses.replace(CorpusConfig(), **changed)).fingerprint()
    assert (before == after) == same


def test_parts_are_cleaned_again_when_a_named_file_changed(tmp_path) -> None:
    names = tmp_path / "names"
    recipe = clean_unit.Recipe(CorpusConfig(opt_out=str(names)))
    names.write_text("a/b")
    before = recipe.fingerprint()
    names.write_text("a/c")
    assert recipe.fingerprint() != before
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "x.jsonl").write_text("{}")
    decontaminated = clean_unit.Recipe(CorpusConfig(), str(tmp_path / "benchmarks"))
    first = decontaminated.fingerprint()
    (tmp_path / "benchmarks" / "x.jsonl").write_text("{ }")
    assert len({first, decontaminated.fingerprint(), clean_unit.Recipe(CorpusConfig()).fingerprint()}) == 3
