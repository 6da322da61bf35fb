"""A measurement as a person reads it in a terminal."""

import io
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import report_latency
from experiments.evals.rows import Measured

_MOST_VALUES = 12  # of one slice
_MOST_REASONS = 6


def table(measured: Measured) -> str:
    """Every figure with its interval, by slice too, and why samples were wrong."""
    result, header = measured.result, measured.header
    names = list(result["figures"])
    out = Table(title=f"{measured.suite} v{header['suite']['version']}", title_justify="left")
    for name in ("", *names, "tasks"):
        out.add_column(name, justify="left" if not name else "right")
    out.add_row("all", *(shown(result["figures"].get(name)) for name in names), str(result["tasks"]))
    for slice_name, values in result["slices"].items():
        if len(values) > 1 or slice_name == "corpus":
            for value, figures in list(values.items())[:_MOST_VALUES]:
                tasks = max((figure["tasks"] for figure in figures.values()), default=0)
                out.add_row(f"{slice_name} {value}", *(shown(figures.get(name)) for name in names), str(tasks))
    return _drawn(out) + _told(measured)


def shown(figure: Mapping[str, Any] | None) -> str:
    """A figure and its 95 % interval."""
    if figure is None:
        return "–"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _told(measured: Measured) -> str:
    result, header = measured.result, measured.header
    lines = [
        f"{result['samples']:,} samples of {result['tasks']:,} tasks; intervals are of 95 %, over tasks and samples"
    ]
    if result["not_run"]:
        lines.append(f"{result['not_run']:,} samples were not run, and count neither way")
    if result["reasons"]:
        most = list(result["reasons"].items())
        more = f", {len(most) - _MOST_REASONS} more" if len(most) > _MOST_REASONS else ""
        lines.append("; ".join(f"{count:,} {reason}" for reason, count in most[:_MOST_REASONS]) + more)
    if latency := report_latency.read(measured.folder):
        lines.append(report_latency.line(latency))
    found = header["contamination"]
    told = f", {found['share']:.1%} of the tasks overlap the training corpus" if "share" in found else ""
    lines.append(f"contamination: {found['status']}{told}")
    return "".join(f"{line}\n" for line in lines)


def _drawn(out: Table) -> str:
    terminal = sys.stdout.isatty()
    drawn = io.StringIO()
    Console(file=drawn, width=None if terminal else 200, force_terminal=terminal).print(out)
    return drawn.getvalue()
