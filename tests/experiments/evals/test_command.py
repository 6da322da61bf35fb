"""`codelm eval` as a person calls it: on a run, again, compared, scored anew; and every mistake in one line."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from codelm import cli
from experiments.evals import rows

PROBLEMS = [
    {
        "task_id": f"Tiny/{n}",
        "prompt": f'def add{n}(x):\n    """Add {n}."""\n',
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        "entry_point": f"add{n}",
    }
    for n in range(3)
]


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    with gzip.open(folder / "HumanEval.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(problem) + "\n" for problem in PROBLEMS)
    return folder


@pytest.fixture(scope="module")
def run(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(done, tmp_path_factory.mktemp("evaluated") / "small")


def asked(run: Path, benchmarks: Path, *more: str) -> list[str]:
    return ["eval", str(run), "--suite", "humaneval", "--benchmarks", str(benchmarks), "--max_new_tokens", "8", *more]


def test_it_measures_goes_on_compares_and_scores_anew(
    run: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(asked(run, benchmarks, "--contamination")) == 0
    said = capsys.readouterr()
    assert "sandbox: namespaces" in said.err
    assert "pass@1" in said.out
    assert "contamination: checked, 0.0% of the tasks overlap the training corpus" in said.out
    folder = run / "evals" / "midtrain-3" / "humaneval"
    first = (folder / rows.ROWS).read_bytes()
    measured = rows.load(folder)
    assert [row.task for row in measured.rows] == ["Tiny/0", "Tiny/1", "Tiny/2"]
    assert measured.header["model"]["checkpoint"] == "midtrain/3"
    assert measured.header["decoding"]["max_new_tokens"] == 8
    assert measured.header["sandbox"]

    (folder / rows.RESULT).unlink()  # as if it had been interrupted
    (folder / rows.ROWS).write_bytes(first[: first.index(b"\n") + 1])
    assert cli.main(asked(run, benchmarks, "--contamination")) == 0
    assert (folder / rows.ROWS).read_bytes() == first

    assert cli.main(asked(run, benchmarks, "--out", str(run / "other"))) == 0
    capsys.readouterr()
    assert cli.main(["eval", "compare", str(folder), str(run / "other" / "humaneval")]) == 0
    assert "+0.0000" in capsys.readouterr().out
    assert cli.main(["eval", "rescore", str(folder), "--benchmarks", str(benchmarks)]) == 0
    assert "0 of 3 samples are scored otherwise than their rows say" in capsys.readouterr().out
    assert cli.main(["report", str(run), "--benchmarks", str(benchmarks)]) == 0
    page = (run / "report.html").read_text()
    assert "Tiny/1" in page
    assert "pass@1" in page


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--suite", "humanevil"], "no suite 'humanevil'; nearest: humaneval. `codelm eval --help` lists them"),
        (["--suite", ","], "which suites? --suite humaneval"),
        (["--k", "1,10"], "pass@10 needs at least 10 samples of each task: set --n 10 or more"),
        (["--k", "one"], "--k takes numbers with commas between them, such as 1,10, not 'one'"),
        (["--n", "5"], "n samples at temperature 0 are the same text n times: set --temperature"),
        (["--suite", "mbpp"], "no mbpp.jsonl in"),
        (["--benchmarks", "nowhere"], "no folder of benchmarks at nowhere"),
        (["--suite", "repository:nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, benchmarks: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(asked(run, benchmarks, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("codelm: error: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b'{"task_id": "a", "prompt": "x"}\n', "line 1: no 'canonical_solution' in the row"),
        (b'{"task_id": "a", "pro', "line 1: not JSON"),
        (b"[]\n", "line 1: a list, not an object of fields"),
    ],
)
def test_a_file_that_is_no_suite_is_told_by_its_line(
    run: Path, tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(content))
    assert cli.main(asked(run, tmp_path)) == 2
    assert said in capsys.readouterr().err


def test_a_truncated_file_is_told(
    run: Path, benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (benchmarks / "HumanEval.jsonl.gz").read_bytes()
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(whole[:-20])
    assert cli.main(asked(run, tmp_path)) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_without_bubblewrap_nothing_is_executed(
    run: Path, benchmarks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert cli.main(asked(run, benchmarks)) == 2
    assert (
        "untrusted code needs bubblewrap to run in: apt install bubblewrap (or --unsafe-sandbox"
        in capsys.readouterr().err
    )


def test_what_was_measured_otherwise_is_not_added_to(
    run: Path, benchmarks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(asked(run, benchmarks, "--out", str(tmp_path))) == 0
    assert cli.main(asked(run, benchmarks, "--out", str(tmp_path), "--top_p", "0.9")) == 2
    assert "decoding.top_p was 1.0, is 0.9" in capsys.readouterr().err


def test_what_is_asked_otherwise_has_a_folder_of_its_own(run: Path, benchmarks: Path, tmp_path: Path) -> None:
    for how in (["--mode", "psm"], ["--mode", "spm"], ["--mode", "spm", "--heal", "none"]):
        assert cli.main(asked(run, benchmarks, "--out", str(tmp_path), *how)) == 0
    models = {folder.name: rows.load(folder).header["model"] for folder in tmp_path.iterdir()}
    assert {name: (model["mode"], model["heal"]) for name, model in models.items()} == {
        "humaneval-psm": ("psm", "prefix"),
        "humaneval-spm": ("spm", "prefix"),
        "humaneval-spm-heal-none": ("spm", "none"),
    }


def test_no_model_and_no_server_are_told(tmp_path: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(asked(tmp_path / "nothing", benchmarks)) == 2
    assert cli.main(["eval", "http://127.0.0.1:9", *asked(tmp_path, benchmarks)[2:]]) == 2
    said = capsys.readouterr().err
    assert "no model at" in said
    assert "no answer from http://127.0.0.1:9/v1/models" in said
