"""Charts put points where their axes say, with round ticks, and are well-formed on their own."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest

from experiments import curves
from experiments.curves import Axes, Series

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: list[Series], axes: Axes) -> ET.Element:
    return ET.fromstring(curves.chart(series, axes))


def texts(svg: ET.Element) -> dict[str, tuple[float, float]]:
    return {t.text or "": (float(t.attrib["x"]), float(t.attrib["y"])) for t in svg.iter(f"{SVG}text")}


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (2.31, 8.4, False, [3, 4, 5, 6, 7, 8]),
        (-0.3, 0.3, False, [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        (1e-5, 1.0, True, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]),
        (3e6, 4e7, True, [5e6, 1e7, 2e7]),
        (2.0, 3.0, True, [2, 2.2, 2.4, 2.6, 2.8, 3]),
        (1e3, 1e5, True, [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5]),
    ],
)
def test_ticks_by_hand(low: float, high: float, log: bool, expected: list[float]) -> None:
    assert curves.ticks(low, high, log) == pytest.approx(expected)


def test_ticks_are_round_few_and_inside() -> None:
    for n in range(400):
        low = (-1) ** n * 1.37**n % 97
        high = low + 10 ** (n % 9 - 4) * (1 + n % 7)
        found = curves.ticks(low, high)
        assert 2 <= len(found) <= 8, (low, high)
        assert low - 1e-9 <= found[0] <= found[-1] <= high + 1e-9
        mantissa = float(f"{found[1] - found[0]:.6e}".split("e")[0])
        assert round(mantissa, 5) in (1, 2, 5)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.002, "0.002"), (3e-5, "3e-5"), (20_000, "20K"), (1.5e6, "1.5M"), (1e18, "1e18"), (-4, "-4")],
)
def test_numbers(value: float, said: str) -> None:
    assert curves.number(value) == said


@pytest.mark.parametrize("log", [False, True])
def test_points_stand_where_the_axes_say(log: bool) -> None:
    """Read back from the ticks: pixels are linear in the value, or in its logarithm."""
    xs, ys = [2.0, 3.0, 50.0], [1.0, 7.0, 4.0]
    svg = drawn([Series("a", xs, ys, points=True)], Axes("Title", "steps", "loss", log_x=log))
    found, scale = texts(svg), math.log if log else float
    at = {value: found[name][0] for name, value in (("10", 10.0), ("50", 50.0))}
    across = (at[50.0] - at[10.0]) / (scale(50.0) - scale(10.0))
    down = (found["6"][1] - found["3"][1]) / 3
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in svg.iter(f"{SVG}circle")]
    expected = [
        (at[10.0] + across * (scale(x) - scale(10.0)), found["3"][1] - 4 + down * (y - 3))
        for x, y in zip(xs, ys, strict=True)
    ]
    assert [p for c in circles for p in c] == pytest.approx([p for e in expected for p in e], abs=0.5)


def test_what_is_not_finite_leaves_a_gap() -> None:
    y = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0]
    svg = drawn([Series("a", range(7), y), Series("nothing", [1.0], [math.nan])], Axes("t", "x", "y"))
    (line,) = [
        p.attrib["d"] for g in svg.iter(f"{SVG}g") if g.find(f"{SVG}title") is not None for p in g.iter(f"{SVG}path")
    ]
    assert line.count("M") == 3
    assert len(re.findall("[ML]", line)) == 5
    assert "nan" not in ET.tostring(svg).decode()
    assert "nothing" not in texts(svg)


def test_labels_never_cover_each_other() -> None:
    """Forty lines that end in two places: every name is readable, and the plot has room for them."""
    lines = [Series(f"line <{n}>", [1.0, 2.0], [0.0, 1.0 + (n % 2)]) for n in range(40)]
    svg = drawn(lines, Axes("t", "x", "y"))
    rows = sorted(y for name, (_, y) in texts(svg).items() if name.startswith("line"))
    assert len(rows) == 40
    assert min(b - a for a, b in itertools.pairwise(rows)) > 12
    height, width = float(svg.attrib["height"]), float(svg.attrib["width"])
    assert all(0 < x < width and 0 < y < height for x, y in texts(svg).values())


def test_a_chart_says_what_it_is_and_so_does_a_line() -> None:
    svg = drawn([Series("depth=2", [1, 2], [3, 4])], Axes("Loss & more", "tokens", "nats", marks=((1.5, "here"),)))
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "Loss & more"
    assert [t.text for t in svg.iter(f"{SVG}title")] == ["Loss & more", "depth=2"]
    assert {"tokens", "nats", "here", "depth=2"} <= texts(svg).keys()
    assert drawn([], Axes("nothing", "x", "y")).attrib["aria-label"] == "nothing"


def test_colours_stand_out_on_light_and_dark() -> None:
    """WCAG contrast of at least 3:1, which graphics need."""

    def luminance(colour: str) -> float:
        channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in curves.COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour
        assert (luminance(colour) + 0.05) / (luminance("#14181f") + 0.05) >= 3, colour


def test_a_page_needs_nothing_else() -> None:
    html = curves.page("A <page>", [("Head & more", curves.chart([Series("a", [1, 2], [1, 2])], Axes("t", "x", "y")))])
    assert "<title>A &lt;page&gt;</title>" in html
    assert "<h2>Head &amp; more</h2>" in html
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html) == []
    assert "<script" not in html
