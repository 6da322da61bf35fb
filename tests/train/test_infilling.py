"""Holes in held-out files: where they are, what the model is asked, and how what it writes is scored."""

import dataclasses
import random
from functools import cache

import numpy as np
import pytest

from codelm import formats
from codelm.config import Config
from codelm.data_config import FimConfig, SourceConfig
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer
from codelm.train_config import EvaluationConfig
from data import dataset
from tests.data.batches import NO_HOLES, Batches
from tests.train.conftest import config_of
from train import infilling
from train.infilling import Filled, Hole, Infilling

FIM = FimConfig(0.5)


def config(batches: Batches, *sources: SourceConfig, examples: int = 40, tokens: int = 24, **data: object) -> Config:
    made = config_of(batches, *sources, **({"fim": FIM} | data))
    return dataclasses.replace(made, evaluation=EvaluationConfig(infill_examples=examples, infill_tokens=tokens))


@pytest.fixture(scope="module")
def made(batches: Batches) -> Infilling:
    return infilling.make(config(batches), batches.corpus, batches.tokenizer)


@pytest.fixture(scope="module")
def texts(batches: Batches) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for document in dataset.load(batches.corpus).documents("validation"):
        found.setdefault(document.path, []).append(document.text)
    return found


# ---- holes ----


def test_what_is_around_a_hole_and_what_is_in_it_are_the_file(made: Infilling, texts: dict[str, list[str]]) -> None:
    assert len(made.holes) == 40
    whole = 0
    for hole in made.holes:
        text = hole.prefix + hole.middle + hole.suffix
        assert any(text in one for one in texts[hole.path])
        whole += text in texts[hole.path]
    assert 3 < whole < 37, "some files fit a prompt, of others a part"
    assert len({hole.language for hole in made.holes}) >= 3


def test_a_middle_is_lines_or_the_rest_of_one(made: Infilling, batches: Batches) -> None:
    lines = 0
    for hole in made.holes:
        assert hole.middle == hole.middle.rstrip()
        assert sum(letter.isalnum() for letter in hole.middle) >= 3
        assert len(batches.tokenizer.encode(hole.middle)) <= 24
        rest_of_line, *_ = hole.suffix.split("\n")
        assert rest_of_line.strip() == "", "to the end of a line"
        assert hole.prefix.strip()
        starts_line = hole.prefix.endswith("\n")
        lines += starts_line
        assert starts_line or "\n" not in hole.middle
        assert starts_line or hole.middle[0].isalnum() or hole.middle[0] == "_", "from a word on"
        assert starts_line or not (hole.prefix[-1].isalnum() or hole.prefix[-1] == "_"), "from where it begins"
        assert hole.middle.count("\n") <= 2
    assert 8 < lines < 35, "both kinds"


@pytest.mark.parametrize("text", ["", "x", "}\n)\n]\n", "\n\n\n", "aa\n}\n  )\n", "onlyline and more"])
def test_a_text_may_have_no_place_for_a_hole(text: str) -> None:
    """Nothing but brackets, or nothing before what could be filled."""
    rng = np.random.default_rng(0)
    found = [infilling.choose(text, rng, len, 100) for _ in range(50)]
    if text == "onlyline and more":
        assert {span for span in found if span} == {(9, 17), (13, 17)}
    else:
        assert set(found) == {None}


def test_a_prompt_is_the_format_s_own_and_fits(made: Infilling, batches: Batches) -> None:
    family, longest = formats.family("codelm"), 0
    for hole in made.holes:
        prompt = formats.fim(family, batches.tokenizer, hole.prefix, hole.suffix)
        assert list(hole.prompt) == prompt.ids
        assert len(hole.prompt) + made.most <= 128, "model.max_seq_len"
        longest = max(longest, len(hole.prompt))
    assert longest >= 128 - 25 - 6, "as much as fits, but for a few tokens of cutting"
    assert made.most == 25
    ends = {batches.tokenizer.special[name] for name in ("<|endoftext|>", "<|fim_prefix|>", "<|file_sep|>")}
    assert ends <= made.stop


def test_holes_are_the_same_every_time_and_others_for_another_seed(made: Infilling, batches: Batches) -> None:
    again = infilling.make(config(batches), batches.corpus, batches.tokenizer)
    assert again.holes == made.holes
    other = infilling.make(dataclasses.replace(config(batches), seed=1), batches.corpus, batches.tokenizer)
    assert other.holes != made.holes
    fewer = infilling.make(config(batches, examples=5), batches.corpus, batches.tokenizer)
    assert len(fewer.holes) == 5


