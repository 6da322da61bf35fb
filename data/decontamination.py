"""Keeps out of the corpus what overlaps a benchmark.

A document is dropped for the first of these that holds; words are those of data/shingles.py, so that white space and
punctuation never count, and tokens those of data/skeleton.py, so that names, comments and strings do not:

    13-gram         13 words in a row of a problem: its program, question, solution or tests
    10-gram         10 words in a row, if half of all runs of 10 of one such text are there
    exact           a program or question of 5 to 9 words, whole
    renamed         16 tokens in a row, if 60 % of all such runs of one program are there
    renamed, exact  a program of 11 to 15 tokens, whole

Runs that say nothing are not looked for: rows of numbers, the same few words again and again, prose taken for tokens,
and what three problems of one benchmark share. What is let through on purpose, because ordinary code is full of it: a
body of fewer than 10 words without its signature (an eighth of HumanEval's), a function of fewer than 11 tokens whose
names were changed, a test of little but numbers.

`python -m experiments.decontamination`, each problem planted in a file of the standard library, found:

                       verbatim  reformatted  renamed  docstring  solution  tests
    cruxeval            100.0 %      100.0 %   92.5 %          -   100.0 %   9.6 %
    evalplus            100.0 %       99.4 %   95.7 %     98.2 %    84.1 %  96.3 %
    humaneval           100.0 %       98.8 %   96.3 %     98.2 %    88.4 %   100 %
    humaneval-infilling 100.0 %       99.0 %   97.4 %     98.7 %         -   100 %
    mbpp                100.0 %       98.2 %   90.7 %    100.0 %   100.0 %  99.6 %

"Reformatted" and "renamed" are without docstrings and comments. In ordinary code: 2 of the 613 files of Python's
standard library, 5 of 12,768 files of installed packages. All seven are true: a textbook primality test, and functions
of three lines (count the items, merge dictionaries) that are an answer but for their names.

The thresholds are where the figures bend. Without the demand on what a run says, 134 of those files had a run of 13 in
common with a benchmark, nearly all rows of numbers; a run of 10 whatever its share hit 13, mostly nested loops. In
the standard library and half of the packages, runs of 12 tokens hit 10 files and runs of 16 two; runs of 20 hit none,
but leave an eighth of the programs too short.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from data import benchmark_texts, run_index, shingles, skeleton
from data.benchmark_texts import Text
from data.benchmarks import Problem
from data.document import Document, Drop, Step
from data.run_index import Runs, Wholes

_LONG_RUN = 13  # words in a row of which one hit is enough
_RUN = 10  # words in a row of which a share of a text's is enough
_SHARE = 0.5
_WHOLE = 5  # words, at least, of a shorter text that has to be there whole
_DIFFERENT = 4  # different words that a run must have
_NAMED = 2  # how many of them must be of two characters and more, and not numbers
_NAMED_OF_WHOLE = 3  # the same of a text that has to be there whole
_TOKENS = 16  # tokens of a skeleton in a row of which a share of a program's is enough
_TOKENS_SHARE = 0.6
_WHOLE_TOKENS = 11  # tokens, at least, of a shorter program that has to be there whole
_RUNS_KEPT = 512  # of one text, evenly spaced; only generated tests have more


@dataclass(frozen=True, slots=True)
class Index:
    """What to look for; built once a process."""

    labels: tuple[str, ...]
    """The benchmark and task of each text."""
    maybe: Bool[np.ndarray, " F"]
    """A quick filter over all the hashes that are looked up first."""
    beginnings: UInt64[np.ndarray, " B"]
    """Runs of 10 words, those included that are templates; each run of 13 begins with one."""
    long_runs: Runs
    runs: Runs
    short: Wholes
    code: dict[str, "CodeIndex"]
    """By how comments begin."""


@dataclass(frozen=True, slots=True)
class CodeIndex:
    """Programs by their skeletons."""

    shapes: UInt64[np.ndarray, " H"]
    """Runs of tokens, whatever their names."""
    runs: Runs
    short: Wholes


def step(index: Index) -> Step:
    def decontaminated(document: Document, _: Counter[str]) -> Document | Drop:
        found = overlap(index, document.text, document.language)
        return Drop("contaminated", found) if found else document

    return decontaminated


def overlap(index: Index, text: str, language: str) -> str:
    """The problem that the text gives away and by which rule, as in `humaneval HumanEval/12: 13-gram`; or nothing."""
    for rule, found in _findings(index, text, language):
        if found is not None:
            return f"{index.labels[found]}: {rule}"
    return ""


def _findings(index: Index, text: str, language: str) -> Iterator[tuple[str, int | None]]:
    """Cheap rules first."""
    words = shingles.words(text)
    runs = shingles.ngrams(words, _RUN)
    if len(run_index.places(index.maybe, index.beginnings, runs)):
        yield "13-gram", run_index.most(index.long_runs, shingles.ngrams(words, _LONG_RUN), 0.0)
        yield "10-gram", run_index.most(index.runs, runs, _SHARE)
    yield "exact", _whole_words(index, words)
    comment = skeleton.comments(language)
    known, code = index.code[comment], skeleton.of(text, comment)
    places = run_index.places(index.maybe, known.shapes, shingles.ngrams(code.shape, _TOKENS))
    if len(places):
        yield "renamed", run_index.most(known.runs, skeleton.runs(code, places, _TOKENS), _TOKENS_SHARE)
    yield "renamed, exact", _whole_skeleton(index.maybe, known.short, code)


def _whole_words(index: Index, words: UInt64[np.ndarray, " W"]) -> int | None:
    for start in run_index.places(index.maybe, index.short.beginnings, shingles.ngrams(words, _WHOLE)):
        for length in range(_WHOLE, min(_RUN, len(words) - start + 1)):
            [whole] = shingles.ngrams(words[start : start + length], length)
            if (text := index.short.texts.get(int(whole))) is not None:
                return text
    return None


def _whole_skeleton(maybe: Bool[np.ndarray, " F"], short: Wholes, code: skeleton.Skeleton) -> int | None:
    beginnings = shingles.ngrams(code.shape, _WHOLE_TOKENS)
    for start in run_index.places(maybe, short.beginnings, beginnings):
        for length in range(_WHOLE_TOKENS, min(_TOKENS, len(code.shape) - start + 1)):
            [whole] = skeleton.runs(code, np.array([start]), length)
            if (text := short.texts.get(int(whole))) is not None:
                return text
    return None


def build(problems: list[Problem]) -> Index:
    texts = benchmark_texts.texts(problems)
    beginnings, long_runs, runs, short = _index_words(texts)
    code = {comment: _index_code(texts, comment) for comment in skeleton.COMMENTS}
    known = [beginnings, short.beginnings]
    for programs in code.values():
        known += [programs.shapes, programs.short.beginnings]
    labels = tuple(text.label for text in texts)
    return Index(labels, run_index.quick_filter(known), beginnings, long_runs, runs, short, code)


def _index_words(texts: list[Text]) -> tuple[UInt64[np.ndarray, " B"], Runs, Runs, Wholes]:
    """The beginnings of runs, the long and the other runs, and the texts that are too short for them."""
    long_runs: list[tuple[int, np.ndarray]] = []
    runs: list[tuple[int, np.ndarray]] = []
    starts: list[np.ndarray] = []
    wholes: dict[int, int] = {}
    for number, text in enumerate(texts):
        count = len(text.words)
        if count >= _RUN:
            telling = _telling(text, _RUN, _NAMED)
            runs.append((number, shingles.ngrams(text.words, _RUN)[telling]))
            if count >= _LONG_RUN:
                long = telling[telling <= count - _LONG_RUN]
                long_runs.append((number, shingles.ngrams(text.words, _LONG_RUN)[long]))
        elif text.if_short and count >= _WHOLE and len(_telling(text, count, _NAMED_OF_WHOLE)):
            starts.append(shingles.ngrams(text.words, _WHOLE)[:1])
            wholes.setdefault(int(shingles.ngrams(text.words, count)[0]), number)
    short = Wholes(np.unique(run_index.joined(starts)), wholes)
    beginnings = np.unique(run_index.joined([hashes for _, hashes in runs]))
    return beginnings, run_index.collect(long_runs, texts), run_index.collect(runs, texts), short


def _telling(text: Text, n: int, least: int) -> Int64[np.ndarray, " P"]:
    """Where the runs of n words begin that say something: not only numbers, nor a few words again and again."""
    content = shingles.to_bytes(text.content)
    starts, ends = shingles.word_spans(content)
    named = (ends - starts > 1) & (np.frombuffer(content, np.uint8)[starts] > ord("9"))
    count = len(starts) - n + 1
    places = np.arange(0, count, -(-count // _RUNS_KEPT))
    at = places[:, None] + np.arange(n)
    new = shingles.first_uses(text.words[at]) == np.arange(n)
    return places[(new.sum(axis=1) >= _DIFFERENT) & ((new & named[at]).sum(axis=1) >= least)]


def _index_code(texts: list[Text], comment: str) -> CodeIndex:
    shapes: list[np.ndarray] = []
    runs: list[tuple[int, np.ndarray]] = []
    starts: list[np.ndarray] = []
    wholes: dict[int, int] = {}
    for number, text in enumerate(texts):
        if not text.is_code:
            continue
        code = skeleton.of(text.content, comment)
        count = len(code.shape)
        if count >= _TOKENS:
            telling = skeleton.telling(code, _TOKENS)
            shapes.append(shingles.ngrams(code.shape, _TOKENS)[telling])
            runs.append((number, skeleton.runs(code, telling, _TOKENS)))
        elif count >= _WHOLE_TOKENS and len(skeleton.telling(code, count)):
            starts.append(shingles.ngrams(code.shape, _WHOLE_TOKENS)[:1])
            wholes.setdefault(int(skeleton.runs(code, np.array([0]), count)[0]), number)
    short = Wholes(np.unique(run_index.joined(starts)), wholes)
    return CodeIndex(np.unique(run_index.joined(shapes)), run_index.collect(runs, texts), short)
