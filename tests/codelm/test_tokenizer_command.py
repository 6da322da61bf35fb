"""`codelm tokenizer`: training in bounded memory, measuring, extending, and every kind of bad input."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from codelm import cli, tokenizer_training
from codelm.tokenizer import load
from tests.codelm.conftest import STDLIB


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main(["tokenizer", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_train_inspect_extend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, longer = tmp_path / "new" / "t.model", tmp_path / "longer.model"
    code, out, err = run(capsys, "train", "--out", model, "--vocab-size", 4096, STDLIB / "email", STDLIB / "asyncio")
    assert (code, "4,096 pieces" in out, "files" in err) == (0, True, True)
    assert load(model).vocab_size == 4096

    code, out, _ = run(capsys, "inspect", model, STDLIB / "json")
    assert code == 0
    assert "<|fim_prefix|>" in out
    assert "256 of 256 bytes" in out
    assert "exact on every file" in out
    row = re.search(r"^Python +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", out, re.M)
    assert row
    text = "".join(path.read_text() for path in sorted((STDLIB / "json").glob("*.py")))
    ids = sum(len(load(model).encode(path.read_text())) for path in (STDLIB / "json").glob("*.py"))
    assert float(row[3]) == pytest.approx(len(text.encode()) / ids, abs=0.006)
    assert float(row[4]) == pytest.approx(ids / len(text.split()), abs=0.006)

    code, out, _ = run(capsys, "extend", model, "--out", longer, "--pieces", "self.assertEqual(", "--specials", "<|x|>")
    assert code == 0
    assert len(load(longer).encode("self.assertEqual(")) == 1


def test_the_same_text_gives_the_same_tokenizer(tmp_path: Path) -> None:
    lines = (STDLIB / "argparse.py").read_text().splitlines(keepends=True)
    assert tokenizer_training.train(lines, 1024) == tokenizer_training.train(lines, 1024)


def test_a_corpus_larger_than_the_budget_is_sampled_evenly() -> None:
    lines = [f"{i}\n" for i in range(100_000)]
    total = sum(map(len, lines))
    kept = list(tokenizer_training.sample(lines, total, total // 10))
    assert len(kept) == pytest.approx(10_000, rel=0.05)
    assert sum(int(line) for line in kept) / len(kept) == pytest.approx(50_000, rel=0.05)
    assert kept == list(tokenizer_training.sample(lines, total, total // 10))
    assert list(tokenizer_training.sample(lines, total, total)) == lines


PEAK = """
import resource, sys
from codelm import cli
cli.main(["tokenizer", "train", "--out", sys.argv[1], "--vocab-size", "1024", "--max-bytes", "1000000", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_follows_the_budget_not_the_corpus(tmp_path: Path) -> None:
    """40 times the text, one line of 20 MB among it, for at most a few MB more."""
    source = (STDLIB / "argparse.py").read_bytes()
    peaks = []
    for name, content in (("small", source * 10), ("large", source * 400 + b"x = 1;" * 3_300_000)):
        (tmp_path / f"{name}.py").write_bytes(content)
        command = [sys.executable, "-c", PEAK, str(tmp_path / f"{name}.model"), str(tmp_path / f"{name}.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert (tmp_path / "large.py").stat().st_size > 55_000_000
    assert peaks[1] - peaks[0] < 12_000_000, peaks


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["train", "--out", "{tmp}/t.model", "{tmp}/nothere"], "no file or folder at"),
        (["train", "--out", "{tmp}/t.model"], "give files or folders"),
        (["train", "--out", "{tmp}/t.model", "{tmp}/empty"], "no text files under"),
        (["train", "--out", "{tmp}/t.model", "{tmp}/blank.py"], "no text to learn"),
        (["train", "--out", "{tmp}/t.model", "{tmp}/binary.py"], "no text to learn"),
        (["train", "--out", "{tmp}/t.model", "{tmp}/short.py"], "too little for 32768 pieces"),
        (["train", "--out", "{tmp}/t.model", "--vocab-size", "100", "{tmp}/short.py"], "512 to 262144"),
        (["train", "--out", "{tmp}/short.py/t.model", "--vocab-size", "512", "{code}"], "cannot write"),
        (["train", "{tmp}/short.py"], "--out"),
        (["train", "--vocabsize", "5", "--out", "x", "{tmp}/short.py"], "--vocab_size"),
        (["inspect", "{tmp}/nothere.model"], "no tokenizer at"),
        (["inspect", "{tmp}/short.py"], "not a SentencePiece model"),
        (["inspect"], "FILE"),
        (["extend", "{tmp}/short.py", "--out", "{tmp}/t.model"], "nothing to add"),
        (["extend", "{tmp}/short.py", "--out", "{tmp}/t.model", "--pieces", "x y"], "not a SentencePiece model"),
        (["extend", "{tmp}/nothere", "--out", "{tmp}/t.model", "--pieces", "x y"], "not a tokenizer.model"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.py").write_text("")
    (tmp_path / "binary.py").write_bytes(b"\0\1\2")
    (tmp_path / "short.py").write_text("x = 1\n")
    code, out, err = run(capsys, *(word.format(tmp=tmp_path, code=STDLIB / "json") for word in argv))
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("codelm: error: ")
    assert not (tmp_path / "t.model").exists()
    assert not list(tmp_path.glob(".*.part"))


def test_a_failed_run_leaves_the_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.model").write_bytes(b"precious")
    (tmp_path / "short.py").write_text("x = 1\n")
    assert run(capsys, "train", "--out", tmp_path / "t.model", tmp_path / "short.py")[0] == 2
    assert (tmp_path / "t.model").read_bytes() == b"precious"


def test_hidden_folders_and_unknown_files_are_not_read(tmp_path: Path) -> None:
    from codelm import text_files

    for name in (".git/x.py", "a/b.py", "a/c.bin", "Makefile", "z.ts"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [(str(file.path.relative_to(tmp_path)), file.language) for file in text_files.find([tmp_path])]
    assert found == [("Makefile", "Makefile"), ("a/b.py", "Python"), ("z.ts", "TypeScript")]
    assert text_files.find([tmp_path / "a" / "c.bin"])[0].language == "Text"


def test_long_lines_come_in_parts(tmp_path: Path) -> None:
    from codelm import text_files

    (tmp_path / "long.py").write_text("ab" * 10_000 + "\r\nend")
    parts = list(text_files.lines(text_files.find([tmp_path / "long.py"])[0]))
    assert "".join(parts) == "ab" * 10_000 + "\r\nend"
    assert max(map(len, parts)) <= text_files.MAX_LINE
