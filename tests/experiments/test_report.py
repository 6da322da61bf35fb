"""The page of a run holds what its folder does: figures of suites with intervals, completions, latency, the corpus."""

import json
import re
import shutil
import urllib.request
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from codelm import cli
from codelm.config import Config, resolve
from experiments import report_evals, report_latency, report_samples
from experiments.evals import catalogue
from experiments.report import write_report
from tests.experiments import made_evaluation, run_folders
from tests.experiments.made_evaluation import HOSTILE, evaluate


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SUITES", catalogue.SUITES | made_evaluation.SUITES)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Nothing but what a page cannot be without."""
    return run_folders.write(tmp_path / "bare", resolve(Config(name="bare")))


class Page(HTMLParser):
    """Headings, links, what has an id, and what a browser would go and get."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings, self.links, self.ids, self.tags = [], [], [], set()
        self.fetched: list[str] = []
        self._in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self._in_heading = tag == "h2"
        self.links += [found["href"]] if tag == "a" else []
        self.ids += [found["id"]] if "id" in found else []
        self.fetched += [str(found[name]) for name in ("src", "srcset", "data", "poster", "action") if name in found]

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)
            self._in_heading = False


def page_of(run: Path) -> str:
    return write_report(run).read_text()


# ---- the page ----


def test_the_page_of_a_run_is_made_anew_with_what_was_evaluated_since(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(done, tmp_path / "small")
    shutil.rmtree(run / "evals", ignore_errors=True)
    before = Page(page_of(run))
    measured = evaluate(run)
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    text = (run / "report.html").read_text()
    page = Page(text)
    assert [name for name in page.headings if name not in before.headings] == ["Evaluation", "Completions", "Latency"]
    assert {"What it came to", "Curves", "Held out", "What it writes", "Data", "Where it ran"} <= set(page.headings)
    assert page.links == [f"#{name}" for name in page.ids], "a list of all sections"
    rows = measured["made-holes"].rows
    right = sum(row.completion == f"width * height * {row.task.split('/')[1]}" for row in rows) / len(rows)
    assert re.search(rf"<td>exact</td><td class=n>{right:.3f} \[0\.\d+, 0\.\d+\]</td>", text)
    manifest = json.loads((run / "corpus" / "manifest.json").read_text())
    assert f"{manifest['kept']['documents']:,} documents" in text
    for reason, row in manifest["dropped"].items():
        assert f"<td >{reason}</td><td class=n>{row['documents']:,}</td>" in text


def test_a_page_needs_no_other_file_and_no_network(run: Path) -> None:
    evaluate(run)
    text = page_of(run)
    page = Page(text)
    assert page.fetched == []
    assert all(link.startswith("#") for link in page.links)
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert re.findall(r"url\(|@import", text) == []
    assert "default-src 'none'" in text, "and it may not get any"


def test_what_a_model_writes_stays_text(run: Path) -> None:
    measured = evaluate(run)
    written = {row.completion for row in report_samples.chosen(measured["made-functions"])}
    assert HOSTILE in written
    text = page_of(run)
    assert escape(HOSTILE) in text
    assert "<script" not in text


def test_how_a_suite_was_measured_is_on_the_page(run: Path) -> None:
    header = evaluate(run)["made-holes"].header
    text = page_of(run)
    how = header["postprocessing"]
    for said in (
        f"made-holes version 1, 16 tasks, SHA-256 {header['suite']['sha256']}",
        f"{how['name']} version {how['version']}: {how['about']}",
        f"version {header['harness']}, codelm {header['codelm']}",
        "format codelm; mode psm",
        "status not checked",
        "temperature 0.0",
        "nothing was run",
    ):
        assert escape(said) in text


def test_only_the_newest_checkpoint_is_shown_in_full(run: Path) -> None:
    for checkpoint in ("pretrain-80", "midtrain-3", "pretrain-160"):
        evaluate(run, checkpoint)
    found, refused = report_evals.found(run / "evals")
    assert refused == []
    states = [name.split("/")[0] for name in found]
    assert list(dict.fromkeys(states)) == ["pretrain-80", "pretrain-160", "midtrain-3"]
    assert {name.split("/")[0] for name in report_evals.latest(found)} == {"midtrain-3"}
    text = page_of(run)
    assert "<h3>midtrain-3/made-holes</h3>" in text
    assert "<h3>pretrain" not in text
    assert text.index("Of earlier checkpoints") < text.index("<td>pretrain-160/made-holes</td>")


def test_what_cannot_be_shown_is_named_and_the_rest_stays(run: Path) -> None:
    evaluate(run)
    (run / "evals" / "midtrain-3" / "made-functions" / "result.json").unlink()
    (run / "evals" / "midtrain-3" / "made-likelihood" / "result.json").write_text("{")
    text = page_of(run)
    assert "made-functions is not finished" in text
    assert "made-likelihood/result.json is damaged" in text
    assert "<h3>midtrain-3/made-holes</h3>" in text
    assert "no corpus at" in text, "nor is the corpus of this run here"


def test_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "a run's folder holds config.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---- completions ----


def test_right_and_wrong_completions_are_told_apart(run: Path) -> None:
    """By what stood there, not by what the rows say."""
    measured = evaluate(run)["made-holes"]
    html = report_samples.of_measured(measured, run, None)
    found = re.findall(r"(✓|✗).*?<code>hole/(\d+)</code>.*?<mark[^>]*>(.*?)</mark>(.*?)</div>", html, re.DOTALL)
    assert len(found) == 6
    assert [mark for mark, *_ in found] == ["✓"] * 3 + ["✗"] * 3
    for mark, number, written, rest in found:
        stood = f"width * height * {number}"
        assert (mark == "✓") == (written == stood)
        assert (f"There stood:</p><pre class='code stood'>{stood}</pre>" in rest) == (mark == "✗")
        assert f"<span class=after>\n    return size + {number}\n</span>" in rest


def test_a_full_score_of_another_kind_is_not_called_right(run: Path) -> None:
    """A secret that was written has one too."""
    measured = evaluate(run)["made-holes"]
    measured.header["suite"]["metrics"] = {"similarity": "mean"}
    html = report_samples.of_measured(measured, run, None)
    assert "✓" not in html
    assert "✗" not in html
    assert "similarity 1" in html


def test_tasks_that_are_not_here_are_not_fetched(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor are those of another version of the suite shown for them."""
    measured = evaluate(run)["made-holes"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a page asked the network")

    monkeypatch.setattr(urllib.request, "urlopen", never)
    monkeypatch.delenv("CODELM_BENCHMARKS", raising=False)
    monkeypatch.setattr(report_samples, "CACHE", tmp_path / "cache")
    for name, sha256 in (("humaneval", "5eed" * 16), ("no-such-suite", "5eed" * 16), ("made-holes", "0" * 64)):
        measured.header["suite"] |= {"name": name, "sha256": sha256}
        html = report_samples.of_measured(measured, run, None)
        assert "tasks are not here" in html
        assert "width * height" in html
        assert "def area" not in html


def test_what_was_written_is_in_sight_however_long_the_file() -> None:
    sample = report_samples.Sample("", "import os\n" * 999 + "x = ", "here", "\n" + "pass\n" * 999)
    text = re.sub("<.*?>", "", report_samples.grid([sample]))
    before, after = text.split("here")
    assert before.startswith("…\nimport os")
    assert after.endswith("pass…")
    assert before.count("\n") <= 10
    assert after.count("\n") <= 10
    shown = report_samples.grid([report_samples.Sample("", "a\n", "b", "\nc")])
    assert re.sub("<.*?>", "", shown) == "a\nb\nc"


# ---- figures ----


def test_a_bar_stands_where_its_figure_says() -> None:
    svg = report_evals.bar({"value": 0.5, "low": 0.25, "high": 1.0}, 2.0)
    (left, width), (low, high) = (re.findall(r"M([\d.]+) 7H([\d.]+)", svg)[n] for n in (0, 1))
    at = {
        value: float(left) + (float(width) - float(left)) * value / 2 for value in (0.25, 0.5, 1.0)
    }  # linear, from 0 to 2
    assert [float(low), float(high)] == pytest.approx([at[0.25], at[1.0]], abs=0.06)
    assert float(re.search(r'cx="([\d.]+)"', svg)[1]) == pytest.approx(at[0.5], abs=0.06)  # pyrefly: ignore


def test_latency_is_of_every_request(run: Path) -> None:
    """Counted from the file itself; a curve's points are the share of requests that took no longer."""
    evaluate(run)
    folder = run / "evals" / "midtrain-3" / "made-holes"
    latency = report_latency.read(folder)
    assert latency
    lines = [json.loads(line) for line in (folder / "times.jsonl").read_text().splitlines()]
    seconds = sorted(one["seconds"] for line in lines for one in line["asked"])
    assert sorted(latency.whole.tolist()) == seconds
    for at, share in zip(*report_latency.shares(latency.whole), strict=True):
        assert share == pytest.approx(sum(value <= at for value in seconds) / len(seconds))
    assert report_latency.percentiles(np.arange(101.0)) == [50, 95]
    long = report_latency.shares(np.random.default_rng(0).random(5000))
    assert len(long[0]) <= 200
    assert long[1][-1] == 1


def test_latency_survives_an_interruption(run: Path) -> None:
    """A torn line is left out, and a sample that was asked for twice counts once, as it was done last."""
    evaluate(run)
    folder = run / "evals" / "midtrain-3" / "made-holes"
    lines = (folder / "times.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    again = json.dumps(first | {"asked": [{"seconds": 99.0, "first": 9.0, "tokens": 3}]})
    (folder / "times.jsonl").write_text("\n".join([lines[0], lines[1][:20], *lines[1:], again]) + "\n")
    latency = report_latency.read(folder)
    assert latency
    assert len(latency.whole) == 16
    assert latency.whole.max() == 99
    assert report_latency.read(run) is None
