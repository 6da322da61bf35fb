"""What is in a corpus, built by the command, and what is not and why."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codelm import cli
from data import build, dataset, plan, runners
from tests.data.building import (
    corpus_config,
    drops,
    manifest_of,
    rows,
    run,
    settings,
    shards,
)
from tests.data.made_corpus import module, repositories


def test_every_planted_thing_goes_for_its_own_reason_and_nothing_else(
    planted: Path, benchmarks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    argv = ["--source", f"repositories:{planted}", "--out", str(out), "--decontaminate", str(benchmarks)]
    assert run(*argv) == 0
    found = {(drop["repository"].rsplit("/", 1)[-1], drop["path"]): drop["reason"] for drop in drops(out)}
    assert found == {
        ("repo00", "vendor/again.py"): "exact_duplicate",
        ("repo00", "deep/er/a_near_copy.py"): "near_duplicate",
        ("repo00", "binary.py"): "binary",
        ("repo00", "latin.py"): "not_utf8",
        ("repo00", "generated.py"): "generated",
        ("repo00", "huge.py"): "too_large",
        ("repo00", "copyleft.py"): "licence_not_allowed",
        ("repo00", "leak.py"): "contaminated",
        ("unlicensed", "free.py"): "unlicensed",
    }
    kept = {row["path"].decode(): row for split in ("train", "validation") for row in rows(out, split)}
    texts = [row["text"].decode() for split in ("train", "validation") for row in rows(out, split)]
    assert len(texts) == 8 * 4 + 2
    assert "AKIA" not in "".join(texts)
    assert "jane" not in "".join(texts)
    written = {(planted / f"repo{r:02}" / f"module_{f}.py").read_text() for r in range(8) for f in range(4)}
    assert written < set(texts), "clean files are untouched"
    assert kept["with_key.py"]["licence"] == b"MIT"
    manifest = manifest_of(out)
    assert {reason: row["documents"] for reason, row in manifest["dropped"].items()} == dict.fromkeys(found.values(), 1)
    assert manifest["kept"]["documents"] == sum(s["documents"] for s in manifest["splits"].values()) == 34
    assert manifest["languages"]["Python"]["kept"]["documents"] == 34
    assert manifest["licences"]["MIT"]["kept"]["bytes"] == sum(len(text.encode()) for text in texts)
    assert manifest["clusters"] == {"clusters": 2, "largest": 2}
    assert sum(manifest["replaced"].values()) == 2
    (sample,) = manifest["samples"]["near_duplicate"]
    assert sample["detail"].endswith("module_1.py"), "the copy that was kept is named"
    (leak,) = manifest["samples"]["contaminated"]
    assert "Kettle/0" in leak["detail"]
    assert manifest["licences"]["GPL-3.0-only"] == {
        "read": manifest["dropped"]["licence_not_allowed"],
        "kept": {"documents": 0, "bytes": 0},
    }


def test_repositories_are_held_out_whole(clean: Path, tmp_path: Path) -> None:
    assert run("--source", f"repositories:{clean}", "--out", str(tmp_path / "c"), "--corpus.validation", "0.4") == 0
    sides = [{row["repository"] for row in rows(tmp_path / "c", split)} for split in ("train", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 6
    assert sides[1]


@pytest.mark.parametrize(
    "argv",
    [["--corpus.dedup.level", "repository"], ["--corpus.skip", "near_duplicates", "exact_duplicates"]],
    ids=["repositories are compared", "duplicates are kept"],
)
def test_duplicates_never_straddle_the_split(argv: list[str], tmp_path: Path) -> None:
    folder = repositories(tmp_path / "r", count=6, files=3)
    for home in folder.iterdir():
        (home / "shared.py").write_text(module(77))
    options = ["--source", f"repositories:{folder}", "--out", str(tmp_path / "c"), "--corpus.validation", "0.5"]
    assert run(*options, *argv) == 0
    train, validation = ({row["text"] for row in rows(tmp_path / "c", s)} for s in ("train", "validation"))
    assert module(77).encode() in train
    assert not train & validation
    assert {d["reason"] for d in drops(tmp_path / "c")} == {"duplicate_across_splits"}


@pytest.mark.parametrize("skip", ["", "exact_duplicates", "near_duplicates"])
@pytest.mark.parametrize("level", ["file", "repository"])
def test_every_duplicate_names_a_document_that_was_kept(level: str, skip: str, tmp_path: Path) -> None:
    """Also where what stood for it, or for its repository, was itself left out of validation."""
    folder = repositories(tmp_path / "r", count=4, files=8)
    for number, home in enumerate(sorted(folder.iterdir())):
        (home / "a_shared.py").write_text(module(77))  # the first file of every repository
        fork = shutil.copytree(home, folder / f"{home.name}_fork")
        (fork / "more.py").write_text(module(88 + number, functions=1))
    options = ["--source", f"repositories:{folder}", "--out", str(tmp_path / "c"), "--corpus.validation", "0.5"]
    assert run(*options, "--corpus.dedup.level", level, *(["--corpus.skip", skip] if skip else [])) == 0
    train, validation = ({row["document"]: row for row in rows(tmp_path / "c", s)} for s in ("train", "validation"))
    dropped = drops(tmp_path / "c")
    assert len({drop["path"] for drop in dropped}) == 9
    clusters: dict[int, int] = {}
    for drop in dropped:
        assert drop["document"] not in train | validation
        assert drop["kept"] in (train if drop["reason"] == "duplicate_across_splits" else train | validation)
        clusters[drop["kept"]] = clusters.get(drop["kept"], 1) + 1
    assert manifest_of(tmp_path / "c")["clusters"] == {"clusters": len(clusters), "largest": max(clusters.values())}


def test_the_corpus_does_not_depend_on_workers_or_the_size_of_units(clean: Path, tmp_path: Path) -> None:
    config = corpus_config(f"repositories:{clean}")
    build.build(config, settings(tmp_path / "a"))
    build.build(config, settings(tmp_path / "b", runner=runners.local(2), unit_bytes=4000))
    assert shards(tmp_path / "a") == shards(tmp_path / "b")
    assert rows(tmp_path / "a", "train") == rows(tmp_path / "b", "train")
    assert manifest_of(tmp_path / "a")["languages"] == manifest_of(tmp_path / "b")["languages"]


def test_shards_are_cut_by_size_and_hold_every_document_in_order(clean: Path, tmp_path: Path) -> None:
    config = corpus_config(f"repositories:{clean}", validation=0.3)
    build.build(config, settings(tmp_path / "one"))
    build.build(config, settings(tmp_path / "many", shard_bytes=5000))
    lengths = [shard["text_bytes"] for shard in manifest_of(tmp_path / "many")["splits"]["train"]["shards"]]
    assert len(lengths) > 4
    assert max(lengths) < 5000 + 2500
    for split in ("train", "validation"):
        assert rows(tmp_path / "one", split) == rows(tmp_path / "many", split)


def test_what_was_dropped_takes_no_room_in_shards(clean: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clean, tmp_path / "r")
    for home in clean.iterdir():
        shutil.copytree(home, folder / f"{home.name}_fork")
    config = corpus_config(f"repositories:{folder}", validation=0.0)
    build.build(config, settings(tmp_path / "c", shard_bytes=5000))
    lengths = [shard["text_bytes"] for shard in manifest_of(tmp_path / "c")["splits"]["train"]["shards"]]
    assert len(lengths) > 4
    assert min(lengths[:-1]) > 5000 - 2500


def test_grain_reads_it(clean: Path, tmp_path: Path) -> None:
    import grain

    build.build(corpus_config(f"repositories:{clean}"), settings(tmp_path / "c", shard_bytes=8000))
    source = dataset.load(tmp_path / "c").split("train")
    shuffled = grain.MapDataset.source(source).shuffle(seed=1)
    assert sorted(row["text"] for row in shuffled) == sorted(row["text"] for row in source)
    assert len(source) > 20


MEASURE = """
import sys, threading, time
from data import build, runners
from data.plan import Settings
from codelm.corpus_config import CorpusConfig
import data.cleaning, data.sources, rensa, zstandard, tensorflow_datasets as tfds
from array_record.python import array_record_module
tfds.features.FeaturesDict, tfds.core

