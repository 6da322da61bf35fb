"""Held-out measures against logits and texts taken apart by hand, on one device and on a mesh."""

import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codelm.config import Config, resolve
from codelm.config_io import to_json
from codelm.data_config import FimConfig, SourceConfig, SpansConfig
from codelm.errors import UserError
from codelm.model import Transformer
from codelm.tokenizer import Tokenizer
from codelm.train_config import EvaluationConfig
from data import dataset, loader
from data.loader import Loader, Row
from data.writing import Written
from tests.data.batches import EVERY_CHOOSER, NO_HOLES, Batches, build_corpus, documents
from tests.data.unwritten import pieces
from tests.train.conftest import chats, config_of
from train import held_out, infilling, position_buckets
from train.held_out import HeldOut

logits_of = jax.jit(Transformer.__call__)
AXES = ("data", "fsdp", "expert", "tensor", "context")
PSM = FimConfig(0.7, spm=0.0, spans=SpansConfig(characters=0, syntax=2, several=1))


def make(batches: Batches, config: Config, **more: object) -> HeldOut:
    return held_out.make(config, batches.corpus, batches.tokenizer, batches.cache, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(batches: Batches) -> HeldOut:
    """More batches than there is text, so that rows come a second time."""
    return make(batches, config_of(batches, evaluation=40, fim=PSM))


@pytest.fixture(scope="module")
def measured(made: HeldOut, model: Transformer) -> dict[str, float]:
    return made.measure(model)


def rows_of(made: Loader) -> Iterator[Row]:
    """The first epoch of a source."""
    (rows,) = made.strata
    return map(made.row, range(rows.stratum.rows))


def segments(row: Row, model: Transformer) -> Iterator[tuple[Written, list[int], np.ndarray]]:
    """Of each document in a row, its targets and the loss of each from the full logits, in float64."""
    arrays = row.arrays
    logits = logits_of(model, *(arrays[name][None] for name in ("tokens", "positions", "segment_ids")))
    wide = np.asarray(logits[0], np.float64)
    losses = np.log(np.exp(wide).sum(-1)) - np.take_along_axis(wide, arrays["targets"][:, None], -1)[:, 0]
    for number, document in enumerate(row.documents):
        inside = arrays["segment_ids"] == number
        yield document, arrays["targets"][inside].tolist(), losses[inside]


# ---- loss and bits ----


def test_loss_and_bits_are_those_of_the_text(
    batches: Batches, made: HeldOut, measured: dict[str, float], model: Transformer
) -> None:
    """Every held-out row once; the end counts as a token and has no bytes, what is only read has neither."""
    nats, size, tokens, end = Counter[str](), Counter[str](), 0, batches.tokenizer.special["<|endoftext|>"]
    for row in rows_of(made.loader):
        for document, targets, losses in segments(row, model):
            language = row.writer.store.names(document.files[0][0]).language
            nats[language] += losses.sum()
            size[language] += len(batches.tokenizer.decode_bytes(i for i in targets if i != end))
            tokens += len(targets)
    assert measured["held_out/loss"] == pytest.approx(nats.total() / tokens, rel=1e-5)
    assert measured["held_out/bits_per_byte"] == pytest.approx(nats.total() / math.log(2) / size.total(), rel=1e-5)
    wanted = {
        f"held_out/bits_per_byte/{name}": nats[name] / math.log(2) / size[name] for name in size if size[name] > 1000
    }
    assert set(wanted) >= {f"held_out/bits_per_byte/{name}" for name in ("Python", "JavaScript", "Markdown", "Text")}
    found = {name: value for name, value in measured.items() if name.startswith("held_out/bits_per_byte/")}
    assert found == pytest.approx(wanted, rel=1e-5)


def test_loss_by_position_is_that_of_the_text(made: HeldOut, measured: dict[str, float], model: Transformer) -> None:
    """Positions count from the beginning of what is in the row of a document; rows have 128."""
    edges = (0, 8, 16, 32, 64, 128)
    losses: list[list[float]] = [[] for _ in edges[1:]]
    for row in rows_of(made.loader):
        for _, _, of_document in segments(row, model):
            for into, low, high in zip(losses, edges, edges[1:], strict=False):
                into += of_document[low:high].tolist()
    assert all(losses)
    wanted = {f"held_out/position/{low}": np.mean(some) for low, some in zip(edges, losses, strict=False)}
    found = {name: value for name, value in measured.items() if name.startswith("held_out/position/")}
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("seq_len", "first"),
    [
        (1, [0]),
        (8, [0, 1, 2, 4]),
        (100, [0, 4, 8, 16, 32, 64]),
        (256, [0, 16, 32, 64, 128]),
        (8192, [0, 512, 1024, 2048, 4096]),
        (131_072, [0, *(512 << n for n in range(8))]),
    ],
)
def test_buckets_of_positions_double(seq_len: int, first: list[int]) -> None:
    assert position_buckets.starts(seq_len).tolist() == first


