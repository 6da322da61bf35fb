"""Holes: every character stays, once and in order; parts are encoded apart; what cannot be cut falls back, counted."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codelm import formats
from codelm.data_config import FimConfig, SpansConfig
from codelm.formats import Role
from data.fim import Digger, Dug
from data.spans import NoSpan
from tests.data.batches import EVERY_CHOOSER, Batches

CHOOSERS = list(asdict(SpansConfig()))
LANGUAGES = ["Python", "JavaScript", "Go", "Brainfuck", ""]
TEXTS = st.text(st.sampled_from("ab_ (){}=:.,\n\t\r\"'é日🎉0"), min_size=1, max_size=80)


def only(chooser: str) -> SpansConfig:
    return SpansConfig(**{name: float(name == chooser) for name in CHOOSERS})


def filled(dug: Dug) -> str:
    """The text again."""
    return "".join(part + middle for part, middle in zip(dug.parts, (*dug.middles, ""), strict=True))


def digger(batches: Batches, chooser: str = "", **fim: object) -> Digger:
    spans = only(chooser) if chooser else EVERY_CHOOSER
    return Digger(FimConfig(spans=spans, **fim), formats.family("codelm"), batches.tokenizer)  # type: ignore[arg-type]


@pytest.mark.parametrize("chooser", CHOOSERS)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_character_is_there_once_and_in_order(
    batches: Batches, chooser: str, text: str, language: str, seed: int
) -> None:
    dug = digger(batches, chooser).dig(text, language, np.random.default_rng(seed))
    assert isinstance(dug, Dug)
    assert filled(dug) == text
    assert all(dug.middles), "no middle is empty"
    assert len(dug.parts) == len(dug.middles) + 1
    assert (dug.mode == "several") == (len(dug.middles) > 1)
    assert (dug.chooser == chooser) != bool(dug.fallback)
    if dug.fallback:
        assert dug.chooser == "characters"
        assert dug.fallback.startswith(f"{chooser}:")
    again = digger(batches, chooser).dig(text, language, np.random.default_rng(seed))
    assert again == dug, "the same seed cuts alike"


def test_middles_are_empty_as_often_as_asked(batches: Batches) -> None:
    made, text, rng = digger(batches, "lines", empty=0.25), "def f(x):\n    return x\n" * 9, np.random.default_rng(0)
    empty = []
    for _ in range(800):
        dug = made.dig(text, "Python", rng)
        assert isinstance(dug, Dug)
        assert filled(dug) == text
        assert (dug.middles == ("",)) == (dug.chooser == "empty")
        empty += [len(dug.parts[0])] * (dug.chooser == "empty")
    assert len(empty) == pytest.approx(200, abs=50)
    assert min(empty) < 20
    assert max(empty) > len(text) - 20


def test_nothing_to_cut_is_said(batches: Batches) -> None:
    for chooser in CHOOSERS:
        assert digger(batches, chooser).dig("", "Python", np.random.default_rng(0)) == NoSpan("empty")


@pytest.mark.parametrize("text", ["def f(x):\n    return [x + 1, 2]\n" * 20])
def test_choosers_come_as_often_as_asked(batches: Batches, text: str) -> None:
    spans = SpansConfig(characters=3.0, lines=1.0, tokens=0.0, syntax=2.0, causal=1.0, several=1.0)
    made = Digger(FimConfig(spm=0.3, spans=spans), formats.family("codelm"), batches.tokenizer)
    rng, seen, modes = np.random.default_rng(0), Counter[str](), Counter[str]()
    for _ in range(2000):
        dug = made.dig(text, "Python", rng)
        assert isinstance(dug, Dug)
        seen[dug.chooser] += 1
        modes[dug.mode] += 1
    for name, share in asdict(spans).items():
        expected = 2000 * share / 8
        assert abs(seen[name] - expected) <= 4 * np.sqrt(expected) + (expected == 0) * 0, (name, seen)
    single = modes["psm"] + modes["spm"]
    assert modes["spm"] / single == pytest.approx(0.3, abs=0.05)


def test_a_format_with_one_order_is_written_in_it(batches: Batches) -> None:
    for name, mode in (("qwen2.5-coder", "psm"), ("mellum", "spm")):
        made = Digger(FimConfig(), formats.family(name), batches.tokenizer)
        dug = [made.dig("some text", "Python", np.random.default_rng(n)) for n in range(20)]
        assert {found.mode for found in dug if isinstance(found, Dug)} == {mode}


def test_parts_are_encoded_apart(batches: Batches) -> None:
    """As a request's are: nothing of the middle hides in a token of the prefix."""
    tokens, special = batches.tokenizer, batches.tokenizer.special
    loader = batches.loader(fim=FimConfig(1.0), metadata=0.0)
    seen = Counter[str]()
    for number in range(60):
        for document in loader.row(number).documents:
            text = [
                tokens.decode(
                    i
                    for i, r in zip(document.ids, document.roles, strict=True)
                    if r is role and i not in special.values()
                )
                for role in (Role.PREFIX, Role.SUFFIX, Role.MIDDLE)
            ]
            if not (document.holes and document.holes[0].mode):
                continue
            prefix, suffix, middle = map(tokens.encode, text)
            pre, suf, mid, end = (
                special[f"<|{name}|>"] for name in ("fim_prefix", "fim_suffix", "fim_middle", "endoftext")
            )
            expected = {
                "psm": [pre, *prefix, suf, *suffix, mid, *middle, end],
                "spm": [pre, suf, *suffix, mid, *prefix, *middle, end],
            }
            assert list(document.ids) == expected[document.holes[0].mode]
            seen[document.holes[0].mode] += 1
    assert min(seen["psm"], seen["spm"]) > 10
