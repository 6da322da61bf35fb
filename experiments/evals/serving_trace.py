"""What a product would feel like: completions where a typist would be offered one, and how long they took.

Text is typed into files: typing of a run's held-out files or of typing:FOLDER has in each some lines that are not there
yet and are typed one after the other; typing:FILE of a file in this repository's checkout has what its commits typed
into it (experiments/bench/edit_history.py). Behind every trigger of what is typed (data/triggers.py) the model is asked
for what comes next: it sees the file up to the cursor and all that stands behind it. The reference is what was typed
next on that line.

    line      share of the reference that the completion's first line gets right, from the beginning on
    started   the first CHARACTERS of it are right, or all of a shorter one
    kept      something was suggested, and all of it was typed next: who accepts it has nothing to take back
    saved     the share of the reference that need not be typed where it is kept
    shown     something was suggested

One request is in flight at a time, however many samples are in the works, so that its times are those of a user alone.
The engine keeps what it has read of a file from one trigger to the next.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codelm.languages import language_of
from data import triggers
from data.document import Document
from experiments.bench import edit_history
from experiments.evals import source_files
from experiments.evals.catalogue import Data
from experiments.evals.postprocessing import FIRST_LINE
from experiments.evals.suite import Outcome, Prompt, Suite, Task, Tools, digest

FILES = 25
EACH = 8  # triggers of a file
MOST = FILES * EACH
LINES = 6  # typed into a file
CHARACTERS = 5
LEAST = 3  # letters and digits of a reference: a lone bracket is no achievement
NEW_TOKENS = 32


@dataclass(frozen=True)
class Typed:
    """A text that is typed between two others."""

    path: str
    language: str
    before: str
    text: str
    after: str


def typing(data: Data) -> Suite:
    """Triggers of one file stand after one another, as they are typed."""
    tasks = [
        Task(
            f"{number:03} {typed.path}:{prefix.count(chr(10)) + 1}",
            Prompt(prefix, suffix, typed.path),
            reference,
            {"language": typed.language},
        )
        for number, (typed, prefix, suffix, reference) in enumerate(_places(data))
    ]
    alone = threading.Lock()

    def attempt(task: Task, tools: Tools) -> Outcome:
        with alone:
            written = tools.ask(task.prompt)
        line = FIRST_LINE.apply(task, written).rstrip()
        return Outcome(line, scores(line, task.reference))

    names = ("kept", "line", "started", "saved", "shown")
    about = "completions at the triggers of what is typed"
    return Suite(
        "typing", 1, about, tasks, attempt, dict.fromkeys(names, "mean"), digest(tasks), FIRST_LINE, NEW_TOKENS, ("\n",)
    )


def scores(line: str, reference: str) -> dict[str, float]:
    """Of a completion's first line."""
    right = sum(itertools.takewhile(bool, (one == other for one, other in zip(line, reference, strict=False))))
    shown = bool(line.strip())
    kept = shown and right == len(line)
    return {
        "kept": float(kept),
        "line": right / len(reference),
        "started": float(right >= min(CHARACTERS, len(reference))),
        "saved": right / len(reference) if kept else 0.0,
        "shown": float(shown),
    }


# ---- what is typed ----


def _places(data: Data) -> list[tuple[Typed, str, str, str]]:
    """Where a completion is asked for: what is typed there, prefix, suffix, and what was typed next."""
    path = Path(data.given).resolve()
    if data.given and path.is_file() and path.is_relative_to(edit_history.ROOT):
        texts = edit_history.versions(str(path.relative_to(edit_history.ROOT)))
        places = [(typed, *place) for typed in of_history(path.name, texts) for place in asked_at(typed)]
        return places[-MOST:]
    documents = source_files.files(data, "typing")
    typed_into = [typed for document in source_files.some(documents, len(documents)) for typed in lines_of(document)]
    return [(typed, *place) for typed in typed_into[:FILES] for place in asked_at(typed)[:EACH]]


def asked_at(typed: Typed) -> list[tuple[str, str, str]]:
    """Prefix, suffix and reference of every trigger, as the text comes to be typed: what is typed later is nowhere."""
    begun = typed.before[typed.before.rfind("\n") + 1 :]  # the line on which typing begins
    found = triggers.candidates(begun + typed.text, typed.language)
    spans = [(start - len(begun), end - len(begun)) for start, end in found if start >= len(begun)]
    places = [(typed.before + typed.text[:start], typed.after, typed.text[start:end].rstrip()) for start, end in spans]
    return [place for place in places if sum(map(str.isalnum, place[2])) >= LEAST]


def lines_of(document: Document) -> Iterator[Typed]:
    """Some lines of a file, from somewhere in it, the same every time; none of a file that has few."""
    lines = document.text.splitlines(keepends=True)
    if len(lines) > LINES + 1:
        start = int(np.random.default_rng(len(document.text)).integers(1, len(lines) - LINES))
        stop = start + LINES
        before, text, after = ("".join(part) for part in (lines[:start], lines[start:stop], lines[stop:]))
        typed = Typed(document.path, document.language, before, text.removesuffix("\n"), f"\n{after}")
        if asked_at(typed):
            yield typed


def of_history(path: str, versions: Sequence[str]) -> Iterator[Typed]:
    """Every stretch that was typed letter by letter between two versions of a file."""
    language = language_of(path) or ""
    for old, new in itertools.pairwise(versions):
        text, at, letters = old, 0, ""
        for key in edit_history.keys(old, new):
            if letters and (key.kind != "type" or key.start != at + len(letters)):
                yield Typed(path, language, text[:at], letters, text[at:])
                text, letters = text[:at] + letters + text[at:], ""
            if key.kind == "type":
                at = at if letters else key.start
                letters += key.text
            else:
                text = text[: key.start] + key.text + text[key.end :]
        if letters:
            yield Typed(path, language, text[:at], letters, text[at:])
