"""The scaling law L(N, D) = E + A / N^alpha + B / D^beta, fitted to losses of runs of several sizes and lengths.

As in Hoffmann et al. 2022 (approach 3): the Huber loss of the log loss, minimised from several starts.

>>> law = fit(parameters, tokens, losses)
>>> law.optimal(1e21)  # how many parameters, and tokens, get most out of so many FLOPs
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize, nnls

from codelm.errors import UserError

type Values = Float[np.ndarray, " R"]

FLOPS_PER_PARAMETER = 6  # and token: forward and backward
_DELTA = 1e-3  # a relative error beyond which a run weighs by its distance, no longer by its square
_CONSTANTS = 5
_LEAST_VALUES = 3  # of N and of D: with two of them a line through them has any curvature
_COLLINEAR = 0.995  # correlation of log N and log D from which their parts cannot be told apart
_STARTS = 4
_LEAST_SPAN = 1e-3  # of the loss, that a term must change it by from one end of the runs to the other
_EXPONENTS = np.linspace(0.05, 1.2, 24)


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats a token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: Values, tokens: Values) -> Values:
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta

    def optimal(self, flops: float) -> tuple[float, float]:
        """N and D of the lowest loss with 6 N D = flops: where dL/dlog N = dL/dlog D."""
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        product = flops / FLOPS_PER_PARAMETER
        parameters = balance * product ** (self.beta / (self.alpha + self.beta))
        return parameters, product / parameters


def check(parameters: Values, tokens: Values, losses: Values) -> None:
    """Refuse runs that do not tell the five constants."""
    if not all(np.isfinite(values).all() and (values > 0).all() for values in (parameters, tokens, losses)):
        raise UserError("parameters, tokens and losses must be positive numbers: leave out the run where one is not")
    points = len({*zip(parameters.tolist(), tokens.tolist(), strict=True)})
    if points <= _CONSTANTS:
        raise UserError(f"{points} different runs are too few for {_CONSTANTS} constants: give at least 6, better 15")
    for values, what in ((parameters, "model sizes"), (tokens, "numbers of tokens")):
        if (count := len(np.unique(values))) < _LEAST_VALUES:
            raise UserError(f"the runs have {count} {what}: the law needs at least {_LEAST_VALUES} of them")
    if abs(np.corrcoef(np.log(parameters), np.log(tokens))[0, 1]) > _COLLINEAR:
        raise UserError("tokens follow from the model size in all runs: train each size on several numbers of tokens")


def fit(parameters: Values, tokens: Values, losses: Values) -> Law:
    check(parameters, tokens, losses)
    runs = (parameters, tokens, losses)
    law = min((_descended(law, *runs) for law in _starts(*runs)), key=lambda law: _distance(law, *runs))
    for part, term in (("model size", law.A * parameters**-law.alpha), ("tokens", law.B * tokens**-law.beta)):
        # An overflow, or a term that hardly moves the loss, leaves its exponent to chance.
        if not (np.isfinite(term).all() and np.ptp(term) > _LEAST_SPAN * np.mean(losses)):
            raise UserError(f"these runs do not tell how the loss falls with the {part}: take a wider range of it")
    return law


def resampled(law: Law, parameters: Values, tokens: Values, losses: Values, times: int, seed: int = 0) -> list[Law]:
    """Laws fitted to as many runs drawn with replacement: how far the constants are known."""
    rng, laws = np.random.default_rng(seed), []
    while len(laws) < times:
        drawn = rng.integers(0, len(losses), len(losses))
        runs = (parameters[drawn], tokens[drawn], losses[drawn])
        try:
            check(*runs)
        except UserError:
            continue  # the same few runs again and again
        laws.append(_descended(law, *runs))
    return laws


def interval(values: Sequence[float]) -> tuple[float, float]:
    """That holds 95 % of them."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def explained(law: Law, parameters: Values, tokens: Values, losses: Values) -> float:
    """R²: the share of the variance of the log loss that the law explains."""
    rest = np.log(losses) - np.log(law.loss(parameters, tokens))
    return float(1 - np.sum(rest**2) / np.sum((np.log(losses) - np.log(losses).mean()) ** 2))


def _starts(parameters: Values, tokens: Values, losses: Values) -> list[Law]:
    """The best of a grid of exponents. With those given the rest is linear: least squares, none below zero."""
    found = []
    for alpha in _EXPONENTS:
        for beta in _EXPONENTS:
            sizes = [float(np.exp(np.mean(np.log(values)))) for values in (parameters, tokens)]
            columns = [np.ones_like(losses), (parameters / sizes[0]) ** -alpha, (tokens / sizes[1]) ** -beta]
            (e, a, b), distance = nnls(np.stack(columns, axis=1) / losses[:, None], np.ones_like(losses))
            if a > 0 and b > 0:
                law = Law(max(e, 1e-3), a * sizes[0] ** alpha, b * sizes[1] ** beta, float(alpha), float(beta))
                found.append((distance, astuple(law)))
    if not found:
        raise UserError("the loss does not fall with the model size and with the tokens: no such law fits these runs")
    return [Law(*constants) for _, constants in sorted(found)[:_STARTS]]


def _descended(law: Law, parameters: Values, tokens: Values, losses: Values) -> Law:
    """BFGS from a law, in logarithms of the constants about the middle of the runs, where they depend little on each
    other. Not SciPy's L-BFGS-B, whose threads take ten times as long over five numbers."""
    middle = np.mean(np.log(parameters)), np.mean(np.log(tokens))
    away = np.log(parameters) - middle[0], np.log(tokens) - middle[1]

    def objective(x: Float[np.ndarray, "5"]) -> tuple[float, Float[np.ndarray, "5"]]:
        alpha, beta = np.exp(x[3:])
        terms = np.stack([np.full_like(losses, x[0]), x[1] - alpha * away[0], x[2] - beta * away[1]])
        total = np.logaddexp.reduce(terms)
        rest = (total - np.log(losses)) / _DELTA
        slope = np.clip(rest, -1, 1)
        pulls = np.exp(terms - total) * slope / _DELTA
        bends = -alpha * np.sum(pulls[1] * away[0]), -beta * np.sum(pulls[2] * away[1])
        return float(np.sum(slope * (rest - slope / 2))), np.array([*np.sum(pulls, axis=1), *bends])

    logs = np.log(astuple(law))
    start = logs - [0, law.alpha * middle[0], law.beta * middle[1], 0, 0]
    x = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-3, "maxiter": 1000}).x
    alpha, beta = np.exp(x[3:])
    E, A, B = np.exp(x[:3] + np.array([0, alpha * middle[0], beta * middle[1]]))
    return Law(float(E), float(A), float(B), float(alpha), float(beta))


def _distance(law: Law, parameters: Values, tokens: Values, losses: Values) -> float:
    """What the fit minimises."""
    rest = np.abs(np.log(law.loss(parameters, tokens)) - np.log(losses)) / _DELTA
    return float(np.sum(np.where(rest <= 1, rest**2 / 2, rest - 0.5)))