def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

source, out, memory = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = peak = anonymous()
done = False
def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(.005)
thread = threading.Thread(target=watch); thread.start()
settings = Settings(out=out, runner=runners.local(1), memory=memory,
                    unit_bytes=1 << 21, shard_bytes=1 << 23)
steps = ("fertility", "repeated", "encoded", "secrets", "personal", "generated", "minified")
try:
    build.build(CorpusConfig(sources=(source,), skip=steps), settings)
finally:
    done = True
thread.join()
print(peak - before)
"""


def test_memory_is_bounded_whatever_the_corpus(tmp_path: Path) -> None:
    """A corpus of 40 MB goes through 20 MB beyond what importing the libraries takes (12 MB, measured)."""
    texts = [module(n, functions=40) for n in range(300)]
    size = 0
    with (tmp_path / "rows.jsonl").open("w") as file:
        for n in range(40_000_000 // len(texts[0])):
            text = texts[n % 300].replace("total", f"sum{n // 3}")
            size += len(text)
            file.write(json.dumps({"text": text, "license": "MIT", "repository": f"r{n % 50}"}) + "\n")
    bound = 20 << 20
    assert size > 1.8 * bound
    argv = [sys.executable, "-c", MEASURE, f"files:{tmp_path}/rows.jsonl", str(tmp_path / "c"), str(8 << 20)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < bound
    assert manifest_of(tmp_path / "c")["kept"]["bytes"] > 1.8 * bound


def test_beam_gives_the_same_corpus(planted: Path, benchmarks: Path, tmp_path: Path) -> None:
    """On Beam's runner that has several processes."""
    argv = ["--source", f"repositories:{planted}", "--decontaminate", str(benchmarks)]
    assert run(*argv, "--out", str(tmp_path / "local")) == 0
    code = cli.main(["data", "build", *argv, "--out", str(tmp_path / "beam"), "--runner", "beam", "--workers", "2"])
    assert code == 0
    assert shards(tmp_path / "beam") == shards(tmp_path / "local")
    assert drops(tmp_path / "beam") == drops(tmp_path / "local")
    here, there = manifest_of(tmp_path / "local"), manifest_of(tmp_path / "beam")
    for name in ("dropped", "languages", "licences", "replaced", "samples", "clusters", "digest"):
        assert here[name] == there[name]


def test_units_are_small_where_there_is_little_and_stay_as_it_grows(tmp_path: Path) -> None:

    def rows_of(size: int) -> str:
        (tmp_path / "rows.jsonl").write_bytes((json.dumps({"text": "x" * 1000}) + "\n").encode() * (size // 1013))
        return f"files:{tmp_path}/rows.jsonl"

    taken: list[Any] = []

    def watched(function: Any, tasks: Any) -> Any:
        for task in tasks:
            taken.append(task)
            function(task)
            yield task

    with pytest.raises(dataset.UserError, match="empty after cleaning"):
        build.build(corpus_config(rows_of(3_000_000)), settings(tmp_path / "c", runner=watched))
    assert len(taken) == 3, "units of a megabyte, although nobody asked for them"
    assert plan.unit_bytes([rows_of(100_000)]) == 1 << 20
    assert plan.unit_bytes([rows_of(80_000_000)]) == plan.unit_bytes([rows_of(90_000_000)]) == 1 << 21
