"""`codelm eval compare`: two models on the same suites, what may be chance, and the tasks that changed."""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from codelm.commandline import parse
from codelm.errors import UserError, nearest
from experiments.evals import compare as comparing
from experiments.evals import rows
from experiments.evals.compare import Change, Difference
from experiments.evals.rows import Measured


@dataclass(frozen=True)
class CompareOptions:
    """Compare two evaluations task by task: differences with their intervals and p-values, and the tasks that
    changed."""

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The folder of an evaluation, or one that holds several (RUN/evals): each is compared with its like."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Another such folder: of the model that may be better."""
    metric: str = ""
    """Only this one, such as pass@1; empty = all, and the tasks that changed in the first."""
    most: int = 20
    """Tasks to list that became better, and as many that became worse."""
    json: bool = False
    """Print JSON, with all tasks that changed."""


def compare(argv: Sequence[str], prog: str) -> None:
    options = parse(CompareOptions, argv, prog)
    found = [
        (before, after, _chosen(comparing.compare(before, after), options.metric))
        for before, after in ((rows.load(one), rows.load(other)) for one, other in pairs(options.before, options.after))
    ]
    if options.json:
        print(json.dumps([_plain(*each) for each in found], indent=1))
        return
    print("\n\n".join(text(*each, options.most) for each in found))


def _chosen(found: Mapping[str, Difference], metric: str) -> dict[str, Difference]:
    if not found:
        raise UserError("the two have no scored task in common: nothing to compare")
    if metric and metric not in found:
        raise UserError(f"no metric {metric!r} in both; nearest: {nearest(metric, list(found))!r}")
    return {name: difference for name, difference in found.items() if metric in ("", name)}


def _plain(before: Measured, after: Measured, found: Mapping[str, Difference]) -> dict[str, Any]:
    sides = {
        name: {"folder": str(one.folder), "model": one.header["model"], "contamination": one.header["contamination"]}
        for name, one in (("before", before), ("after", after))
    }
    return {"suite": before.suite, **sides, "metrics": {name: asdict(difference) for name, difference in found.items()}}


# ---- for people ----


def text(before: Measured, after: Measured, found: Mapping[str, Difference], most: int) -> str:
    lines = [before.suite]
    for side, one in (("A", before), ("B", after)):
        model = one.header["model"]
        lines.append(f"{side}  {' '.join(filter(None, (model.get('name'), model.get('checkpoint'))))}  ({one.folder})")
    lines += ["", *_table(found)]
    name, first = next(iter(found.items()))
    for what, changes in (("better", first.better), ("worse", first.worse)):
        if changes:
            more = f", the first {most}" if len(changes) > most else ""
            lines += ["", f"{name} is {what} in {len(changes):,} of {first.before.tasks:,} tasks{more}:"]
            lines += [f"  {_change(change)}" for change in changes[:most]]
    return "\n".join(lines)


def _table(found: Mapping[str, Difference]) -> list[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for n, name in enumerate(("", "A", "B", "B − A", "95 % interval", "p", "better", "worse", "tasks", "left out")):
        table.add_column(name, justify="right" if n else "left", no_wrap=True)
    for name, one in found.items():
        figures = (f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})" for figure in (one.before, one.after))
        counts = (len(one.better), len(one.worse), one.before.tasks, one.left_out)
        span = f"{one.low:+.4f} to {one.high:+.4f}"
        table.add_row(name, *figures, f"{one.value:+.4f}", span, f"{one.p:.2g}", *(f"{count:,}" for count in counts))
    console = Console(highlight=False, markup=False, width=None if os.isatty(1) else 400)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _change(change: Change) -> str:
    return f"{change.before:.3f} → {change.after:.3f}  {change.task}"


# ---- which with which ----


def pairs(before: Path, after: Path) -> list[tuple[Path, Path]]:
    """Evaluations that compare, out of two folders that are one or hold several."""
    ours, theirs = _found(before), _found(after)
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    by_kind = _by_kind(theirs)
    paired = [(one, other) for kind, some in _by_kind(ours).items() for one, other in _matched(some, by_kind[kind])]
    if not paired:
        raise UserError(_nothing(ours, theirs))
    for folder in [*ours, *theirs]:
        if not any(folder in pair for pair in paired):
            print(f"left out, the other side has none like it: {folder}", file=sys.stderr)
    return paired


def _found(folder: Path) -> list[Path]:
    if (folder / rows.HEADER).is_file():
        return [folder]
    if found := rows.find(folder):
        return found
    raise UserError(f"no whole evaluation in {folder} or below: `codelm eval RUN --suite …` makes one")


def _by_kind(folders: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        found[json.dumps(comparing.kind(rows.read_header(folder)))].append(folder)
    return found


def _matched(ours: Sequence[Path], theirs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Of one kind. A side that has several asked in several ways, and those asked in one way belong together."""
    if len(ours) == len(theirs) == 1:
        yield ours[0], theirs[0]
        return
    for one in ours:
        alike = [[folder for folder in side if _way(folder) == _way(one)] for side in (ours, theirs)]
        if alike[1] and len(alike[0]) + len(alike[1]) > 2:
            several = " and ".join(map(str, max(alike, key=len)))
            raise UserError(f"{several} were measured in the same way: name the folder of the one to compare")
        yield from ((one, other) for other in alike[1])


def _way(folder: Path) -> tuple[Any, ...]:
    header = rows.read_header(folder)
    return header["model"].get("mode"), header["model"].get("heal"), header["decoding"]["samples"]


def _nothing(ours: Sequence[Path], theirs: Sequence[Path]) -> str:
    for one in ours:
        for other in theirs:
            headers = rows.read_header(one), rows.read_header(other)
            if headers[0]["suite"]["name"] == headers[1]["suite"]["name"]:
                reason = comparing.different(*headers) or "they were asked in other ways"
                return f"{one} and {other} do not compare ({reason}): measure one again as the other was"
    names = (", ".join(sorted({rows.read_header(one)["suite"]["name"] for one in side})) for side in (ours, theirs))
    return f"no suite is in both: A has {next(names)}, B has {next(names)}"
