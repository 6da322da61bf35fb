"""What suites made of a run's model: every figure with its interval, by slice too, and how it was measured."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from codelm.checkpoint import STAGES
from codelm.errors import UserError
from experiments.evals import places, rows
from experiments.evals.rows import Measured
from experiments.evals.tables import shown

STYLE = """
svg.interval { vertical-align: middle } svg.interval path { stroke: var(--soft); stroke-opacity: .5; fill: none }
svg.interval path.range { stroke: var(--kept); stroke-width: 5; stroke-opacity: .5; stroke-linecap: round }
svg.interval circle { fill: var(--kept) } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere } summary { cursor: pointer; margin: .4rem 0 }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } }
"""
_NOTE = (
    "<p class=note>In brackets and as bars: intervals of 95 %, over tasks and samples. Every sample is a row of "
    f"<code>{places.EVALS}/CHECKPOINT/SUITE/{rows.ROWS}</code>.</p>"
)
_WIDTH = 120  # of a bar
_MOST_VALUES = 20  # of one slice
_MOST_REASONS = 10


def found(folder: Path) -> tuple[dict[str, Measured], list[str]]:
    """Whole measurements in a folder or below, by their place in it, the newest state of the model last; and why others
    are not shown."""
    whole, refused = {}, []
    for path in rows.find(folder):
        try:
            whole[str(path.relative_to(folder))] = rows.load(path)
        except UserError as error:
            refused.append(str(error))
    begun = {path.parent for path in folder.glob(f"**/{rows.HEADER}")} - set(rows.find(folder))
    refused += [f"{path} is not finished: the command that began it goes on" for path in sorted(begun)]
    return dict(sorted(whole.items(), key=lambda item: _age(item[0]))), refused


def latest(measured: Mapping[str, Measured]) -> dict[str, Measured]:
    """Of each suite, that of the newest state."""
    names = {name.rpartition("/")[2]: name for name in measured}
    return {name: measured[name] for name in names.values()}


def _age(name: str) -> tuple[int, int]:
    """Of STAGE-STEP/SUITE: which stage, and which step."""
    stage, _, step = name.partition("/")[0].rpartition("-")
    return (STAGES.index(stage), int(step)) if stage in STAGES and step.isdigit() else (len(STAGES), 0)


def section(measured: Mapping[str, Measured], refused: Sequence[str]) -> str:
    notes = "".join(f"<p class=note>Not shown: {escape(why)}</p>" for why in refused)
    if not measured:
        return notes
    newest = latest(measured)
    earlier = {name: one for name, one in measured.items() if name not in newest}
    before = f"<details><summary>Of earlier checkpoints</summary>{_overview(earlier)}</details>" if earlier else ""
    parts = (f"<h3>{escape(name)}</h3>{_of_suite(one)}" for name, one in newest.items())
    return f"{notes}{_NOTE}{_overview(newest)}{before}{''.join(parts)}"


def bar(figure: Mapping[str, Any], most: float) -> str:
    """A figure and its interval between 0 and `most`."""
    low, value, high = (4 + (_WIDTH - 8) * min(max(figure[name] / most, 0), 1) for name in ("low", "value", "high"))
    said = f"{figure['value']:.3f}, between {figure['low']:.3f} and {figure['high']:.3f}, of 0 to {most:.3g}"
    return (
        f'<svg class=interval role=img aria-label="{said}" width={_WIDTH} height=14 viewBox="0 0 {_WIDTH} 14">'
        f'<title>{said}</title><path d="M4 7H{_WIDTH - 4}"/><path class=range d="M{low:.1f} 7H{high:.1f}"/>'
        f'<circle cx="{value:.1f}" cy="7" r="3.5"/></svg>'
    )


def _overview(measured: Mapping[str, Measured]) -> str:
    """All figures of all suites."""
    lines = []
    for name, one in measured.items():
        counts = f"<td class=n>{one.result['samples'] - one.result['not_run']:,}</td>"
        lines += [
            f"<tr><td>{escape(name) if not n else ''}</td><td>{escape(figure)}</td>{_cells(value, [value])}"
            f"<td class=n>{value['tasks']:,}</td>{counts}</tr>"
            for n, (figure, value) in enumerate(one.result["figures"].items())
        ]
    return _table("<th>suite<th>figure<th class=n>value<th><th class=n>tasks<th class=n>samples", lines)


def _of_suite(measured: Measured) -> str:
    said = measured.header["suite"]["about"]
    about = f"<p>{escape(said[:1].upper() + said[1:])}.</p>"
    how = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _how(measured))
    details = f"<details><summary>How it was measured</summary><dl>{how}</dl></details>"
    return f"{about}{_slices(measured)}{_reasons(measured)}{details}"


def _slices(measured: Measured) -> str:
    """The suite's first figure with bars, the others in numbers."""
    first, *others = measured.result["figures"]
    lines = []
    for name, values in measured.result["slices"].items():
        shown_values = [item for item in values.items() if first in item[1]] if len(values) > 1 else []
        for value, figures in shown_values[:_MOST_VALUES]:
            drawn = _cells(figures[first], [of[first] for _, of in shown_values])
            more = "".join(f"<td class=n>{shown(figures.get(other))}</td>" for other in others)
            said = f"<span class=note>{escape(name)}</span> {escape(value)}"
            lines.append(f"<tr><td>{said}</td>{drawn}<td class=n>{figures[first]['tasks']:,}</td>{more}</tr>")
        if len(shown_values) > _MOST_VALUES:
            lines.append(f"<tr><td class=note>and {len(shown_values) - _MOST_VALUES} more of {escape(name)}</td></tr>")
    heads = "".join(f"<th class=n>{escape(other)}" for other in others)
    return _table(f"<th><th class=n>{escape(first)}<th><th class=n>tasks{heads}", lines) if lines else ""