def test_a_bucket_without_tokens_is_left_out() -> None:
    """The last has none that count, padding stands at position 0 and does not."""
    losses, positions = np.float32([[1, 2, 3, 4, 50, 60]]), np.int32([[0, 1, 0, 1, 4, 0]])
    counted = np.array([[True, True, True, True, False, False]])
    sums = position_buckets.sums(*map(jnp.asarray, (losses, counted, positions, position_buckets.starts(8))))
    found = position_buckets.metrics(8, np.asarray(sums).sum(axis=0))
    assert found == {"held_out/position/0": 2.0, "held_out/position/1": 3.0}
    assert position_buckets.of_line({**found, "held_out/loss": 2.5}) == {0: 2.0, 1: 3.0}


def as_family(name: str, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the special tokens that another family begins and ends a document with."""
    spare = [tokenizer.special[f"<|spare_{n}|>"] for n in range(2)]
    return dataclasses.replace(tokenizer, special={**tokenizer.special, "<s>": spare[0], "</s>": spare[1]})


@pytest.mark.parametrize(
    ("family", "level"),
    [
        ("codelm", "file"),
        ("codelm", "repository"),
        ("qwen2.5-coder", "repository"),
        ("codellama", "file"),
        ("codestral", "repository"),
    ],
)
def test_every_byte_of_a_document_is_counted_once(batches: Batches, family: str, level: str) -> None:
    """Cut documents, letters that are bytes, spaces and newlines of the format: per file what its text has in UTF-8."""
    config = batches.config(SourceConfig(level=level), seq_len=128, fim=NO_HOLES, metadata=0.0)  # type: ignore[arg-type]
    config = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, family=family))
    tokenizer = as_family(family, batches.tokenizer)
    made = loader.make(config, batches.corpus, tokenizer, split="validation", cache=batches.cache, workers=1)
    counted: dict[tuple[str, str], int] = defaultdict(int)
    cut = 0
    for row in rows_of(made):
        for document in row.documents:
            size, files = held_out.source_bytes(document, row.writer), held_out._files(document)
            assert (size >= 0).all()
            own = slice(len(size) - document.ahead)  # without the token of the next segment
            for n, (number, start, _) in enumerate(document.files):
                names = row.writer.store.names(number)
                counted[names.repository, names.path] += int(size[own][files[own] == n].sum())
                cut += start > 0
    found = dataset.load(batches.corpus).documents("validation")
    assert counted == {(document.repository, document.path): len(document.text.encode()) for document in found}
    assert cut > 5


def test_a_file_in_a_repository_counts_in_its_own_language(batches: Batches) -> None:
    made = make(batches, config_of(batches, SourceConfig(level="repository"), evaluation=60, fim=NO_HOLES))
    sums = np.zeros(held_out._GROUPS)
    for batch in made.text:
        inside = batch["groups"] >= 0
        sums += np.bincount(batch["groups"][inside], batch["bytes"][inside], held_out._GROUPS)
    texts = Counter[str]()
    for document in dataset.load(batches.corpus).documents("validation"):
        texts[document.language] += len(document.text.encode())
    for language, size in zip(made.languages, sums, strict=False):
        assert size == pytest.approx(texts[language], rel=0.03), "but for tokens only read, or learnt twice at a cut"


def test_the_rare_languages_have_one_group(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(batches, evaluation=3, fim=NO_HOLES)
    before = make(batches, config)
    monkeypatch.setattr(held_out, "MOST_LANGUAGES", 2)
    after = make(batches, config)
    assert after.languages == before.languages[:2]
    for one, other in zip(before.text, after.text, strict=True):
        np.testing.assert_array_equal(np.minimum(one["groups"], 2), other["groups"])


# ---- middles ----


def middles_by_sentinels(ids: list[int], tokenizer: Tokenizer) -> list[bool]:
    """From the ids alone: behind fim_middle, or behind a mask that comes a second time, and the ends; not the marks."""
    inside, seen, found = False, set[str](), []
    names = {i: name.strip("<|>") for name, i in tokenizer.special.items()}
    for i in ids:
        name = names.get(i, "")
        opens = name == "fim_middle" or (name.startswith("mask_") and name != "mask_end" and name in seen)
        found.append(inside and not opens)
        inside = inside or opens
        seen.add(name)
    return found


def test_the_loss_of_middles_is_over_what_fills_holes(
    batches: Batches, made: HeldOut, measured: dict[str, float], model: Transformer
) -> None:
    assert {name for name in measured if "fim_loss" in name} == {
        f"held_out/fim_loss/{chooser}" for chooser in ("syntax", "several")
    }
    fell_back = 0
    for chooser in ("syntax", "several"):
        config = config_of(batches, fim=held_out.only(PSM, chooser), metadata=0.0)
        again = loader.make(config, batches.corpus, batches.tokenizer, split="validation", cache=batches.cache)
        total, count = 0.0, 0
        for row in rows_of(again):
            for document, targets, losses in segments(row, model):
                (hole,) = document.holes
                fell_back += bool(hole.fallback)
                if hole.mode and not hole.fallback:
                    inside = middles_by_sentinels([document.ids[0], *targets], batches.tokenizer)[1:]
                    assert inside[-1], "the end counts"
                    total, count = total + losses[inside].sum(), count + sum(inside)
        assert count > 200
        assert measured[f"held_out/fim_loss/{chooser}"] == pytest.approx(total / count, rel=1e-5)
    assert fell_back > 5, "there is no grammar of Markdown, and its middles do not count"


def test_a_middle_that_follows_its_prefix_without_a_mark_counts_alone(batches: Batches) -> None:
    """Suffix first: what counts, put behind the prefix and before the suffix, is the document."""
    fim = FimConfig(0.5, spm=1.0, empty=1.0)
    made = make(batches, config_of(batches, fim=fim))
    (batch, *_), checked = made.middles["characters"], 0
    for n in range(len(batch["tokens"])):
        for segment in range(batch["segment_ids"][n].max() + 1):
            inside = batch["segment_ids"][n] == segment
            targets, counts = batch["targets"][n][inside], batch["groups"][n][inside] == 0
            content = dict(pieces([int(batch["tokens"][n][inside][0]), *targets.tolist()], batches.tokenizer))
            middle = batches.tokenizer.decode_bytes(targets[counts])
            assert counts.sum() > 1
            assert counts[-1]
            assert middle
            assert content["fim_middle"].endswith(middle)
            checked += content["fim_middle"] != middle
    assert checked > 3


def test_without_holes_in_training_there_is_no_loss_of_middles(batches: Batches) -> None:
    assert not make(batches, config_of(batches, fim=NO_HOLES)).middles
    assert held_out.choosers(config_of(batches, fim=FimConfig(spans=EVERY_CHOOSER))) == [
        *("characters", "lines", "tokens", "syntax", "causal", "several")
    ]


# ---- meshes, compiling, what is held out ----


def test_a_mesh_measures_the_same(batches: Batches, model: Transformer) -> None:
    """Rows, width, vocabulary and sequence split; each process would make the rows it holds."""
    config, mesh = config_of(batches, evaluation=1, fim=PSM), jax.make_mesh((1, 2, 1, 2, 2), AXES)
    alone = make(batches, config).measure(model)
    with jax.set_mesh(mesh):
        on_all = jax.device_put(model, jax.sharding.NamedSharding(mesh, jax.P()))
        assert make(batches, config, mesh=mesh).measure(on_all) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_processes_measure_the_same_together(batches: Batches, model: Transformer, tmp_path: Path) -> None:
    """Two under jax.distributed, each with its own rows; infilling each does in whole."""
    config = config_of(batches, evaluation=2, fim=PSM)
    config = dataclasses.replace(resolve(config), evaluation=EvaluationConfig(2, infill_examples=3, infill_tokens=16))
    (tmp_path / "config.json").write_text(to_json(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        told: dict[str, Any] = {"address": f"127.0.0.1:{probe.getsockname()[1]}", "processes": 2}
    told |= {"config": str(tmp_path / "config.json"), "corpus": str(batches.corpus), "cache": str(batches.cache)}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    started = []
    for process in range(2):
        own = json.dumps(told | {"process": process, "out": str(tmp_path / f"{process}.json")})
        argv = [sys.executable, "-m", "tests.train.held_out_process", own]
        started.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True))
    for running in started:
        _, errors = running.communicate(timeout=300)
        assert running.returncode == 0, errors
    (found, texts), other = (json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2))
    assert other == [found, texts]
    assert found.pop("rows") == 4
    metrics, filled = infilling.make(config, batches.corpus, batches.tokenizer).measure(model)
    assert found == pytest.approx({**make(batches, config).measure(model), **metrics}, rel=1e-5)
    assert texts == [one.completion for one in filled]


def test_it_is_compiled_once_for_all_kinds(batches: Batches, model: Transformer) -> None:
    made = make(batches, config_of(batches, evaluation=3, fim=PSM, batch_size=4))
    before = held_out._sums_of_rows._cache_size()
    first = made.measure(model)
    assert held_out._sums_of_rows._cache_size() == before + 1
    assert made.measure(model) == first
    assert held_out._sums_of_rows._cache_size() == before + 1


def test_the_text_is_the_same_every_time(batches: Batches) -> None:
    config = config_of(batches, fim=NO_HOLES)
    for one, other in zip(make(batches, config).text, make(batches, config).text, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_no_more_batches_than_there_is_text(made: HeldOut, batches: Batches) -> None:
    rows = made.loader.strata[0].stratum.rows
    assert len(made.text) == -(-rows // 8) < 40
    assert sum(int((batch["groups"] >= 0).any(axis=1).sum()) for batch in made.text) == rows
    assert made.describe(40).endswith("(evaluation.batches=40, but no more text is held out)")
    assert made.describe(2).startswith(f"held out: {len(made.text)} batches of 8 x 128 tokens of ")


def test_unigram_loss_by_hand(batches: Batches, made: HeldOut) -> None:
    seen = batches.loader(seq_len=128, fim=NO_HOLES)
    counts = Counter(i for step in range(2) for i in targets(seen.row(n) for n in range(8 * step, 8 * step + 8)))
    total = sum(counts.values()) + batches.tokenizer.vocab_size
    expected = [-math.log((counts[i] + 1) / total) for i in targets(rows_of(made.loader))]
    assert made.unigram_loss(seen, 2) == pytest.approx(sum(expected) / len(expected))


def targets(rows: Iterator[Row]) -> Iterator[int]:
    for row in rows:
        for document in row.documents:
            yield from document.ids[1:]


def test_sources_without_held_out_text_are_left_out(batches: Batches, tmp_path: Path) -> None:
    nothing = build_corpus(tmp_path, "nothing", documents(1))
    config = config_of(
        batches,
        SourceConfig(weight=(0.5, 1.0), languages=("Go", "Rust")),
        SourceConfig(corpus=str(nothing)),
        chats(tmp_path),
        boundaries=(10,),
        fim=NO_HOLES,
    )
    made = make(batches, config)
    assert [rows.name for rows in made.loader.strata] == ["corpus"]
    assert made.loader.strata[0].stratum.documents == 7, "those in Go; of Rust there are none"
    for sources in ((SourceConfig(corpus=str(nothing)),), (chats(tmp_path), SourceConfig(weight=(0.0,)))):
        with pytest.raises(UserError, match=r"^no text is held out to evaluate on: build the corpus with corpus.valid"):
            make(batches, dataclasses.replace(config, data=dataclasses.replace(config.data, sources=sources)))
    with pytest.raises(UserError, match=r"^no file in the languages of data.sources is held out"):
        make(batches, config_of(batches, SourceConfig(languages=("Rust",))))
