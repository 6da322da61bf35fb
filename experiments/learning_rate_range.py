"""A learning-rate range test: one short run whose rate grows from step to step, and what its losses say.

>>> suggest(np.geomspace(1e-5, 1, 100), losses).rate

The loss first stays, then falls ever faster, and past some rate it rises again. A rate to try is a tenth of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from codelm.errors import UserError

type Values = Float[np.ndarray, " S"]

_WINDOW = 0.06  # of all steps: a loss is the mean of its neighbourhood
_LOST = 0.25  # of what was gained: when that is lost again, the rate is too high
_BELOW = 0.1  # of the rate that is too high
_NOISE = 3.0  # standard errors that a fall must be larger than


@dataclass(frozen=True)
class Suggestion:
    """What a range test found."""

    smooth: Values
    """Each loss as the mean of its neighbourhood; as many as there are losses up to the first that is no number."""
    steepest: float
    """The rate at which the loss falls fastest."""
    diverges: float
    """The rate past which it rises; infinite if it never does."""

    @property
    def rate(self) -> float:
        """A peak rate to try: a tenth of what diverges, or else the steepest."""
        return _BELOW * self.diverges if np.isfinite(self.diverges) else self.steepest


def suggest(rates: Values, losses: Values) -> Suggestion:
    """`losses` before the update of each rate; there may be fewer, if the run was given up."""
    finite = np.isfinite(losses)
    end = len(losses) if finite.all() else int(np.argmin(finite))
    window = max(round(_WINDOW * len(rates)) // 2, 1)
    if end < 6 * window:
        raise UserError(f"the loss was no number after {end} steps, at a rate of {rates[end]:.2g}: lower --low")
    smooth = np.array([losses[max(n - window, 0) : min(n + window + 1, end)].mean() for n in range(end)])
    best = int(np.argmin(smooth))
    gained = smooth[0] - smooth[best]
    noise = np.std((losses[:end] - smooth)[: best + window]) / np.sqrt(window)
    if gained <= _NOISE * noise:
        raise UserError(f"the loss did not fall anywhere up to a rate of {rates[end - 1]:.2g}: raise --high or --steps")
    slope = np.gradient(smooth, np.log(rates[:end]))
    over = np.flatnonzero(smooth[best:] > smooth[best] + _LOST * gained)
    stopped = float(rates[end]) if end < len(rates) else np.inf
    diverges = float(rates[best + over[0]]) if len(over) else stopped
    return Suggestion(smooth, float(rates[int(np.argmin(slope[: best + 1]))]), diverges)


def until_hopeless(losses: Iterator[float], worse: float = 2.0) -> Iterator[float]:
    """Losses up to the first that is no number, or so many times the best before it."""
    best = np.inf
    for loss in losses:
        yield loss
        if not loss <= worse * best:
            return
        best = min(best, loss)
