"""Bits and losses of texts are those that plain NumPy finds in the model's scores."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from codelm.errors import UserError
from codelm.huggingface_tokenizer import from_json
from codelm.lm import LM
from codelm.model import create
from codelm.tokenizer import Tokenizer
from experiments.evals import harness, likelihood
from experiments.evals.catalogue import Data, make
from experiments.evals.rows import Measured
from experiments.evals.targets import Local
from tests.codelm.test_tokenizer import byte_level, metaspace
from tests.experiments.evals.fakes import Says, right
from tests.infer.models import CONTEXT, tiny_lm, tokenizer

WORDS = "def add(first, second):\n    return first + second  # naïve 漢字 😀\n"
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "sentencepiece": tokenizer,  # nothing before a text
    "byte level": lambda: from_json(byte_level(), ""),  # a token before it
    "metaspace": lambda: from_json(metaspace(), ""),  # a space
}


def speaking(spoken: Tokenizer) -> LM:
    plain = tiny_lm()
    config = dataclasses.replace(plain.config, vocab_size=spoken.vocab_size)
    return LM(config, create(config, 0), spoken, "codelm")


@pytest.fixture(scope="module", params=TOKENIZERS)
def local(request: pytest.FixtureRequest) -> Iterator[Local]:
    target = Local(speaking(TOKENIZERS[request.param]()), "tiny")
    yield target
    target.close()


def log_softmax(scores: np.ndarray) -> np.ndarray:
    high = scores.astype(np.float64) - scores.max(axis=-1, keepdims=True)
    return high - np.log(np.exp(high).sum(axis=-1, keepdims=True))


def plainly(lm: LM, text: str) -> list[tuple[float, bytes]]:
    """Nats and bytes of each token that is predicted, in windows: each token has at least half a context before it, or
    all there is."""
    assert lm.tokenizer is not None
    ids = lm.tokenizer.encode_document(text)
    nats: list[float] = []
    while len(nats) < len(ids) - 1:
        start = max(len(nats) - CONTEXT // 2, 0)
        window = ids[start : start + CONTEXT]
        found = log_softmax(lm.logits([window])[0])
        nats += [-found[at - 1, window[at]] for at in range(len(nats) + 1 - start, len(window))]
    start, spelled = len(lm.tokenizer.start), [lm.tokenizer.pieces[token] for token in ids]
    if lm.tokenizer.leading_space and len(ids) > start:  # which is no part of the text
        spelled[start] = spelled[start].removeprefix(b" ")
    return [(nats[at - 1], spelled[at]) for at in range(max(start, 1), len(ids))]


@pytest.mark.parametrize("text", [WORDS, 9 * WORDS, "é", " 漢 begins with a space", "x"])
def test_losses_are_those_of_the_models_scores(local: Local, text: str) -> None:
    losses, wanted = local.losses(text), plainly(local.lm, text)
    np.testing.assert_allclose(losses.nats, [nats for nats, _ in wanted], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("text", [WORDS, 9 * WORDS, "é", " 漢 begins with a space", "\tx", ""])
def test_each_token_ends_where_its_bytes_do(local: Local, text: str) -> None:
    losses, wanted, content = local.losses(text), plainly(local.lm, text), text.encode()
    spelled = [content[a:b] for a, b in pairwise([losses.begin, *losses.ends])]
    assert spelled == [piece for _, piece in wanted]
    assert not losses.ends or losses.ends[-1] == len(content)


def measured(spec: str, target: Local, folder: Path) -> Measured:
    return harness.measure(make(spec, Data()), target, harness.Settings(), folder, None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, text in {
        "a/one.py": 9 * WORDS,
        "a/two.py": WORDS,
        "b/three.js": "let é = 1;\n",
        "b/blank.py": "\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_bits_per_byte_are_all_bits_by_all_bytes_that_are_predicted(local: Local, source: Path, tmp_path: Path) -> None:
    found = measured(f"bits-per-byte:{source}", local, tmp_path / "out")
    texts = {"Python": [9 * WORDS, WORDS], "JavaScript": ["let é = 1;\n"]}
    tokens = {name: [token for text in each for token in plainly(local.lm, text)] for name, each in texts.items()}
    tokens["all"] = tokens["Python"] + tokens["JavaScript"]
    figures = {name: by_value["bits_per_byte"] for name, by_value in found.result["slices"]["language"].items()}
    figures["all"] = found.result["figures"]["bits_per_byte"]
    for name, figure in figures.items():
        size = sum(len(piece) for _, piece in tokens[name])
        assert figure["value"] == pytest.approx(sum(nats for nats, _ in tokens[name]) / math.log(2) / size, rel=1e-4)


def test_a_document_is_a_file_and_those_after_it_in_its_repository(source: Path) -> None:
    texts = {task.id.split(" ")[1]: task.prompt.prefix for task in make(f"loss-by-position:{source}", Data()).tasks}
    assert texts == {
        "a/a/one.py": 10 * WORDS,
        "a/a/two.py": WORDS,
        "b/b/three.js": "let é = 1;\n",
    }


def test_loss_by_position_is_the_mean_of_each_bucket(local: Local, source: Path, tmp_path: Path) -> None:
    """With a context of 48 there is one bucket, of the documents that fill half of it."""
    found = measured(f"loss-by-position:{source}", local, tmp_path / "out")
    for row in found.rows:
        text = {"one": 10 * WORDS, "two": WORDS, "thr": "let é = 1;\n"}[row.task.rsplit("/")[-1][:3]]
        nats = [nats for nats, _ in plainly(local.lm, text)][: CONTEXT - 1]
        if len(nats) < 32:
            assert row.reason.startswith("not run")
        else:
            assert row.scores == {"nats/0-64": pytest.approx(np.mean(nats), rel=1e-4)}
    assert any(row.scores for row in found.rows)


def test_buckets_double_and_have_figures_from_half_full_on() -> None:
    nats = np.arange(300.0)
    assert likelihood.by_position(nats) == {
        "nats/0-64": pytest.approx(31.5),
        "nats/64-128": pytest.approx(95.5),
        "nats/128-256": pytest.approx(191.5),
    }
    assert "nats/256-512" in likelihood.by_position(np.arange(384.0))
    names = [name for name, _, _ in likelihood.buckets()]
    assert (names[0], names[-1], len(names)) == ("nats/0-64", "nats/65536-131072", 12)


def test_the_same_files_are_taken_every_time_and_no_more_than_so_many(tmp_path: Path) -> None:
    for number in range(likelihood.FILES + 20):
        (tmp_path / f"{number}.py").write_text(f"x = {number}\n")
    one, two = (make(f"bits-per-byte:{tmp_path}", Data()) for _ in range(2))
    assert len(one.tasks) == likelihood.FILES
    assert [task.id for task in one.tasks] == [task.id for task in two.tasks]
    assert one.source == two.source
    (tmp_path / "3.py").write_text("x = 33\n")
    assert make(f"bits-per-byte:{tmp_path}", Data()).source != one.source


def test_a_model_that_tells_no_losses_is_not_run(source: Path, tmp_path: Path) -> None:
    found = measured(f"bits-per-byte:{source}", Says(right), tmp_path / "out")
    assert found.result["not_run"] == 3
    assert not found.result["figures"]


@pytest.mark.parametrize("spec", ["bits-per-byte", "loss-by-position"])
def test_without_a_run_source_files_are_asked_for(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"is no run.*{spec}:FOLDER"):
        make(spec, Data(run=tmp_path))
    (tmp_path / "blank.py").write_text("\n")
    with pytest.raises(UserError, match="no source text"):
        make(f"{spec}:{tmp_path}", Data())
