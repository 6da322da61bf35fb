"""A model that is here: what it is asked, how likely it finds a text, and that it answers the same every time."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codelm import formats
from codelm.config import ModelConfig, dial
from codelm.formats import File
from codelm.lm import LM
from codelm.model import create
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer_training import train
from experiments.evals import rows
from experiments.evals.harness import Settings, measure
from experiments.evals.suite import AS_IS, Outcome, Prompt, Suite, Task, Tools
from experiments.evals.targets import Local
from infer.prompts import prompt_and_ends

LINES = (Path(__file__).read_text() + Path(formats.__file__).read_text()).splitlines(keepends=True)


@pytest.fixture(scope="module")
def lm() -> LM:
    tokenizer = from_proto(train(iter(LINES), 512))
    config = ModelConfig(depth=1, width=32, heads=2, head_dim=16, max_seq_len=128, compute_dtype="float32")
    config = dial(config, tokenizer.vocab_size)
    return LM(config, create(config, 0), tokenizer, "codelm")


@pytest.fixture(scope="module")
def target(lm: LM) -> Iterator[Local]:
    made = Local(lm, "tiny")
    yield made
    made.close()


def plain_nats(lm: LM, ids: list[int]) -> np.ndarray:
    """Of each id after the first, by the whole table of scores."""
    scores = lm.logits([ids])[0].astype(np.float64)
    logprobs = (
        scores
        - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - scores.max(-1, keepdims=True)
    )
    return -logprobs[np.arange(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize("text", ["def f(x):\n    return x\n", "naïve = '…'  # ünïcödé\n"])
def test_losses_are_those_of_the_whole_table(target: Local, lm: LM, text: str) -> None:
    assert lm.tokenizer is not None
    ids = lm.tokenizer.encode_document(text)
    found = target.losses(text)
    np.testing.assert_allclose(found.nats, plain_nats(lm, ids), rtol=1e-4)
    assert list(found.ends) == np.cumsum([len(lm.tokenizer.pieces[i]) for i in ids])[1:].tolist()
    assert found.ends[-1] == len(text.encode())


def test_a_text_of_one_token_has_nothing_to_predict(target: Local) -> None:
    found = target.losses("x")
    assert (len(found.nats), len(found.ends)) == (0, 0)


def test_a_text_longer_than_the_context_has_half_of_one_before_every_token(target: Local, lm: LM) -> None:
    assert lm.tokenizer is not None
    text = "".join(LINES[:40])
    ids = lm.tokenizer.encode_document(text)
    assert len(ids) > 2 * lm.config.max_seq_len
    found = target.losses(text).nats
    assert len(found) == len(ids) - 1
    longest = lm.config.max_seq_len
    first = plain_nats(lm, ids[:longest])
    np.testing.assert_allclose(found[: longest - 1], first, rtol=1e-4)
    start = longest - 1 - longest // 2  # of the second window: predicts the first token that the first one did not
    second = plain_nats(lm, ids[start : start + longest])
    at = longest - 1
    np.testing.assert_allclose(found[at : start + longest - 1], second[at - start :], rtol=1e-4)
    assert all(math.isfinite(value) for value in found)


def test_files_beside_are_read_and_those_that_come_first_go_first(lm: LM) -> None:
    assert lm.tokenizer is not None
    files = [File("far.py", "far = 1\n" * 30), File("near.py", "near = 2\n")]
    repo = formats.Repository(files, "r")
    prompt, _ = prompt_and_ends(lm, "a = ", "\n", 100, path="x.py", repo=repo)
    text = lm.tokenizer.decode(prompt.ids)
    assert len(prompt.ids) <= 100
    assert "near.py" in text
    assert "near = 2" in text
    assert text.count("far = 1") < 30
    assert "far = 1" in text
    assert "a = " in text


def test_a_greedy_measurement_is_the_same_to_the_byte_alone_and_among_others(target: Local, tmp_path: Path) -> None:
    def attempt(task: Task, tools: Tools) -> Outcome:
        said = tools.ask(task.prompt)
        return Outcome(said, {"letters": float(len(said))})

    prompts = [Prompt(f"def f{n}(", "):\n" if n % 2 else None) for n in range(8)]
    tasks = [Task(str(n), prompt) for n, prompt in enumerate(prompts)]
    suite = Suite("holes", 1, "", tasks, attempt, {"letters": "mean"}, "0", AS_IS, 8)
    for at_once in (1, 8):
        measure(suite, target, Settings(at_once=at_once), tmp_path / str(at_once), None)
    for name in (rows.HEADER, rows.ROWS, rows.RESULT):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "8" / name).read_bytes()
    written = [row.completion for row in rows.load(tmp_path / "8").rows]
    assert written[1] == target.lm.infill("def f1(", "):\n", 8).text
    assert written[0] == target.lm.generate("def f0(", 8)


def test_weights_are_told_apart_and_the_same_ones_are_known(target: Local, lm: LM) -> None:
    other = Local(LM(lm.config, create(lm.config, 1), lm.tokenizer, "codelm"), "tiny")
    again = Local(LM(lm.config, create(lm.config, 0), lm.tokenizer, "codelm"), "tiny")
    try:
        assert other.identity["weights"] != target.identity["weights"]
        assert again.identity == target.identity
    finally:
        other.close()
        again.close()
