"""Line charts as SVG: no library, no script, readable on light and dark pages.

>>> svg = chart([Series("depth=2", tokens, losses)], Axes("Loss", "tokens", "nats/token", log_x=True))
>>> html = page("Two runs", [("Loss", svg)])

Lines are labelled where they end, so there is no legend to look things up in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Told apart by the colour-blind, and at least 3:1 against both white and near-black.
COLOURS = ("#3b7dd8", "#d9622b", "#2f9e77", "#b764c8", "#b07d12", "#d9528c", "#7c8490", "#7d6ee0")
_DASHES = ("", "6 3", "2 3")  # once the colours are used up
_LEFT, _TOP, _BOTTOM, _PLOT = 64, 34, 46, 640  # around the plot, and its width
_LINE, _LETTER = 15, 7.4  # height of a line of labels, width of a letter in wide fonts
_LONGEST_LABEL = 48  # letters
_MANY = 6  # headings of a page
_HEAD = (
    "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    '<meta name=viewport content="width=device-width, initial-scale=1">'
)

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #667; --line: #dde2ea; --back: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa3b2; --line: #333b48; --back: #14181f } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 80rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem } svg { max-width: 100%; height: auto }
.wide { overflow-x: auto } .wide > svg { min-width: 34rem } table { border-collapse: collapse }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem } a { color: #3b7dd8 }
td, th { padding: .15rem 1rem .15rem 0; text-align: left; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line) } td.best { font-weight: 700 }
"""


@dataclass(frozen=True)
class Series:
    """One line, a row of points, or both. What is not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: bool = True
    points: bool = False
    colour: int = -1
    """Number of its colour; -1 = that of its place. Lines that belong together share one."""
    dashed: bool = False
    label: bool = True


@dataclass(frozen=True)
class Axes:
    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    """Vertical lines at values of x, and what they say."""
    height: int = 320
    """Of the plot, without what is around it."""


@dataclass(frozen=True)
class _Scale:
    """Values to pixels."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def chart(series: Sequence[Series], axes: Axes) -> str:
    """An <svg> element."""
    kept = [(n, s, _finite(s, axes)) for n, s in enumerate(series)]
    kept = [(n, s, points) for n, s, points in kept if any(points)]
    height = max(axes.height, _LINE * sum(s.label for _, s, _ in kept))
    xs, ys = ([p[i] for _, _, points in kept for p in points if p] for i in (0, 1))
    x = _Scale(*_range([*xs, *(at for at, _ in axes.marks)], axes.log_x, 0.0), axes.log_x, _LEFT, _LEFT + _PLOT)
    y = _Scale(*_range(ys, axes.log_y, 0.04), axes.log_y, _TOP + height, _TOP)
    labels = [_short(s.name) for _, s, _ in kept if s.label and s.name]
    width = round(_LEFT + _PLOT + 24 + _LETTER * max(map(len, labels), default=0))
    body = [_frame(x, y, axes), *(_series(n, s, points, x, y) for n, s, points in kept), _labels(kept, x, y)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(axes.title)}" '
        f'viewBox="0 0 {width} {height + _TOP + _BOTTOM}" width="{width}" height="{height + _TOP + _BOTTOM}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        f"<title>{escape(axes.title)}</title>{''.join(body)}</svg>"
    )


def page(title: str, sections: Sequence[tuple[str, str]], style: str = "") -> str:
    """One HTML file that needs no other and may run or load nothing, whatever text it shows: headings, each with its
    HTML; where there are many, a list of them at its beginning."""
    body = "".join(
        f"<section id=s{n}><h2>{escape(head)}</h2><div class=wide>{html}</div></section>\n"
        for n, (head, html) in enumerate(sections)
    )
    links = "".join(f'<a href="#s{n}">{escape(head)}</a>' for n, (head, _) in enumerate(sections))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{_HEAD}<title>{escape(title)}</title>"
        f"<style>{STYLE}{style}</style>\n"
        f"<h1>{escape(title)}</h1>\n{f'<nav>{links}</nav>' if len(sections) >= _MANY else ''}{body}"
    )


def ticks(low: float, high: float, log: bool = False, most: int = 8) -> list[float]:
    """Round values within a range: steps of 1, 2 or 5, or decades with as much between them as there is room for."""
    if log and high / low >= 10:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [float(f"{d}e{power}") for power in range(first, last + 1) for d in digits]
            found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def number(value: float) -> str:
    """As it stands beside an axis: 0.002, 3e-5, 20K, 1.5M."""
    size = abs(value)
    if size >= 1e15 or size < 1:
        return f"{value:.6g}".replace("e+", "e").replace("e-0", "e-")
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size >= scale:
            return f"{value / scale:.6g}{unit}"
    return f"{value:.6g}"


def _finite(series: Series, axes: Axes) -> list[tuple[float, float] | None]:
    """Its points; None where there is nothing to draw."""

    def shown(x: float, y: float) -> bool:
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not axes.log_x) and (y > 0 or not axes.log_y)

    return [(float(x), float(y)) if shown(x, y) else None for x, y in zip(series.x, series.y, strict=True)]


