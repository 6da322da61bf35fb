"""The page of a run in a browser: all of it is drawn, nothing complains, it fits the window, and can be read."""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from experiments.evals import catalogue
from experiments.report import write_report
from tests.experiments import made_evaluation

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: `make system` installs Debian's")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
]
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
WINDOWS = (360, 1280)  # pixels; a browser's own are never narrower than 500, frames are
# From outside, because the page allows no script.
MEASURE = """<!doctype html><body><pre id=found></pre>FRAMES<script>
onload = () => { found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
  const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow
  const all = what => [...page.querySelectorAll(what)]
  const look = what => { const style = view.getComputedStyle(page.querySelector(what))
    return [style.color, style.backgroundColor] }
  return { window: root.clientWidth, needs: root.scrollWidth, title: page.title, scripts: page.scripts.length,
    sections: all("section").map(one => [one.querySelector("h2").textContent, one.getBoundingClientRect().height]),
    charts: all("section > .wide > svg, .wide > .wide > svg").map(one => one.getBoundingClientRect().width),
    looks: { body: look("body"), before: look(".before"), after: look(".after"), mark: look("mark"),
      note: look(".note") } } })) }
</script>"""


def browse(page: Path, *more: str) -> tuple[str, list[str]]:
    """What the page has become, and what its console says."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        told = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *more, "--dump-dom", page.as_uri()]
        done = subprocess.run(told, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(page: Path, scheme: str) -> list[dict[str, Any]]:
    """In each of the windows."""
    frames = "".join(f"<iframe src={page.name} style='width: {w}px; height: 900px'></iframe>" for w in WINDOWS)
    outer = page.with_name("frames.html")
    outer.write_text(MEASURE.replace("FRAMES", frames))
    shown, _ = browse(outer, scheme, "--allow-file-access-from-files", "--window-size=1400,1000")
    found = re.search(r"<pre id=.?found.?>(.*?)</pre>", shown, re.DOTALL)
    assert found
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def page(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(done, tmp_path_factory.mktemp("browser") / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "SUITES", catalogue.SUITES | made_evaluation.SUITES)
        made_evaluation.evaluate(run)
        return write_report(run)


def test_nothing_complains(page: Path, tmp_path: Path) -> None:
    shown, console = browse(page)
    assert console == []
    assert "<title>small</title>" in shown, "as a hostile completion would have it"
    (tmp_path / "bad.html").write_text("<!doctype html><title>bad</title><script>nothing.at.all</script>")
    assert len(browse(tmp_path / "bad.html")[1]) == 1, "what does complain is seen"


def test_everything_is_drawn_and_fits_the_window(page: Path) -> None:
    for width, found in zip(WINDOWS, measured(page, LIGHT), strict=True):
        assert width - 20 <= found["window"] <= width
        assert found["needs"] <= found["window"], "wide tables and charts scroll by themselves"
        assert found["scripts"] == 0
        heights = dict(found["sections"])
        assert {"Evaluation", "Completions", "Latency", "Curves", "Data", "Config"} <= heights.keys()
        assert min(heights.values()) > 40
        assert len(found["charts"]) >= 7
        assert min(found["charts"]) > 300


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_it_can_be_read(page: Path, scheme: str) -> None:
    """WCAG contrast of text: 4.5:1."""
    looks = measured(page, scheme)[1]["looks"]
    _, paper = looks["body"]
    assert (luminance(paper) > 0.5) == (scheme == LIGHT)
    for name, (ink, behind) in looks.items():
        behind = paper if behind == "rgba(0, 0, 0, 0)" else behind
        darker, lighter = sorted([luminance(ink), luminance(behind)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
