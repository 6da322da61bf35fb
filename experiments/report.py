"""A run as a page: what it came to, what suites made of it, its curves, what it writes, its data, its time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from codelm.config import fingerprint
from codelm.errors import UserError
from codelm.publish import write_atomically
from data import dataset, inputs, report_page
from experiments import by_position, records, report_evals, report_latency, report_samples
from experiments.curves import Axes, Series, chart, page
from experiments.evals.places import EVALS
from experiments.results import SAMPLES
from train.clock import goodput
from train.position_buckets import METRIC
from train.records import EVENTS, read

REPORT = "report.html"
_INCIDENTS = ("resumed", "stopped", "skipped", "checkpoint failed", "damaged", "straggler")
_LOOK = """
.tiles { display: flex; flex-wrap: wrap; gap: 1.2rem 2rem }
.tile b { display: block; font-size: 1.5rem; font-weight: 600 } .tile span, .note { color: var(--soft) }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .6rem; overflow: auto; font-size: 12px;
  max-height: 30rem }
code { overflow-wrap: anywhere }
"""
_STYLE = _LOOK + report_page.BARS + report_evals.STYLE + report_samples.STYLE


def write_report(run: Path, benchmarks: Path | None = None) -> Path:
    """The page, anew; `benchmarks` is a folder of benchmark files, whose tasks are shown with what was written."""
    record = records.load(run)
    if record.result.get("fingerprint") != fingerprint(record.config):  # of what the run was before
        record = replace(record, result={})
    write_atomically(run / REPORT, render(record, benchmarks).encode())
    return run / REPORT


def render(run: records.Record, benchmarks: Path | None = None) -> str:
    events = read(run.folder / EVENTS)
    trained = [line for line in run.metrics if "loss" in line]
    sections = [("What it came to", _tiles(run, events)), *_evaluated(run.folder, benchmarks)]
    sections += [("Curves", "".join(_curves(run, trained)))] if trained else []
    if found := by_position.measured(run.config, run.metrics):
        title = "Loss by position" + ", before and after mid-training" * (by_position.BEFORE in found)
        sections.append((title, by_position.section(found)))
    sections += [
        ("Held out", _held_out(run.result.get("evaluation", {}))),
        ("What it writes", report_samples.of_run(run.folder / SAMPLES)),
        ("Data", "".join(_corpus(folder) for folder in _corpora(run))),
        ("Where the time went", _time(events)),
        ("Where it ran", _file(run.folder / "environment.json")),
        ("Config", _file(run.folder / records.CONFIG)),
    ]
    return page(run.name, sections, _STYLE)


def _evaluated(run: Path, benchmarks: Path | None) -> list[tuple[str, str]]:
    """Sections of what `codelm eval` has left in the run's folder."""
    measured, refused = report_evals.found(run / EVALS)
    sections = [("Evaluation", report_evals.section(measured, refused))] if measured or refused else []
    newest = report_evals.latest(measured)
    samples = {name: report_samples.of_measured(one, run, benchmarks) for name, one in newest.items()}
    if shown := "".join(f"<h3>{escape(name)}</h3>{html}" for name, html in samples.items() if html):
        sections.append(("Completions", report_samples.CHOSEN + report_samples.LEGEND + shown))
    times = {name: report_latency.read(one.folder) for name, one in newest.items()}
    if known := {name: latency for name, latency in times.items() if latency}:
        sections.append(("Latency", report_latency.section(known)))
    return sections


def _corpora(run: records.Record) -> list[str]:
    """What it is trained on; and its own corpus where that has made its tokenizer."""
    own = [str(run.folder / inputs.CORPUS)] if inputs.needs_own_corpus(run.config) else []
    return list(dict.fromkeys([*own, *records.corpora(run.folder, run.config)]))


def _corpus(folder: str) -> str:
    """What its manifest says."""
    try:
        manifest = dataset.load(folder).manifest
    except UserError as error:
        return f"<p class=note>Not shown: {escape(str(error))}</p>"
    kept, splits = manifest["kept"], manifest["splits"]
    held = ", ".join(f"{split['documents']:,} for {name}" for name, split in splits.items())
    told = (
        f"{kept['documents']:,} documents, {report_page.size_text(kept['bytes'])}: {held}. From "
        f"{', '.join(manifest['config']['sources'])}; decontaminated against {manifest['benchmarks'] or 'nothing'}; "
        f"corpus {manifest['digest']}, built by codelm {manifest['codelm']}."
    )
    tables = {
        "What became of the documents": report_page.reasons(manifest),
        "Languages, read (light) and kept (dark)": report_page.read_and_kept(manifest["languages"]),
        "Licences, read and kept": report_page.read_and_kept(manifest["licences"]),
    }
    shown = "".join(f"<h3>{title}</h3><div class=wide>{table}</div>" for title, table in tables.items())
    return f"<p>{escape(told)}</p>{shown}"


def _file(path: Path) -> str:
    return f"<pre>{escape(path.read_text())}</pre>" if path.is_file() else "<p class=note>Not there.</p>"


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
    suites = sorted({key for line in run.metrics for key in line if key.startswith("eval/")})
    charts = [
        chart(losses, Axes("Loss", "steps", "nats/token", marks=marks)),
        chart([series("learning rate", "learning_rate", trained)], Axes("Learning rate", "steps", "", marks=marks)),
        chart(
            [series(key.removeprefix("grad_norm/").replace("grad_norm", "all"), key, trained) for key in norms],
            Axes("Gradient norm", "steps", "", log_y=True, marks=marks),
        ),
        chart([series("tokens/s", "speed", speed)], Axes("Speed", "steps", "tokens/s", marks=marks)),
    ]
    if suites:
        lines = [series(key.removeprefix("eval/"), key, run.metrics, points=True) for key in suites]
        charts.append(chart(lines, Axes("Suites", "steps", "", marks=marks)))
    return charts


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
