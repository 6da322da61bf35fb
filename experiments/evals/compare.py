"""Two measurements of one suite, task by task: how they differ, whether by chance, and which tasks changed.

What makes scores incomparable has to be the same, and only tasks that both have scored count. The p-value is of the
sign-flip test: if the models were equally good, a task's two results could as well have been the other way round. For
outcomes of 0 and 1 that is McNemar's exact test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from codelm.errors import UserError
from experiments.evals import statistics
from experiments.evals.rows import Measured
from experiments.evals.statistics import Figure, Parts
from experiments.evals.suite import LESS_IS_BETTER, Metric

_ENUMERATED = 14  # tasks that differ: from more on, flips are drawn
_FLIPS = 20_000
_SIGNS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Change:
    task: str
    before: float
    after: float


@dataclass(frozen=True)
class Difference:
    """In one metric."""

    before: Figure
    after: Figure
    value: float
    """After less before."""
    low: float
    """Of the 95 % interval."""
    high: float
    p: float
    left_out: int
    """Tasks that only one of the two has scored."""
    better: tuple[Change, ...]
    """Tasks that changed, the largest change first."""
    worse: tuple[Change, ...]


def compare(before: Measured, after: Measured) -> dict[str, Difference]:
    """By metric."""
    if reason := different(before.header, after.header):
        raise UserError(
            f"{before.folder} and {after.folder} do not compare ({reason}): measure one again as the other was"
        )
    metrics: dict[str, Metric] = before.header["suite"]["metrics"]
    ks = sorted(set(_ks(before)) & set(_ks(after)))
    ours, theirs = (
        statistics.parts([row for row in measured.rows if row.counts], metrics, ks) for measured in (before, after)
    )
    return {
        name: difference(ours[name], theirs[name], lower_is_better=metrics.get(name) in LESS_IS_BETTER)
        for name in ours
        if name in theirs and set(ours[name].tasks) & set(theirs[name].tasks)
    }


def difference(before: Parts, after: Parts, lower_is_better: bool = False) -> Difference:
    both = set(before.tasks) & set(after.tasks)
    left_out = len(set(before.tasks) ^ set(after.tasks))
    before, after = before.of(both), after.of(both)
    value = after.value - before.value
    if before.is_share and after.is_share:
        low, high = statistics.share_interval(after.top - before.top, -1.0, 1.0)
    else:
        one, other = statistics.resampled(before, after)
        low, high = statistics.interval(value, other - one, len(both))
    higher, lower = _changes(before, after)
    better, worse = (lower, higher) if lower_is_better else (higher, lower)
    figures = statistics.figure(before), statistics.figure(after)
    return Difference(*figures, value, low, high, p_value(before, after), left_out, better, worse)


def p_value(before: Parts, after: Parts) -> float:
    """How likely a difference as large, either way, if in every task chance alone said which result is whose."""
    top, bottom = after.top - before.top, after.bottom - before.bottom
    differ = np.flatnonzero((top != 0) | (bottom != 0))
    if not len(differ):
        return 1.0
    tops, bottoms = (before.top + after.top).sum(), (before.bottom + after.bottom).sum()

    def sizes(signs: Float[np.ndarray, "F D"]) -> Float[np.ndarray, " F"]:
        up, down = signs @ top[differ], signs @ bottom[differ]
        return np.abs((tops + up) / (bottoms + down) - (tops - up) / (bottoms - down))

    [seen] = sizes(np.ones((1, len(differ)))) * (1 - 1e-9)  # as large but for rounding is as large
    if len(differ) <= _ENUMERATED:
        flips = np.arange(2 ** len(differ))[:, None] >> np.arange(len(differ)) & 1
        return float((sizes(1.0 - 2.0 * flips) >= seen).mean())
    larger = sum(int((sizes(signs) >= seen).sum()) for signs in _drawn_signs(len(differ)))
    return (larger + 1) / (_FLIPS + 1)


def _drawn_signs(count: int) -> Iterator[Float[np.ndarray, "F D"]]:
    rng, each = np.random.default_rng(0), max(_SIGNS_AT_ONCE // count, 1)
    for start in range(0, _FLIPS, each):
        yield 1.0 - 2.0 * rng.integers(2, size=(min(each, _FLIPS - start), count), dtype=np.int8)


def _changes(before: Parts, after: Parts) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """Tasks whose value is higher afterwards, and those whose is lower."""
    values = zip(before.tasks, (before.top / before.bottom).tolist(), (after.top / after.bottom).tolist(), strict=True)
    changed = [Change(*of) for of in values]
    changed.sort(key=lambda change: (-abs(change.after - change.before), change.task))
    higher = tuple(change for change in changed if change.after > change.before)
    return higher, tuple(change for change in changed if change.after < change.before)


def _ks(measured: Measured) -> Iterator[int]:
    for name in measured.result["figures"]:
        metric, at, k = name.rpartition("@")
        if at and measured.header["suite"]["metrics"].get(metric) == "passes":
            yield int(k)


def kind(header: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for scores to compare; more samples, or other ones, only make a figure surer."""
    suite, how, decoding = header["suite"], header["postprocessing"], header["decoding"]
    return {
        "suite": suite["name"],
        "suite's version": suite["version"],
        "tasks' SHA-256": suite["sha256"][:12],
        "metrics": suite["metrics"],
        "harness": header["harness"],
        "post-processing": f"{how['name']} {how['version']}",
        **{name: decoding[name] for name in ("temperature", "top_p", "max_new_tokens", "stop")},
    }


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What forbids to compare, for a person to read; empty if nothing does."""
    one, other = kind(before), kind(after)
    return "; ".join(f"{name} {one[name]!r} and {other[name]!r}" for name in one if one[name] != other[name])
