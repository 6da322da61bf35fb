"""What an engine counts of its work."""

from collections.abc import Sequence
from dataclasses import dataclass

from infer.pages import Counts


@dataclass(frozen=True)
class Stats:
    """Since the engine began, but for pages, waiting and running: those are now's."""

    pages: Sequence[Counts]
    """Free, cached and held, for the layers of each window."""
    waiting: int
    running: int
    compilations: int
    """Programs compiled since it was warm."""
    warm_up_seconds: float
    steps: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    """Of the prompts, found in the cache."""
    read_tokens: int
    """Computed, of prompts and of texts read again."""
    new_tokens: int
    passes: int
    """Through the weights, for new tokens: of whatever number of rows."""
    drafted: Sequence[int]
    """How often there was a token at each place of a draft that was verified."""
    accepted: Sequence[int]
    """And how often it was right."""
    cancelled: int
    expired: int
    failed: int
    broken_steps: int
    """Calls to the device that failed, whoever they were for."""
    preempted: int


@dataclass
class Counters:
    steps: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    read_tokens: int = 0
    new_tokens: int = 0
    passes: int = 0
    cancelled: int = 0
    expired: int = 0
    failed: int = 0
    broken_steps: int = 0