def _range(values: Sequence[float], log: bool, margin: float) -> tuple[float, float]:
    """The ends of an axis, a little beyond the values."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    if low == high:
        return (low / 2, high * 2) if log else (low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2)
    if log:
        more = (high / low) ** margin
        return low / more, high * more
    more = (high - low) * margin
    return low - more, high + more


def _frame(x: _Scale, y: _Scale, axes: Axes) -> str:
    """Title, grid, ticks, names of the axes, marks."""
    grid = '<path d="{}" stroke="currentColor" stroke-opacity=".14" fill="none"/>'
    across, down = ticks(x.low, x.high, x.log), ticks(y.low, y.high, y.log)
    lines = [f"M{_LEFT} {y(v):.1f}h{_PLOT}" for v in down] + [f"M{x(v):.1f} {y.start:.1f}v5" for v in across]
    parts = [_text(_LEFT, 16, axes.title, "start", weight=600), grid.format("".join(lines))]
    parts.append(f'<path d="M{_LEFT} {y.start}h{_PLOT}" stroke="currentColor" stroke-opacity=".5"/>')
    parts += [_text(_LEFT - 8, y(v) + 4, number(v), "end", soft=True) for v in down]
    parts += [_text(x(v), y.start + 18, number(v), "middle", soft=True) for v in across]
    parts.append(_text(_LEFT + _PLOT / 2, y.start + 38, axes.x, "middle", soft=True))
    middle = (y.start + y.end) / 2
    parts.append(f'<g transform="rotate(-90 14 {middle})">{_text(14, middle, axes.y, "middle", soft=True)}</g>')
    right = [mark for mark in axes.marks if x(mark[0]) > _LEFT + 0.6 * _PLOT]
    left = [mark for mark in axes.marks if mark not in right]
    for n, (at, said) in enumerate(sorted(left) + sorted(right, reverse=True)):
        # Each begins below the words of those before it, which so cross none.
        top, (side, gap) = y.end + _LINE * n, ("end", -5) if (at, said) in right else ("start", 5)
        line = f"M{x(at):.1f} {y.start}V{top:.1f}"
        parts.append(f'<path d="{line}" stroke="currentColor" stroke-dasharray="3 3" opacity=".7"/>')
        parts.append(_text(x(at) + gap, top + 12, said, side))
    return "".join(parts)


def _series(n: int, series: Series, points: list[tuple[float, float] | None], x: _Scale, y: _Scale) -> str:
    colour, dash = _colour(n, series)
    path, pen_up = "", True
    for point in points:
        if point:
            path += f"{'M' if pen_up else 'L'}{x(point[0]):.1f} {y(point[1]):.1f}"
        pen_up = point is None
    line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"{dash}/>'
    dots = (f'<circle cx="{x(p[0]):.1f}" cy="{y(p[1]):.1f}" r="3.2" fill="{colour}"/>' for p in points if p)
    shown = (line if series.line else "") + ("".join(dots) if series.points else "")
    return f"<g><title>{escape(series.name)}</title>{shown}</g>"


def _labels(kept: Sequence[tuple[int, Series, list]], x: _Scale, y: _Scale) -> str:
    """Names beside the last points, moved apart until none covers another."""
    wanted = []
    for n, series, points in kept:
        if series.label and series.name:
            last = next(point for point in reversed(points) if point)
            wanted.append((y(last[1]), x(last[0]), n, series))
    wanted.sort(key=lambda item: item[0])
    places: list[float] = []
    for at, *_ in wanted:
        places.append(max(at, places[-1] + _LINE if places else y.end))
    floor = y.start
    for n in reversed(range(len(places))):
        places[n] = min(places[n], floor)
        floor = places[n] - _LINE
    parts = []
    for place, (at, end, n, series) in zip(places, wanted, strict=True):
        colour, dash = _colour(n, series)
        edge = _LEFT + _PLOT
        lead = f"M{end + 4:.1f} {at:.1f}L{edge + 2:.1f} {at:.1f}L{edge + 12:.1f} {place:.1f}"
        parts.append(f'<path d="{lead}" stroke="{colour}" stroke-opacity=".45" fill="none"{dash}/>')
        parts.append(_text(edge + 15, place + 4, _short(series.name), "start", colour=colour))
    return "".join(parts)


def _colour(n: int, series: Series) -> tuple[str, str]:
    """Its colour, and the dashes that tell it from others of that colour."""
    place = series.colour if series.colour >= 0 else n
    dash = "6 4" if series.dashed else _DASHES[place // len(COLOURS) % len(_DASHES)]
    return COLOURS[place % len(COLOURS)], f' stroke-dasharray="{dash}"' if dash else ""


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL // 2]}…{name[-_LONGEST_LABEL // 2 :]}"


def _text(
    x: float, y: float, said: str, anchor: str, soft: bool = False, weight: int = 400, colour: str = "currentColor"
) -> str:
    look = f' font-weight="{weight}"' if weight != 400 else ""
    look += ' fill-opacity=".72"' if soft else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{look}>{escape(said)}</text>'
