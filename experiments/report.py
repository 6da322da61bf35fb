"""A run as a page: what it came to, its curves, where its time went, what the model writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from codelm.config import fingerprint
from codelm.publish import write_atomically
from experiments import by_position, records
from experiments.curves import Axes, Series, chart, page
from experiments.results import SAMPLES
from train.clock import goodput
from train.position_buckets import METRIC
from train.records import EVENTS, read

REPORT = "report.html"
_INCIDENTS = ("resumed", "stopped", "skipped", "checkpoint failed", "damaged", "straggler")
_LOOK = """<style>
.tiles { display: flex; flex-wrap: wrap; gap: 2rem } .tile b { display: block; font-size: 1.5rem; font-weight: 600 }
.tile span, .note { color: var(--soft) } mark { background: #3b7dd833; color: inherit; border-radius: 3px }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .6rem; overflow: auto; font-size: 12px }
</style>"""


def write_report(run: Path) -> None:
    record = records.load(run)
    if record.result.get("fingerprint") != fingerprint(record.config):  # of what the run was before
        record = replace(record, result={})
    write_atomically(run / REPORT, render(record).encode())


def render(run: records.Record) -> str:
    events = read(run.folder / EVENTS)
    trained = [line for line in run.metrics if "loss" in line]
    sections = [("What it came to", _LOOK + _tiles(run, events))]
    sections += [("Curves", "".join(_curves(run, trained)))] if trained else []
    if found := by_position.measured(run.config, run.metrics):
        title = "Loss by position" + ", before and after mid-training" * (by_position.BEFORE in found)
        sections.append((title, by_position.section(found)))
    sections += [
        ("Held out", _held_out(run.result.get("evaluation", {}))),
        ("Where the time went", _time(events)),
        ("What it writes", _samples(run.folder / SAMPLES)),
        ("Where it ran", f"<pre>{escape((run.folder / 'environment.json').read_text())}</pre>"),
        ("Config", f"<pre>{escape((run.folder / 'config.json').read_text())}</pre>"),
    ]
    return page(run.name, sections)


def _tiles(run: records.Record, events: Sequence[Mapping[str, Any]]) -> str:
    result, spent = run.result, total_time(events)

    def shown(key: str, how: str, scale: float = 1.0, unit: str = "") -> str:
        value = result.get(key)
        return "–" if value is None else f"{value * scale:{how}}{unit}"

    tiles = {
        "held-out nats/token": shown("held_out_loss", ".2f"),
        "unigram entropy": shown("unigram_loss", ".2f"),
        "held-out bits per byte": shown("held_out_bits_per_byte", ".3f"),
        "infilling, exact": shown("infill_exact", ".1%"),
        "… edit similarity": shown("infill_similarity", ".2f"),
        "parameters": shown("parameters", ".1f", 1e-6, "M"),
        "tokens": shown("tokens", ".2f", 1e-6, "M"),
        "goodput of all sessions": f"{goodput(spent, lost_seconds(events)):.0%}" if spent else "–",
    }
    inside = "".join(f"<div class=tile><b>{value}</b><span>{name}</span></div>" for name, value in tiles.items())
    unfinished = "" if result else "<p class=note>Not finished: the same command goes on.</p>"
    return f"{unfinished}<div class=tiles>{inside}</div>"


def _curves(run: records.Record, trained: Sequence[Mapping[str, Any]]) -> list[str]:
    at = _positions(run)

    def series(name: str, key: str, lines: Sequence[Mapping[str, Any]], points: bool = False) -> Series:
        found = [line for line in lines if key in line]
        return Series(name, [at(line) for line in found], [float(line[key]) for line in found], points=points)

    held = [line for line in run.metrics if "held_out/loss" in line]
    stages = [line["stage"] for line in trained]
    marks = tuple(
        (at(trained[n - 1]), stage) for n, stage in enumerate(stages) if n and stage != stages[n - 1]
    )  # where the next stage begins
    ends = [at(trained[0]), at(trained[-1])]
    losses = [series("training", "loss", trained), series("held out", "held_out/loss", held, points=True)]
    if "unigram_loss" in run.result:
        losses.append(Series("unigram entropy", ends, [run.result["unigram_loss"]] * 2, dashed=True))
    norms = sorted({key for line in trained for key in line if key.startswith("grad_norm")})
    speed = [{**line, "speed": line["speed"]["tokens_per_second"]} for line in trained if "speed" in line]
    return [
        chart(losses, Axes("Loss", "steps", "nats/token", marks=marks)),
        chart([series("learning rate", "learning_rate", trained)], Axes("Learning rate", "steps", "", marks=marks)),
        chart(
            [series(key.removeprefix("grad_norm/").replace("grad_norm", "all"), key, trained) for key in norms],
            Axes("Gradient norm", "steps", "", log_y=True, marks=marks),
        ),
        chart([series("tokens/s", "speed", speed)], Axes("Speed", "steps", "tokens/s", marks=marks)),
    ]


def _positions(run: records.Record) -> Any:
    """Steps counted on from stage to stage."""
    before = {"pretrain": 0, "midtrain": run.config.train.steps}
    return lambda line: line["step"] + before[line["stage"]]


def _held_out(found: Mapping[str, float]) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td><td class=n>{value:.4f}</td></tr>"
        for name, value in sorted(found.items())
        if not name.startswith(METRIC)  # these have a section of their own
    ]
    return f"<table>{''.join(rows)}</table>"


def total_time(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by part over all sessions of a run that came to an end by themselves."""
    spent: dict[str, float] = {}
    for event in events:
        for part, seconds in event.get("clock", {}).items() if event["event"] == "session" else ():
            spent[part] = spent.get(part, 0.0) + seconds
    return spent


def lost_seconds(events: Sequence[Mapping[str, Any]]) -> float:
    """Of training that restarts had to do again."""
    return sum((event["lost_seconds"] for event in events if event["event"] == "resumed"), 0.0)


def _time(events: Sequence[Mapping[str, Any]]) -> str:
    spent, lost = total_time(events), lost_seconds(events)
    whole = max(sum(spent.values()), 1e-9)
    rows = [
        f"<tr><td>{part}</td><td class=n>{seconds:.1f} s</td><td class=n>{seconds / whole:.1%}</td></tr>"
        for part, seconds in spent.items()
    ]
    rows.append(f"<tr><td>productive, but done again</td><td class=n>{lost:.1f} s</td><td class=n></td></tr>")
    firsts = [
        f"<tr><td>{escape(event['stage'])}</td><td>{escape(event['function'])}</td>"
        + "".join(f"<td class=n>{event['seconds'][part]:.1f} s</td>" for part in ("trace", "lower", "compile", "first"))
        for event in events
        if event["event"] == "compiled"
    ]
    head = "<tr><th>stage<th>step<th class=n>trace<th class=n>lower<th class=n>compile<th class=n>first</tr>"
    happened = [event for event in events if event["event"] in _INCIDENTS]
    said = "".join(f"<li>{escape(json.dumps(event))}</li>" for event in happened[-50:])
    first = f"<h3>Until the first step</h3><table>{head}{''.join(firsts)}</table>" if firsts else ""
    return f"<table>{''.join(rows)}</table>{first}" + (f"<h3>Incidents</h3><ul>{said}</ul>" if said else "")


def _samples(path: Path) -> str:
    if not path.exists():
        return "<p class=note>Nothing yet.</p>"
    parts = []
    for sample in json.loads(path.read_text()):
        if "prompt" in sample:
            parts.append(f"<pre>{escape(sample['prompt'])}<mark>{escape(sample['completion'])}</mark></pre>")
            continue
        where = f"<p class=note>{escape(sample['path'])}: {_verdict(sample)}</p>" if "path" in sample else ""
        before, after = escape(sample["prefix"]), escape(sample["suffix"])
        parts.append(f"{where}<pre>{before}<mark>{escape(sample['completion'])}</mark>{after}</pre>")
    return "".join(parts)


def _verdict(sample: Mapping[str, Any]) -> str:
    if sample["completion"] == sample["middle"]:
        return "as it was"
    return f"similarity {sample['similarity']:.2f}; there stood <code>{escape(sample['middle'])}</code>"
