"""Drafts by a small model that reads along: its own keys and values in pages of its own, one text for each that runs.

It draws its tokens with the noise of the places that they are for, as the large model will: where the two distributions
are alike, so are mostly the tokens. What it wrote and the large one did not is taken back by writing over it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from codelm.errors import UserError
from codelm.lm import LM
from infer.device import Device, Shapes
from infer.memory import count_pages, pages_of_one
from infer.pages import Group, Pages
from infer.run import Run


class DraftModel:
    def __init__(self, lm: LM, large: LM, shapes: Shapes, rows: int, context: int) -> None:
        """For a large model that is served in so many rows, and texts as long as its context."""
        _check_vocabulary(lm, large)
        if lm.config.rope.scaling == "dynamic":
            raise UserError("a draft model with dynamic rope scaling would read each text anew: give another")
        if lm.config.max_seq_len and lm.config.max_seq_len < context:
            raise UserError(
                f"the draft model reads {lm.config.max_seq_len:,} tokens at most, and the context is {context:,}: "
                "give a smaller context, or another draft model"
            )
        self.shapes = replace(shapes, steps=shapes.widths[-1], widths=())
        config, dtype = lm.config, lm.config.compute_dtype
        of_one = pages_of_one(config, context, self.shapes.adds, shapes.page)
        counts = count_pages(config, of_one, rows, shapes.page, dtype, 0)
        self.pages = Pages([Group(count, window) for window, count in counts.items()], shapes.page)
        self.device = Device(lm.model, self.shapes, counts, dtype)
        self.shadows: dict[Run, Run] = {}
        """Of each text that runs, the same with what was drafted after it, and this model's keys and values."""

    def draft(self, most: Mapping[Run, int]) -> dict[Run, list[int]]:
        """So many tokens for each at most; none for one that it has not read to the end yet."""
        shadows = {run: shadow for run in most if (shadow := self._caught_up(run, most[run]))}
        drafts: dict[Run, list[int]] = {run: [] for run in most}
        if not shadows:
            return drafts
        # One more than is drafted, so that the last one's keys are there if all are right.
        written = self.device.decode({shadow: most[run] + 1 for run, shadow in shadows.items()})
        for run, shadow in shadows.items():
            tokens = [token for token, _ in written[shadow] if token >= 0]
            shadow.ids = run.ids + tokens[:-1]
            shadow.lease.length = len(shadow.ids)
            drafts[run] = tokens[: most[run]]
        return drafts

    def seconds(self, runs: Sequence[Run]) -> float:
        """Of a token for each."""
        costs = self.device.costs_of(runs) if runs else None
        return costs.step if costs else math.inf

    def drop(self, run: Run) -> None:
        if shadow := self.shadows.pop(run, None):
            self.pages.release(shadow.lease)
            self.device.drop(shadow)

    def reset(self) -> None:
        """What a failed call was given is used up."""
        for run in list(self.shadows):
            self.drop(run)
        self.pages.forget()
        self.device.reset()

    def _caught_up(self, run: Run, most: int) -> Run | None:
        """A text's shadow, if after reading one chunk at most it is where the text is."""
        shadow = self.shadows.get(run)
        if shadow is None:
            shadow = replace(run, ids=[], held=self.pages.acquire(run.ids), constraint=None, allowed=None)
            self.device.copy(shadow.lease.copies)
            shadow.lease.copies.clear()
            self.shadows[run] = shadow
        lease = shadow.lease
        if shadow.ids:  # of what was drafted, what was not written after all is written over
            lease.length = min(lease.length, _common(shadow.ids, run.ids), len(run.ids) - 1)
        shadow.ids = list(run.ids)
        if not self.pages.reserve(lease, len(run.ids) + most):
            return None
        self.pages.written(lease, run.ids[: lease.length])
        left = len(run.ids) - 1 - lease.length
        if left:
            count = min(left, self.shapes.chunks[-1])
            self.device.extend(shadow, count, last=False)
            self.pages.written(lease, run.ids[: lease.length + count])
        return shadow if lease.length == len(run.ids) - 1 else None


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    if first == second[: len(first)]:
        return len(first)
    differ = (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differ, min(len(first), len(second)))


def _check_vocabulary(lm: LM, large: LM) -> None:
    ours, theirs = ((each.tokenizer.pieces if each.tokenizer else each.config.vocab_size) for each in (lm, large))
    if ours != theirs:
        raise UserError(
            f"the draft model's vocabulary of {lm.config.vocab_size:,} tokens is not the model's of "
            f"{large.config.vocab_size:,}: give a draft model with the same tokenizer"
        )
