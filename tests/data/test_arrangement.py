"""What stands in which row: little padding, shares by hand, files of a repository in the order asked for."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codelm import tokenizer_training
from codelm.data_config import FimConfig, RepositoryConfig, SourceConfig
from codelm.errors import UserError
from data import file_order
from data.arrangement import graph
from data.loader import Loader, make
from data.rows import PADDING
from data.token_store import TokenStore
from tests.data.batches import Batches, build_corpus
from tests.data.standard_library import texts

REPOSITORIES = SourceConfig(level="repository")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The running Python's standard library as a corpus, a tokenizer learnt on some of it, and a cache."""
    folder = tmp_path_factory.mktemp("library")
    rows = [{"repo_name": "python", "path": path, "content": text} for path, text in texts().items()]
    corpus = build_corpus(folder, "library", rows)
    lines = [line for row in rows[::12] for line in row["content"].splitlines(True)]
    (folder / "tokenizer.model").write_bytes(tokenizer_training.train(lines, 2048))
    return corpus, folder / "tokenizer.model", folder / "cache"


@pytest.mark.parametrize("seq_len", [2048, 8192])
def test_the_standard_library_has_little_padding(
    library: tuple[Path, Path, Path], batches: Batches, seq_len: int
) -> None:
    """At most 1 %, with holes and paths on as by default: over rows from all over an epoch."""
    corpus, path, cache = library
    config = batches.config(seq_len=seq_len)
    config = dataclasses.replace(
        config,
        tokenizer=dataclasses.replace(config.tokenizer, path=str(path), vocab_size=2048),
        model=dataclasses.replace(config.model, vocab_size=2048),
    )
    loader = make(config, corpus, cache=cache, workers=1)
    (rows,) = loader.strata
    assert rows.stratum.dropped == 0
    sampled = range(0, rows.stratum.rows, 1 + rows.stratum.rows // 80)
    padding = [np.mean(loader.row(number).arrays["segment_ids"] == PADDING) for number in sampled]
    assert np.mean(padding) <= 0.01


def shares(loader: Loader) -> dict[str, float]:
    return {rows.name: rows.stratum.share for rows in loader.strata}


def tokens_by_language(store: TokenStore) -> dict[str, int]:
    return {
        name: int(store.documents["tokens"][store.documents["language"] == code].sum())
        for code, name in enumerate(store.languages)
    }


@pytest.mark.parametrize("temperature", [2.0, 5.0, 1e6])
def test_temperature_evens_out_languages(batches: Batches, temperature: float) -> None:
    loader = batches.loader(temperature=temperature)
    counts = tokens_by_language(loader.strata[0].writer.store)
    powers = {name: count ** (1 / temperature) for name, count in counts.items()}
    expected = {f"corpus {name}": power / sum(powers.values()) for name, power in powers.items()}
    assert shares(loader) == pytest.approx(expected)
    if temperature == 1e6:
        assert max(shares(loader).values()) == pytest.approx(1 / len(counts), rel=1e-3)


def test_a_stratum_holds_its_language_only(batches: Batches) -> None:
    loader = batches.loader(temperature=2.0)
    for number in range(60):
        row = loader.row(number)
        files = [row.writer.store.names(file[0]) for document in row.documents for file in document.files]
        assert {f"corpus {names.language}" for names in files} == {row.source}


def test_long_documents_are_drawn_oftener(batches: Batches) -> None:
    loader = batches.loader(long_tokens=500, long_weight=4.0)
    sizes = loader.strata[0].writer.store.documents["tokens"].astype(int)
    long, short = sizes[sizes >= 500].sum(), sizes[sizes < 500].sum()
    expected = {"corpus long": 4 * long / (4 * long + short), "corpus short": short / (4 * long + short)}
    assert shares(loader) == pytest.approx(expected)


def test_languages_and_length_together(batches: Batches) -> None:
    """Languages keep the shares that temperature gives them; within one, long documents have more of it."""
    loader = batches.loader(temperature=2.0, long_tokens=500, long_weight=4.0)
    plain = shares(batches.loader(temperature=2.0))
    found: dict[str, float] = {}
    for name, share in shares(loader).items():
        found[name.rsplit(" ", 1)[0]] = found.get(name.rsplit(" ", 1)[0], 0.0) + share
    assert found == pytest.approx(plain)


def test_only_the_languages_asked_for(batches: Batches) -> None:
    loader = batches.loader(SourceConfig(languages=("Go", "JavaScript")))
    (rows,) = loader.strata
    counts = tokens_by_language(rows.writer.store)
    assert rows.stratum.tokens == counts["Go"] + counts["JavaScript"]


# ---- repositories ----


def windows(batches: Batches, **data: Any) -> list[list[str]]:
    """The paths of the files in each document of several."""
    loader = batches.loader(REPOSITORIES, **{"seq_len": 4096, "fim": FimConfig(rate=0.0), **data})
    (rows,) = loader.strata
    found = []
    for number in range(rows.stratum.rows):
        for document in loader.row(number).documents:
            names = [rows.writer.store.names(file) for file, _, _ in document.files]
            assert len({name.repository for name in names}) == 1
            if len(names) > 1:
                found.append([name.path for name in names])
    return found


def test_files_by_path(batches: Batches) -> None:
    found = windows(batches, repository=RepositoryConfig(order="path"))
    assert found
    assert all(paths == sorted(paths) for paths in found)


def test_files_by_imports(batches: Batches) -> None:
    found = [paths for paths in windows(batches, repository=RepositoryConfig(order="imports")) if len(paths) > 5]
    assert len(found) > 4
    for paths in found:
        for before, after in (("lib/base.py", "lib/util.py"), ("web/index.js", "web/parts/row.js")):
            if before in paths and after in paths:
                assert paths.index(before) < paths.index(after)


def test_tests_beside_what_they_test(batches: Batches) -> None:
    for order in ("random", "path", "imports"):
        how = RepositoryConfig(order=order, tests_beside=True)  # type: ignore[arg-type]
        both = [
            paths for paths in windows(batches, repository=how) if {"lib/util.py", "tests/test_util.py"} <= set(paths)
        ]
        assert len(both) > 3
        assert all(paths.index("tests/test_util.py") == paths.index("lib/util.py") + 1 for paths in both)


def test_random_order_is_random_and_the_same_again(batches: Batches) -> None:
    first = windows(batches)
    assert first == windows(batches)
    assert first != windows(batches, seed=1)
    assert len({tuple(paths) for paths in first}) > 3


def test_imports_bring_dependencies_into_the_window(batches: Batches) -> None:
    """More rows have a file after one that it imports than by chance."""

    def satisfied(order: str) -> int:
        how = RepositoryConfig(order=order)  # type: ignore[arg-type]
        loader = batches.loader(REPOSITORIES, seq_len=1024, fim=FimConfig(rate=0.0), repository=how)
        count = 0
        for number in range(loader.strata[0].stratum.rows):
            for document in loader.row(number).documents:
                names = [loader.strata[0].writer.store.names(file) for file, _, _ in document.files]
                count += file_order.satisfied(range(len(names)), graph(names))
        return count

    assert satisfied("imports") > satisfied("random")


def test_a_short_file_names_itself(batches: Batches) -> None:
    folder = batches.loader(seq_len=200).strata[0].arrangement.folder
    path = folder / "parts.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"parts.npy is missing or cut short: delete .*, it is made again"):
        batches.loader(seq_len=200)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"parts.npy is corrupt: delete .*, it is made again"):
        batches.loader(seq_len=200)
    (folder / "manifest.json").write_text("")
    with pytest.raises(UserError, match=r"manifest.json is missing or corrupt: delete"):
        batches.loader(seq_len=200)


def test_it_is_made_once(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import arrangement

    first = batches.loader()
    monkeypatch.setattr(arrangement, "_Maker", None)
    assert batches.loader().strata[0].arrangement.folder == first.strata[0].arrangement.folder
    with pytest.raises(TypeError):
        batches.loader(seq_len=300)
