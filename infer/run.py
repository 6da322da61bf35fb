"""One text that is being written: what is known of it between two calls to the device."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from infer.constraints import Constraint
from infer.lookup import Lookup
from infer.pages import Lease
from infer.programs import STEERED
from infer.request import Event, Finish, Request
from infer.stream import Stream
from infer.text import Writer


@dataclass(eq=False)
class Run:
    request: Request
    stream: Stream
    sample: int
    """Which of the texts of its request."""
    order: int
    """Of arrival."""
    ids: list[int]
    """The prompt and what was written."""
    writer: Writer
    constraint: Constraint | None
    asks: int
    """What choosing its tokens takes without a constraint (see `infer.programs`)."""
    shares: bool
    """Whether it reads and leaves keys and values in the cache."""
    lookup: Lookup | None = None
    """Its text, and others to look for drafts in."""
    allowed: list[Bool[np.ndarray, " V"]] | None = None
    """What its constraint allows next, and after each token of a draft."""
    ahead: Sequence[int] = ()
    """What the model's further heads expect next."""
    held: Lease | None = None
    """What it holds of the cache, while it runs."""
    alone: bool = False
    """It was there when a step failed: it goes on by itself, so that another failure is known to be its own."""
    finish: Finish | None = None
    logprobs: list[float] = field(default_factory=list)
    kept: list[Event] = field(default_factory=list)
    """Events held back until all texts of its request are whole (best_of)."""

    @property
    def written(self) -> int:
        return len(self.ids) - len(self.request.ids)

    @property
    def how(self) -> int:
        """What choosing its next token takes."""
        return self.asks if self.allowed is None else STEERED

    @property
    def mean_logprob(self) -> float:
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else -math.inf

    @property
    def reading(self) -> bool:
        """Whether there is more of its text to read before the next token can be chosen."""
        return self.held is not None and self.held.length < len(self.ids) - 1

    @property
    def lease(self) -> Lease:
        """What it holds of the cache; of one that runs."""
        assert self.held is not None
        return self.held

    @property
    def seed(self) -> int:
        return (self.request.seed + self.sample) % 2**32

    def counts(self) -> Counter[int]:
        """How often each token was written."""
        return Counter(self.ids[len(self.request.ids) :])
