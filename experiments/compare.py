"""codelm compare: runs side by side, with the fields that differ; their curves over each other."""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from codelm.arithmetic import count_parameters
from codelm.commandline import parse
from codelm.config import Config, field_paths, lookup, resolve
from codelm.errors import UserError
from codelm.midtraining import midtrained
from codelm.publish import check_writable, write_atomically
from experiments import curves, records
from experiments.curves import Axes, Series
from experiments.records import Record
from experiments.sweeps import label

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")]

# What a result says → its column, how it is written (empty: 3.2M), and which of several is best.
MEASURES: dict[str, tuple[str, str, Callable[..., float] | None]] = {
    "held_out_loss": ("held-out loss", ".4f", min),
    "held_out_bits_per_byte": ("bits/byte", ".4f", min),
    "infill_exact": ("infill exact", ".1%", max),
    "infill_similarity": ("infill similarity", ".1%", max),
    "train_loss": ("train loss", ".4f", None),
    "parameters": ("parameters", "", None),
    "tokens": ("tokens", "", None),
    "seconds": ("seconds", ",.0f", None),
}
_POINTS = 300  # of a curve; a longer one is averaged over as many stretches


@dataclass(frozen=True)
class CompareOptions:
    """A table of runs, best first: what they came to, and the fields of their configs that differ."""

    runs: Runs
    """Run folders, and folders of runs."""
    json: bool = False
    """Print JSON."""
    out: Path | None = None
    """Write a page with the table and the curves."""


def compare(argv: list[str], prog: str) -> None:
    options = parse(CompareOptions, argv, prog)
    if options.out:
        check_writable(options.out)
    found = records.load_all(list(options.runs))
    if len(lengths := {last_rows(record.config) for record in found if record.result}) > 1:
        told = " and ".join(map(str, sorted(lengths)))
        print(f"held-out losses are of rows of {told} tokens, and do not compare exactly", file=sys.stderr)
    print(json.dumps(rows(found), indent=1) if options.json else text(found))
    if options.out:
        write_atomically(options.out, page(found).encode())


def last_rows(config: Config) -> int:
    """The length of rows that a run's held-out loss was measured on."""
    return (midtrained(config) if config.midtrain.steps else config).data.seq_len


def rows(found: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each run, best first, those that are not finished last."""
    fields = differing([record.config for record in found])
    ranked = sorted(found, key=lambda record: record.result.get("held_out_loss", float("inf")))
    return [
        {
            "run": record.name,
            "finished": bool(record.result),
            "config": {path: lookup(record.config, path) for path in fields},
            "result": {name: record.result.get(name) for name in MEASURES}
            | {"parameters": count_parameters(record.config.model).total},
        }
        for record in ranked
    ]


def differing(configs: Sequence[Config]) -> list[str]:
    """Paths of fields that are not the same in all, without those that the depth dial sets from the others."""
    fields = [path for path in field_paths(Config) if path != "name"]
    fields = [path for path in fields if any(lookup(c, path) != lookup(configs[0], path) for c in configs)]
    return [path for path in fields if not all(_follows(config, path) for config in configs)]


def _follows(config: Config, path: str) -> bool:
    """Whether a field would be what it is if it were left open."""
    if lookup(Config(), path) != 0 or path.count(".") != 1:
        return False
    group, name = path.split(".")
    left_open = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{name: 0})})
    try:
        return lookup(resolve(left_open), path) == lookup(config, path)
    except UserError:
        return False


def cells(found: Sequence[Record]) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """The table: its head, and for each run what stands in a column and whether it is the best there."""
    table = rows(found)
    fields = list(table[0]["config"])
    shown = [name for name in MEASURES if any(row["result"][name] is not None for row in table)]
    best = {}
    for name in shown:
        values = [row["result"][name] for row in table if row["result"][name] is not None]
        choose = MEASURES[name][2]
        best[name] = choose(values) if choose and len(set(values)) > 1 else None
    head = ["run", *map(label, fields), *(MEASURES[name][0] for name in shown)]
    body = []
    for row in table:
        line = [(row["run"] + ("" if row["finished"] else " (not finished)"), False)]
        line += [(_value(row["config"][path]), False) for path in fields]
        for name in shown:
            value = row["result"][name]
            line.append((_measured(value, MEASURES[name][1]), value is not None and value == best[name]))
        body.append(line)
    return head, body


def text(found: Sequence[Record]) -> str:
    """The table for a terminal; a star marks the best."""
    head, body = cells(found)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for n, name in enumerate(head):
        table.add_column(name, justify="right" if n else "left", no_wrap=bool(n), overflow="fold")
    for line in body:
        table.add_row(*(f"{value} *" if best else value for value, best in line))
    console = Console(highlight=False, markup=False, width=None if os.isatty(1) else 400)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def page(found: Sequence[Record]) -> str:
    head, body = cells(found)
    table = "".join(f"<th{' class=n' if n else ''}>{escape(name)}</th>" for n, name in enumerate(head))
    for line in body:
        kinds = ["", *(" class='n best'" if best else " class=n" for _, best in line[1:])]
        row = (f"<td{kind}>{escape(value)}</td>" for kind, (value, _) in zip(kinds, line, strict=True))
        table += f"<tr>{''.join(row)}</tr>"
    sections, names = [("Results, best first", f"<table><tr>{table}</table>")], short_names(found)
    for key, title in (("loss", "Training loss"), ("held_out/loss", "Held-out loss")):
        curves_of = [curve(record, key) for record in found]
        lines = [
            Series(name, *points, points=len(points[0]) == 1) for name, points in zip(names, curves_of, strict=True)
        ]
        if any(line.x for line in lines):
            sections.append((title, curves.chart(lines, Axes(f"{title} against tokens", "tokens", "nats/token"))))
    return curves.page(f"{len(found)} runs", sections)


def short_names(found: Sequence[Record]) -> list[str]:
    """Names without the parts that all of them have."""
    parts = [re.split(r"-(?=[A-Za-z])", record.name) for record in found]  # not within 1e-05
    common = set.intersection(*map(set, parts)) if len(found) > 1 else set()
    return [
        "-".join(part for part in own if part not in common) or record.name
        for own, record in zip(parts, found, strict=True)
    ]


def curve(record: Record, key: str) -> tuple[list[float], list[float]]:
    """Tokens and values of one measure, over all stages."""
    points: list[tuple[float, float]] = []
    before = now = 0.0
    for line in record.metrics:
        if "tokens" in line:  # an evaluation has none: it follows the line of its step
            if before + line["tokens"] < now:
                before = now  # a stage that counts its own
            now = before + line["tokens"]
        if line.get(key) is not None:
            points.append((now, line[key]))
    size = -(-len(points) // _POINTS) or 1
    means = [np.mean(points[n : n + size], axis=0).tolist() for n in range(0, len(points), size)]
    return [x for x, _ in means], [y for _, y in means]


def _measured(value: float | None, how: str) -> str:
    if value is None:
        return "–"
    return format(value, how) if how else curves.number(float(f"{value:.3g}"))


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
