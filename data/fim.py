"""A hole in a text: where it is, and how the document with it is written. A pure function of (text, rng)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

from codelm.data_config import FimConfig
from codelm.format_table import Family
from codelm.tokenizer import Tokenizer
from data import spans
from data.spans import NoSpan, Span
from data.triggers import language_causal

Mode = Literal["psm", "spm", "several"]


@dataclass(frozen=True)
class Dug:
    """A text with one hole or several: the parts around them, and what fills them."""

    parts: tuple[str, ...]
    middles: tuple[str, ...]
    mode: Mode
    chooser: str
    fallback: str = ""
    """Why another chooser than the one drawn chose; empty = it did not."""


@dataclass(frozen=True)
class Digger:
    """Digs holes as a config says, in documents of one prompt format."""

    fim: FimConfig
    family: Family
    tokenizer: Tokenizer

    def dig(self, text: str, language: str, rng: np.random.Generator, most: int = 16) -> Dug | NoSpan:
        """A hole where a chooser drawn by its share puts it, or up to `most` where that chooser makes several."""
        if text and self.fim.empty and rng.random() < self.fim.empty:
            place = int(rng.integers(len(text) + 1))
            return _split(text, [(place, place)], self._mode(rng), "empty", "")
        names, chances = self._chances
        chooser = names[int(rng.choice(len(names), p=chances))]
        found = self._choose(chooser, text, language, rng, most)
        fallback = ""
        if isinstance(found, NoSpan):
            chooser, fallback, found = "characters", f"{chooser}:{found.why}", spans.characters(text, rng)
        if isinstance(found, NoSpan):
            return found
        if isinstance(found, list) and len(found) > 1:
            return _split(text, found, "several", chooser, fallback)
        mode = self._mode(rng)
        return _split(text, found if isinstance(found, list) else [found], mode, chooser, fallback)

    @cached_property
    def _chances(self) -> tuple[list[str], Float[np.ndarray, " C"]]:
        weights = asdict(self.fim.spans)
        shares = np.array(list(weights.values()))
        return list(weights), shares / shares.sum()

    def _choose(
        self, chooser: str, text: str, language: str, rng: np.random.Generator, most: int
    ) -> Span | list[Span] | NoSpan:
        choosers: dict[str, Callable[[], Span | list[Span] | NoSpan]] = {
            "characters": lambda: spans.characters(text, rng),
            "lines": lambda: spans.lines(text, rng),
            "tokens": lambda: spans.tokens(text, rng, self.tokenizer),
            "syntax": lambda: _syntax(text, rng, language),
            "causal": lambda: language_causal(text, rng, language),
            "several": lambda: spans.several(text, rng),
        }
        found = choosers[chooser]()
        return found[:most] if isinstance(found, list) else found

    def _mode(self, rng: np.random.Generator) -> Mode:
        suffix_first = rng.random() < self.fim.spm
        wanted: Mode = "spm" if suffix_first else "psm"
        return wanted if wanted in self.family.fim else next(iter(self.family.fim))


def _syntax(text: str, rng: np.random.Generator, language: str) -> Span | NoSpan:
    from data.syntax import syntax  # tree-sitter is in an extra, and nobody else needs it

    return syntax(text, rng, language)


def _split(text: str, holes: list[Span], mode: Mode, chooser: str, fallback: str) -> Dug:
    starts, ends = [0, *(end for _, end in holes)], [*(start for start, _ in holes), len(text)]
    parts = tuple(text[a:b] for a, b in zip(starts, ends, strict=True))
    return Dug(parts, tuple(text[a:b] for a, b in holes), mode, chooser, fallback)
