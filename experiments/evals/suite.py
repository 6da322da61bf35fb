"""What a suite is: tasks, and how one of them is attempted and scored. One dataclass; suites differ by their functions.

>>> def attempt(task: Task, tools: Tools) -> Outcome:
...     written = tools.ask(task.prompt)
...     return Outcome(written, {"exact": float(written == task.reference)})

An attempt asks the model as often as it wants, so a suite of several turns is one whose attempts ask again. An attempt
cannot tell whether a sample is drawn from a model or read from the rows of an earlier run: every score can be computed
anew from what the model wrote.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float

from codelm.formats import File
from codelm.sandbox import Pool

Metric = Literal["passes", "mean", "less", "bits"]
LESS_IS_BETTER: tuple[Metric, ...] = ("less", "bits")


@dataclass(frozen=True)
class Prompt:
    """What is asked: to continue a text, or to fill what is between two."""

    prefix: str
    suffix: str | None = None
    """None: there is nothing to fill, the text goes on."""
    path: str = ""
    files: Sequence[File] = ()
    """Of the same repository, the most useful ones last: where there is no room for all, the first are left out."""
    repository: str = ""


@dataclass(frozen=True)
class Task:
    id: str
    prompt: Prompt
    reference: str = ""
    """What stood there, or solves it: after post-processing as after it was asked for."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """What tables are cut by: language, kind of span, length, difficulty."""
    checks: Mapping[str, Any] = field(default_factory=dict)
    """What scoring needs besides; the suite's own."""


@dataclass(frozen=True)
class Outcome:
    """Of one sample."""

    completion: str
    """After post-processing: what was scored."""
    scores: Mapping[str, float]
    reason: str = ""
    """Why it is not right; "not run: …" where nothing could tell, which counts neither way."""


class NotRun(Exception):
    """Nothing can tell whether it is right: a tool is missing. It counts neither as right nor as wrong."""


class Tools(Protocol):
    """What an attempt has to work with; one for each sample."""

    def ask(self, prompt: Prompt, most: int = 0) -> str:
        """What the model writes; `most` tokens instead of the suite's."""
        ...

    def losses(self, text: str) -> "Losses":
        """Of every token of a text, read as a document. Only models that are here can tell."""
        ...

    @property
    def context(self) -> int:
        """Tokens that the model reads at a time; 0 = not known."""
        ...

    @property
    def pool(self) -> Pool: ...


@dataclass(frozen=True)
class Losses:
    """Of one document."""

    nats: Float[np.ndarray, " T"]
    """Of each token but the first."""
    ends: Sequence[int]
    """Where each of them ends, in bytes of the text."""
    begin: int = 0
    """Where the first of them begins: what is before it is read, but not predicted."""


@dataclass(frozen=True)
class PostProcessing:
    """What is done to a completion before it is scored: part of what a suite is."""

    name: str
    version: int
    about: str
    """One line, printed with every result."""
    apply: Callable[[Task, str], str]


@dataclass(frozen=True)
class Suite:
    name: str
    version: int
    """Higher by one whenever a score of the same completion may change."""
    about: str
    tasks: Sequence[Task]
    attempt: Callable[[Task, Tools], Outcome]
    metrics: Mapping[str, Metric]
    """The first is what the suite is about. passes: pass@k of samples; mean; less: a mean of which
    less is better; bits: a mean weighted by scores["bytes"], of which less is better too."""
    source: str
    """SHA-256 of what the tasks were read from."""
    postprocessing: PostProcessing
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    samples: bool = True
    """Whether it makes sense to draw several samples."""
    executes: bool = False
    """Whether attempts run what was written, in the sandbox."""


AS_IS = PostProcessing("as-is", 1, "nothing is changed", lambda task, text: text)


def digest(tasks: Sequence[Task]) -> str:
    """SHA-256 over tasks that no published file holds."""
    found = hashlib.sha256()
    for task in tasks:
        found.update(repr((task.id, task.prompt, task.reference)).encode())
    return found.hexdigest()
