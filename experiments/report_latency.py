"""How long the requests of evaluations took: the share of them that were answered within a time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float

from experiments.curves import Axes, Series, chart
from experiments.evals.rows import TIMES

_POINTS = 200  # of a curve
_PERCENTILES = (50, 95)
_NOTE = (
    "<p class=note>As the harness asked: typing one request at a time, as a user does; other suites many, so that "
    "their times hold waiting for one another; the first ones also wait for programs to be compiled. Of requests, not "
    "of samples: a suite may ask several times for one.</p>"
)


@dataclass(frozen=True)
class Latency:
    """Of every request of one measurement."""

    first: Float[np.ndarray, " N"]
    """Seconds until the first token."""
    whole: Float[np.ndarray, " N"]
    """… until the last."""
    tokens: Float[np.ndarray, " N"]


def read(folder: Path) -> Latency | None:
    """None where no text was asked for. Of a sample that was done twice, the last counts; a line that was being
    written when a measurement was interrupted is left out."""
    path, asked = folder / TIMES, {}
    for text in path.read_text(encoding="utf-8").split("\n") if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        asked[line["task"], line["sample"]] = line["asked"]
    found = [(one["first"], one["seconds"], one["tokens"]) for of_sample in asked.values() for one in of_sample]
    return Latency(*np.array(found, float).T) if found else None


def section(found: Mapping[str, Latency]) -> str:
    """Curves and a table, by the name of a measurement."""
    charts = [
        _chart("Time to the first token", {name: latency.first for name, latency in found.items()}),
        _chart("Time to the whole answer", {name: latency.whole for name, latency in found.items()}),
    ]
    return _NOTE + "".join(f"<div class=wide>{one}</div>" for one in charts) + _table(found)


def shares(seconds: Float[np.ndarray, " N"]) -> tuple[list[float], list[float]]:
    """Times in order, and the share of the requests that took no longer; of many, evenly spaced ones and the last."""
    ordered = np.sort(seconds)
    kept = np.unique(np.linspace(0, len(ordered) - 1, _POINTS).astype(int))
    return ordered[kept].tolist(), ((kept + 1) / len(ordered)).tolist()


def _chart(title: str, found: Mapping[str, Float[np.ndarray, " N"]]) -> str:
    lines = [Series(name, *shares(seconds), points=len(seconds) == 1) for name, seconds in found.items()]
    return chart(lines, Axes(title, "seconds", "share of requests", log_x=True, height=220))


def _table(found: Mapping[str, Latency]) -> str:
    parts = [f"P{percentile}" for percentile in _PERCENTILES]
    head = [
        "requests",
        "tokens, P50",
        *(f"first token, {part}" for part in parts),
        *(f"whole, {part}" for part in parts),
    ]
    rows = []
    for name, latency in found.items():
        cells = [f"{len(latency.whole):,}", f"{np.median(latency.tokens):,.0f}"]
        cells += [_seconds(value) for value in percentiles(latency.first) + percentiles(latency.whole)]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(f'<td class=n>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th class=n>{name}" for name in head)
    return f"<div class=wide><table><tr><th>suite{heads}</tr>{''.join(rows)}</table></div>"


def line(latency: Latency) -> str:
    """The table's figures of one measurement, for a terminal."""
    (first, slow_first), (whole, slow_whole) = (
        map(_seconds, percentiles(times)) for times in (latency.first, latency.whole)
    )
    return (
        f"latency of {len(latency.whole):,} requests: first token P50 {first}, P95 {slow_first}; "
        f"whole P50 {whole}, P95 {slow_whole}"
    )


def percentiles(seconds: Float[np.ndarray, " N"]) -> list[float]:
    return np.percentile(seconds, _PERCENTILES).tolist()


def _seconds(value: float) -> str:
    return f"{1e3 * value:,.0f} ms" if value < 1 else f"{value:,.1f} s"