def test_where_there_is_little_there_are_fewer(batches: Batches) -> None:
    rare = infilling.make(config(batches, SourceConfig(languages=("Go",))), batches.corpus, batches.tokenizer)
    assert {hole.language for hole in rare.holes} == {"Go"}
    assert 7 < len(rare.holes) <= 40, "several of one file"
    assert len(set(rare.holes)) == len(rare.holes)
    nothing = infilling.make(config(batches, SourceConfig(languages=("Rust",))), batches.corpus, batches.tokenizer)
    assert nothing.holes == ()


def test_without_holes_in_training_nothing_is_filled(batches: Batches, model: Transformer) -> None:
    for one in (config(batches, fim=NO_HOLES), config(batches, examples=0)):
        assert infilling.make(one, batches.corpus, batches.tokenizer).measure(model) == ({}, [])


def test_no_room_for_a_prompt_is_an_error(batches: Batches) -> None:
    with pytest.raises(UserError, match=r"^evaluation.infill_tokens=96 leaves no room .* set it to 95 at most"):
        infilling.make(config(batches, tokens=96), batches.corpus, batches.tokenizer)
    infilling.make(config(batches, tokens=95, examples=1), batches.corpus, batches.tokenizer)


# ---- scores ----


def test_edits_are_the_fewest() -> None:
    """Against the definition, on every pair of random short texts."""

    @cache
    def fewest(one: str, other: str) -> int:
        if not one or not other:
            return len(one) + len(other)
        return min(
            fewest(one[1:], other) + 1,
            fewest(one, other[1:]) + 1,
            fewest(one[1:], other[1:]) + (one[0] != other[0]),
        )

    rng = random.Random(0)
    texts = ["", "a", "日本語", *("".join(rng.choices("ab é", k=rng.randrange(9))) for _ in range(30))]
    for one in texts:
        for other in texts:
            assert infilling.edits(one, other) == fewest(one, other)


def test_similarity() -> None:
    assert infilling.similarity("", "") == 1.0
    for one, other in (("kitten", "sitting"), ("sitting", "kitten")):
        assert infilling.similarity(one, other) == pytest.approx(1 - 3 / 7)
    assert infilling.similarity("", "abc") == infilling.similarity("xyz", "abc") == 0.0


def test_what_the_model_writes_is_scored(
    made: Infilling, batches: Batches, model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows all middles but every fourth, of which it writes half; the white space it adds is nothing."""
    asked = []
    middles = {hole.prompt: hole.middle for hole in made.holes}
    halved = [hole.prompt for hole in made.holes[::4]]

    def complete(self: LM, prompts: list, max_new_tokens: int, stop: frozenset[int]) -> list[list[int]]:
        assert (max_new_tokens, stop) == (made.most, made.stop)
        asked.append(len(prompts))
        known = (middles[prompt] for prompt in prompts)
        written = (
            text[: len(text) // 2] if prompt in halved else text + " \n"
            for prompt, text in zip(prompts, known, strict=True)
        )
        return [batches.tokenizer.encode(text) for text in written]

    monkeypatch.setattr(LM, "complete", complete)
    metrics, filled = made.measure(model)
    assert asked == [16, 16, 16], "one shape"
    assert [one.hole for one in filled] == list(made.holes)
    assert metrics["infill/exact"] == 0.75
    lost = [1 - len(one.completion) / len(one.hole.middle) for one in filled[::4]]
    assert metrics["infill/similarity"] == pytest.approx(1 - sum(lost) / 40)


def test_a_model_fills_holes(made: Infilling, batches: Batches, model: Transformer) -> None:
    """A real one, batched, with prompts of all lengths, as it would one at a time."""
    few = dataclasses.replace(made, holes=made.holes[:3])
    metrics, filled = few.measure(model)
    assert metrics.keys() == {"infill/exact", "infill/similarity"}
    assert len(filled) == 3
    lm = LM(dataclasses.replace(model.config, max_seq_len=512), model, batches.tokenizer, "codelm")
    for one in filled:
        alone = lm.generate(list(one.hole.prompt), made.most, stop=made.stop)
        assert one.completion == batches.tokenizer.decode(alone).rstrip()


def test_a_sample_is_what_a_person_wants_to_see() -> None:
    hole = Hole("a.py", "Python", "x" * 999, "y = 1", "z" * 999, (1, 2))
    assert Filled(hole, "y = 2").sample() == {
        "path": "a.py",
        "prefix": "x" * 400,
        "middle": "y = 1",
        "completion": "y = 2",
        "suffix": "z" * 400,
        "exact": False,
        "similarity": 0.8,
    }
