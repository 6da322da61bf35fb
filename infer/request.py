"""What is asked of the engine and what comes back. Token ids in, token ids and their text out."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from codelm.errors import UserError
from infer.constraints import Grammar
from infer.healing import Healing
from infer.sampling import Sampling

Priority = Literal["interactive", "batch"]
Finish = Literal["stop", "length", "cancelled", "deadline", "error"]
MOST_STOPS = 32  # stop tokens of one request: they go to the device, in arrays of one size


@dataclass(frozen=True)
class Drafts:
    """Where to look for what may come next, besides the prompt and what was written. No draft changes a text: they
    change how soon it is there."""

    texts: Sequence[Sequence[int]] = ()
    """Open files; what was written before."""
    expected: Sequence[int] = ()
    """What will be written, for the most part: of an edit, the region as it is."""
    after: Sequence[int] = ()
    """What the text is to be read after, where that is not the end of the prompt: of a hole, what is before it."""


@dataclass(frozen=True)
class Request:
    """What is to be written, and how."""

    ids: Sequence[int]
    """The prompt."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    """The same seed gives the same tokens, whatever else the engine does."""
    stop_ids: Collection[int] = ()
    """Tokens that end the text; they are no part of it."""
    stop: Sequence[str] = ()
    """Texts that end the text, found also across tokens; nothing of them is given out."""
    logprobs: bool = False
    """Give each token's log-probability, by the model's own distribution."""
    n: int = 1
    """Texts to write: the i-th is what a request with seed + i gives."""
    best_of: int = 0
    """Write so many, and give back the n with the best mean log-probability, once all are written; 0 = n."""
    priority: Priority = "interactive"
    """Interactive requests go before those of batches."""
    deadline: float = math.inf
    """Seconds after which it ends, with what there is."""
    restriction: Grammar | Healing | None = None
    """What the text must look like: a grammar, the end of the word that the prompt begins."""
    share: bool = True
    """Read and leave keys and values in the cache that requests share."""
    drafts: Drafts | None = field(default_factory=Drafts)
    """None: nothing is drafted."""

    def check(self, vocab_size: int, has_text: bool) -> None:
        """Refuse what no engine can do, naming the field."""
        if not len(self.ids):
            raise UserError("ids are empty: give a prompt of at least one token")
        wrong = next((i for i in self.ids if not 0 <= i < vocab_size), None)
        if wrong is not None:
            raise UserError(f"token id {wrong} is outside the vocabulary of {vocab_size}")
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.n < 1:
            raise UserError(f"n must be at least 1, not {self.n}")
        if self.best_of and self.best_of < self.n:
            raise UserError(f"best_of must be at least n={self.n}, not {self.best_of}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be from 0 to 2**32 - 1, not {self.seed}")
        if not self.deadline > 0:
            raise UserError(f"deadline must be more than 0 seconds, not {self.deadline}")
        if self.priority not in ("interactive", "batch"):
            raise UserError(f"priority must be interactive or batch, not {self.priority!r}")
        if len(self.stop_ids) > MOST_STOPS:
            raise UserError(f"at most {MOST_STOPS} stop_ids, not {len(self.stop_ids)}")
        if any(not text for text in self.stop):
            raise UserError("a stop string is empty: it would end every text before it begins; leave it out")
        if (self.stop or self.restriction) and not has_text:
            raise UserError("this model has no tokenizer: stop strings and restrictions need one; use stop_ids")
        self.sampling.checked(vocab_size)


@dataclass(frozen=True)
class Event:
    """What was written since the last event."""

    ids: list[int]
    text: str
    logprobs: list[float] | None = None
    sample: int = 0
    """Which of the n texts."""
    finish: Finish | None = None
    """Set in the last event of a text: why it ended."""
    error: str = ""


@dataclass
class Timing:
    """Seconds on the clock of `time.perf_counter`, and tokens."""

    arrived: float
    started: float = 0.0
    """When it left the queue for the first time."""
    first: float = 0.0
    """When its first token was there."""
    finished: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, found in the cache."""
    new_tokens: int = 0
    drafted: int = 0
    """Tokens of drafts that were verified."""
    accepted: int = 0
    """Of those, what was written."""
    preempted: int = 0

    @property
    def queue(self) -> float:
        return self.started - self.arrived

    @property
    def prefill(self) -> float:
        return self.first - self.started

    @property
    def decode(self) -> float:
        return self.finished - self.first

    @property
    def to_first_token(self) -> float:
        """From arrival, so that waiting counts."""
        return self.first - self.arrived


@dataclass(frozen=True)
class Text:
    """One whole text."""

    ids: list[int]
    text: str
    finish: Finish
    logprobs: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def mean_logprob(self) -> float:
        return float(np.mean(self.logprobs)) if self.logprobs else -math.inf