def _cells(figure: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> str:
    """A number and its bar, on the scale of those beside it: shares of 1, or up to the highest."""
    most = max(1.0, *(other["high"] for other in beside))
    return f"<td class=n>{shown(figure)}</td><td>{bar(figure, most)}</td>"


def _reasons(measured: Measured) -> str:
    """Why samples were not right."""
    reasons = list(measured.result["reasons"].items())
    if not reasons:
        return ""
    lines = [f"<tr><td class=n>{count:,}</td><td>{escape(why)}</td></tr>" for why, count in reasons[:_MOST_REASONS]]
    more = f"<p class=note>and {len(reasons) - _MOST_REASONS} more</p>" if len(reasons) > _MOST_REASONS else ""
    return f"<details><summary>Why samples were not right</summary>{_table('', lines)}{more}</details>"


def _how(measured: Measured) -> Iterator[tuple[str, str]]:
    header, model = measured.header, dict(measured.header["model"])
    suite, processing, decoding = header["suite"], header["postprocessing"], dict(header["decoding"])
    yield "Suite", f"{suite['name']} version {suite['version']}, {suite['tasks']:,} tasks, SHA-256 {suite['sha256']}"
    asked = {name: model.pop(name) for name in ("format", "mode", "heal") if name in model}
    yield "Prompt format", _told(asked)
    yield "Model", _told(model)
    greedy = "the likeliest token, one sample; " if not decoding["temperature"] else ""
    yield "Decoding", greedy + _told(decoding)
    yield "Post-processing", f"{processing['name']} version {processing['version']}: {processing['about']}"
    yield "Harness", f"version {header['harness']}, codelm {header['codelm']}"
    yield "Contamination", _told(header["contamination"])
    yield "Sandbox", "; ".join(header["sandbox"]) or "nothing was run"


def _told(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _table(head: str, lines: Sequence[str]) -> str:
    return f"<div class=wide><table><tr>{head}</tr>{''.join(lines)}</table></div>"
