"""Infilling during training: holes in held-out files, filled by the model, compared with what stood there.

>>> infilling = make(config, corpus, tokenizer)
>>> metrics, filled = infilling.measure(model)  # {"infill/exact": 0.06, "infill/similarity": 0.31}, and each of them

One harness for all figures, so that they can be compared. A hole is, as often one as the other, the rest of a line from
where a word in it begins, or one to three whole lines; without white space at its end, of at least three letters or
digits (a lone bracket is no achievement) and at most `evaluation.infill_tokens` tokens. The prompt is the format's
default without a path; prefix and suffix are cut, 70 to 30, to what fits model.max_seq_len and at most 512 tokens.
The model writes the likeliest tokens, one more than the middle may have: it has to stop by itself. White space at the
end of what it wrote is dropped and nothing else. Exact: equal. Similarity: 1 - edits / characters of the longer one.

Holes depend on the seed, the corpus, the tokenizer and the length of the model's texts, not on the step.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codelm import formats
from codelm.config import Config, resolve
from codelm.cursor import window
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer
from codelm.tokenizer import Tokenizer
from data import dataset
from data.document import Document
from data.spans import Span
from train import held_out

LONGEST = 512  # tokens of a prompt and what fills it: what is around a hole tells most of it, and more costs more
_LEAST_ROOM = 32  # tokens of a prompt
_LEAST_WORDS = 3  # letters and digits of a middle
_MOST_LINES = 3
_TRIES = 8  # in one file, and visits of files for each hole that is wanted
_ROWS = 16  # filled at once
_SHOWN = 400  # characters around a hole in a sample


@dataclass(frozen=True)
class Hole:
    """In a held-out file; prefix, middle and suffix put together are a part of its text, or all of it."""

    path: str
    language: str
    prefix: str
    middle: str
    suffix: str
    prompt: tuple[int, ...]


@dataclass(frozen=True)
class Filled:
    hole: Hole
    completion: str

    @property
    def exact(self) -> bool:
        return self.completion == self.hole.middle

    @property
    def similarity(self) -> float:
        return similarity(self.completion, self.hole.middle)

    def sample(self) -> dict[str, str | float]:
        """To print or to keep as JSON: with as much around it as a person wants to see."""
        return {
            "path": self.hole.path,
            "prefix": self.hole.prefix[-_SHOWN:],
            "middle": self.hole.middle,
            "completion": self.completion,
            "suffix": self.hole.suffix[:_SHOWN],
            "exact": self.exact,
            "similarity": self.similarity,
        }


@dataclass(frozen=True)
class Infilling:
    """See the module; made by `make`."""

    holes: tuple[Hole, ...]
    tokenizer: Tokenizer
    stop: frozenset[int]
    most: int
    """Tokens that the model may write."""

    def measure(self, model: Transformer) -> tuple[dict[str, float], list[Filled]]:
        """Nothing where there is no hole. On several processes all of them call it, and get the same."""
        filled = list(self._fill(LM(model.config, model, self.tokenizer, "codelm")))
        if not filled:
            return {}, []
        exact, similar = ([getattr(one, name) for one in filled] for name in ("exact", "similarity"))
        return {"infill/exact": float(np.mean(exact)), "infill/similarity": float(np.mean(similar))}, filled

    def _fill(self, lm: LM) -> Iterator[Filled]:
        for at in range(0, len(self.holes), _ROWS):
            holes = self.holes[at : at + _ROWS]
            prompts = [hole.prompt for hole in holes]
            prompts += prompts[:1] * (min(_ROWS, len(self.holes)) - len(prompts))  # one shape for all
            for hole, ids in zip(holes, lm.complete(prompts, self.most, self.stop), strict=False):
                yield Filled(hole, self.tokenizer.decode(ids).rstrip())


def make(config: Config, corpus: str | Path, tokenizer: Tokenizer) -> Infilling:
    """Of a stage's config and the experiment's own corpus; fewer holes than asked for where there are too few files.
    None for an experiment that trains without holes."""
    config = resolve(config)
    family, settings = formats.family(config.tokenizer.family), config.evaluation
    if not held_out.choosers(config) or not settings.infill_examples:
        return Infilling((), tokenizer, frozenset(), settings.infill_tokens)
    longest = min(config.model.max_seq_len, LONGEST)
    room = longest - settings.infill_tokens - 1
    if room < _LEAST_ROOM:
        raise UserError(
            f"evaluation.infill_tokens={settings.infill_tokens} leaves no room for a prompt in {longest} tokens: set "
            f"it to {room + settings.infill_tokens - _LEAST_ROOM} at most, or evaluation.infill_examples to 0"
        )
    rng = np.random.default_rng((config.seed, 0xF111))
    files, most = _files(config, str(corpus), rng), settings.infill_tokens
    return of_documents(files, rng, family, tokenizer, settings.infill_examples, most, longest)


def of_documents(
    documents: Iterable[tuple[int, Document]],
    rng: np.random.Generator,
    family: formats.Family,
    tokenizer: Tokenizer,
    examples: int,
    most: int,
    longest: int,
) -> Infilling:
    """So many holes of at most `most` tokens in documents, each with its number; `longest` is of prompt and middle."""
    room = longest - most - 1  # the middle's end token
    found: dict[tuple[int, Span], Hole] = {}
    for number, document in documents:
        if len(found) == examples:
            break
        span = choose(document.text, rng, lambda text: len(tokenizer.encode(text)), most)
        if span is not None:
            prefix, middle, suffix, ids = _prompt(document.text, span, family, tokenizer, room)
            found[number, span] = Hole(document.path, document.language, prefix, middle, suffix, tuple(ids))
    return Infilling(tuple(found.values()), tokenizer, formats.stop_ids(family, tokenizer, "fim"), most + 1)


def _files(config: Config, corpus: str, rng: np.random.Generator) -> Iterator[tuple[int, Document]]:
    """Held-out files in random order, over again where they are few."""
    sources = held_out.sources(config, corpus)
    rows = [dataset.load(source.corpus or corpus).split(held_out.SPLIT) for source in sources]
    ends = np.cumsum([len(part) for part in rows])
    order = rng.permutation(int(ends[-1]))
    for number in order[np.arange(_TRIES * config.evaluation.infill_examples) % len(order)].tolist():
        part = int(np.searchsorted(ends, number, side="right"))
        document = dataset.document_of(rows[part][number - int(ends[part]) + len(rows[part])])
        wanted = sources[part].languages
        if not wanted or document.language in wanted:
            yield number, document


# ---- holes ----


def choose(text: str, rng: np.random.Generator, tokens: Callable[[str], int], most: int) -> Span | None:
    """A hole as the module says, with something before it; none where a few tries find none."""
    lines = text.split("\n")
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)]).tolist()
    for _ in range(_TRIES):
        first = int(rng.integers(len(lines)))
        words = [word.start() for word in re.finditer(r"(?<!\w)\w", lines[first])]
        if rng.random() < 0.5:
            if not words:
                continue
            start, last = starts[first] + int(rng.choice(words)), first
        else:
            start, last = starts[first], min(first + int(rng.integers(_MOST_LINES)), len(lines) - 1)
        middle = text[start : starts[last] + len(lines[last])].rstrip()
        enough = sum(map(str.isalnum, middle)) >= _LEAST_WORDS and text[:start].strip()
        if enough and tokens(middle) <= most:
            return start, start + len(middle)
    return None


def _prompt(
    text: str, span: Span, family: formats.Family, tokenizer: Tokenizer, room: int
) -> tuple[str, str, str, list[int]]:
    """Prefix, middle and suffix, cut so that the prompt has at most `room` tokens; and the prompt."""
    prefix, middle, suffix = text[: span[0]], text[span[0] : span[1]], text[span[1] :]
    budget = room
    while True:
        before, after = (len(tokenizer.encode(part)) for part in (prefix, suffix))
        kept = window(before, after, budget)
        prefix = _shortened(prefix, kept[0], tokenizer, lambda part, size: part[len(part) - size :])
        suffix = _shortened(suffix, kept[1], tokenizer, lambda part, size: part[:size])
        ids = formats.fim(family, tokenizer, prefix, suffix).ids
        if len(ids) <= room:
            return prefix, middle, suffix, ids
        budget -= len(ids) - room  # what the format adds


def _shortened(text: str, most: int, tokenizer: Tokenizer, keep: Callable[[str, int], str]) -> str:
    """So many characters of a text that it has at most `most` tokens, and few less."""
    while (count := len(tokenizer.encode(text))) > most:
        text = keep(text, most * len(text) // count)
    return text


# ---- scores ----


def similarity(one: str, other: str) -> float:
    """1 for the same, 0 where every character has to change: 1 - Levenshtein's distance / the longer length."""
    longer = max(len(one), len(other))
    return 1 - edits(one, other) / longer if longer else 1.0


def edits(one: str, other: str) -> int:
    """Levenshtein's distance: the fewest characters to put in, leave out or replace to make one the other."""
    columns = np.arange(len(other) + 1)
    letters, row = np.array([ord(letter) for letter in other], np.int64), columns
    for number, letter in enumerate(map(ord, one), start=1):
        replaced_or_left_out = np.minimum(row[:-1] + (letters != letter), row[1:] + 1)
        best = np.concatenate([[number], replaced_or_left_out])
        row = np.minimum.accumulate(best - columns) + columns  # and put in, however many in a row
    return int(row[-1])
