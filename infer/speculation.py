"""Drafting: what may come next, whether it pays to verify it, and what came of it.

A draft never changes a text. `infer.programs.verify` chooses at every place the token that decoding would choose
there, with that place's own noise, and keeps of the draft what agrees. Of a draft that comes from looking back, the
chance that its token is the one chosen is p, the model's own: min(1, p/q) of the acceptance rule for a draft without
any doubt; and given that it is not, what is chosen is distributed as p without it: that rule's residual. A draft
model's tokens are drawn with the noise of the places they are for, so that the two agree more often than apart. By the
rule they would agree a little more often yet, but then the same seed would give another text with every other draft.

How often drafts are right is learnt for each kind, first of all requests and soon of each its own; what verifying costs
was measured when the engine was warmed up. A request whose drafts do not pay is decoded without, and while its drafts
cost nothing to make they are compared with what came, so that it may begin again.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from infer.device import Costs, Device
from infer.draft_model import DraftModel
from infer.lookup import LONGEST, Lookup
from infer.request import Request
from infer.run import Run

log = logging.getLogger("infer.speculation")

# Kinds of drafts. Those that come from looking back by how many tokens were found in front of them, at least.
MATCHED = (1, 2, 4, 8)
HEADS, MODEL = len(MATCHED), len(MATCHED) + 1
FIRST_ODDS = (0.3, 0.5, 0.7, 0.9, 0.6, 0.7)  # that a token is right, if those before it are
SURE = 4.0  # how many tokens' experience an expectation is worth
FORGETS = 0.9  # how much of what was learnt is left after one draft more
WORTH = 1.03  # times as many tokens a second as by decoding, or it does not pay


class Draft(NamedTuple):
    tokens: list[int]
    kind: int


@dataclass
class Experience:
    """Of the tokens that drafts of each kind had, as far as they were right and one more, how many were."""

    right: list[float] = field(default_factory=lambda: [0.0] * len(FIRST_ODDS))
    tried: list[float] = field(default_factory=lambda: [0.0] * len(FIRST_ODDS))

    def odds(self, kind: int, expected: float) -> float:
        return (SURE * expected + self.right[kind]) / (SURE + self.tried[kind])

    def learn(self, kind: int, right: int, tried: int) -> None:
        self.right[kind] = FORGETS * self.right[kind] + right
        self.tried[kind] = FORGETS * self.tried[kind] + tried


class Speculation:
    def __init__(self, widths: Sequence[int], always: bool, model: DraftModel | None) -> None:
        """With `always`, whatever drafts there are, are verified."""
        self.widths, self.always, self.model = widths, always, model
        self.experience = Experience()
        self.own: WeakKeyDictionary[Run, Experience] = WeakKeyDictionary()
        self.drafted = [0] * (widths[-1] - 1)
        """How often there was a token at each place of a draft that was verified."""
        self.accepted = [0] * (widths[-1] - 1)
        """And how often it was right."""

    def plan(self, runs: Sequence[Run], device: Device) -> tuple[dict[Run, Draft], bool]:
        """A draft for each, which may be empty, and whether to verify them."""
        drafts, verifies = self._plan(runs, device.costs_of(runs))
        if verifies:
            drafts = {run: draft._replace(tokens=_possible(run, draft.tokens)) for run, draft in drafts.items()}
        return drafts, verifies and any(draft.tokens for draft in drafts.values())

    def _plan(self, runs: Sequence[Run], costs: Costs | None) -> tuple[dict[Run, Draft], bool]:
        drafts = {run: self._draft(run) for run in runs}
        if self.always:
            drafts |= self._by_model(runs, drafts, self.widths[-1] - 1)
            return drafts, any(draft.tokens for draft in drafts.values())
        if costs is None:  # not warm: nothing is known, and compiling would cost more than drafts save
            return drafts, False
        width, rate = self._best(drafts, costs, 0.0)
        if self.model:
            guessed = {run: self._better(run, draft) for run, draft in drafts.items()}
            there = [run for run, draft in guessed.items() if draft.kind == MODEL]
            by_model, faster = self._best(guessed, costs, self.model.seconds(there))
            if there and by_model and faster > rate:
                drafts |= self._by_model(there, drafts, by_model - 1)
                width = by_model
        if width:
            drafts = {run: Draft(draft.tokens[: width - 1], draft.kind) for run, draft in drafts.items()}
        return drafts, width > 0 and any(draft.tokens for draft in drafts.values())

    def learn(self, run: Run, draft: Draft, tokens: Sequence[int], verified: bool) -> None:
        """What came, where that was drafted."""
        compared = min(len(draft.tokens), len(tokens))
        right = next((i for i in range(compared) if draft.tokens[i] != tokens[i]), compared)
        if compared:
            tried = right + (right < compared)
            for experience in (self.experience, self.own.setdefault(run, Experience())):
                experience.learn(draft.kind, right, tried)
        if verified:
            for place in range(len(draft.tokens)):
                self.drafted[place] += 1
                self.accepted[place] += place < right
            run.stream.timing.drafted += len(draft.tokens)
            run.stream.timing.accepted += right

    def odds(self, run: Run, kind: int) -> float:
        expected = self.experience.odds(kind, FIRST_ODDS[kind])
        return self.own[run].odds(kind, expected) if run in self.own else expected

    def _draft(self, run: Run) -> Draft:
        """Without a model, whichever promises most: what was found looking back, or what the further heads expect."""
        room = self._room(run)
        if run.lookup is None or not room:
            return Draft([], 0)
        tokens, matched = run.lookup.draft(room)
        found = Draft(tokens, max(sum(matched >= least for least in MATCHED) - 1, 0))
        heads = Draft([token for token in run.ahead[:room] if token >= 0], HEADS)
        return max(found, heads, key=lambda draft: self._right(run, draft, self.widths[-1]))

    def _room(self, run: Run) -> int:
        """For a draft: less than is left, for a token of the model's own comes after it; 0 where none is wanted."""
        return max(min(self.widths[-1], run.request.max_new_tokens - run.written) - 1, 0) if run.lookup else 0

    def _right(self, run: Run, draft: Draft, width: int) -> float:
        """How many of a draft's tokens to expect."""
        odds = self.odds(run, draft.kind)
        return sum((odds**n for n in range(1, min(len(draft.tokens), width - 1) + 1)), 0.0)

    def _best(self, drafts: Mapping[Run, Draft], costs: Costs, drafting: float) -> tuple[int, float]:
        """The width with which most tokens come in a second, and how many; 0 if decoding is as fast.

        `drafting`: what a draft model's token costs."""
        best, rate = 0, WORTH * len(drafts) / costs.step
        for width, seconds in costs.widths.items():
            tokens = sum(1 + self._right(run, draft, width) for run, draft in drafts.items())
            if tokens / (seconds + drafting * width) > rate:
                best, rate = width, tokens / (seconds + drafting * width)
        return best, rate

    def _better(self, run: Run, draft: Draft) -> Draft:
        """Or one by the model, if that promises more; its tokens are not known yet."""
        guess = Draft([0] * self._room(run), MODEL)
        return max(draft, guess, key=lambda each: self._right(run, each, self.widths[-1]))

    def _by_model(self, runs: Sequence[Run], others: Mapping[Run, Draft], most: int) -> dict[Run, Draft]:
        """Of at most so many tokens; the others where it has none. A draft model that fails spoils no text."""
        if self.model is None:
            return {}
        try:
            made = self.model.draft({run: min(most, self._room(run)) for run in runs if self._room(run)})
        except Exception:
            log.exception("the draft model failed; it goes on with nothing read")
            self.model.reset()
            return {}
        return {run: Draft(tokens, MODEL) if tokens else others[run] for run, tokens in made.items()}


def lookup_of(request: Request) -> Lookup | None:
    """Where to look for what may come next in it."""
    if request.drafts is None:
        return None
    own = request.drafts.after or request.ids
    expected = [*own[-LONGEST:], *request.drafts.expected] if request.drafts.expected else []
    prompt = request.ids if request.drafts.after else []
    return Lookup([prompt, *request.drafts.texts, expected], own)


def _possible(run: Run, draft: Sequence[int]) -> list[int]:
    """As much of a draft as a run could write: nothing that ends it, and what its constraint allows. What it allows
    after each token is noted in the run."""
    possible: list[int] = []
    for token in draft:
        if token in run.request.stop_ids:
            break
        if run.constraint and run.allowed:
            mask = run.allowed[-1]
            if not (token < len(mask) and mask[token]):
                break
            run.constraint.advance(token)
            try:
                after = run.constraint.allowed()
            except Exception:  # a dead end: to be told of if it is really taken
                run.constraint.rewind(1)
                break
            run.allowed.append(np.ones_like(mask) if after is None else after)
        possible.append(token)
    if run.constraint:
        run.constraint.rewind(len(possible))
    return possible
