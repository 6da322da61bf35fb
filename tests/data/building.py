"""Building corpora in tests, and looking at what came out."""

import json
from pathlib import Path
from typing import Any

import pytest

from codelm import cli
from codelm.corpus_config import CorpusConfig
from data import runners
from data.plan import Settings


def run(*argv: str) -> int:
    return cli.main(["data", "build", *argv, "--workers", "1"])


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Through TFDS alone, as anybody would read it."""
    import tensorflow_datasets as tfds

    return list(tfds.builder_from_directory(str(folder)).as_data_source(split))


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def drops(folder: Path) -> list[dict[str, Any]]:
    import zstandard

    with (folder / "drops.jsonl.zst").open("rb") as raw:
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return [json.loads(line) for line in reader.read().splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert run(*argv) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("codelm: error: ")]
    assert len(lines) == 1
    return lines[0]


def settings(out: Path, **changed: Any) -> Settings:
    here: dict[str, Any] = {"runner": runners.local(1), "memory": 1 << 24}
    return Settings(out=str(out), **(here | changed))


def shards(folder: Path) -> dict[str, str]:
    return {name: sha for name, sha in manifest_of(folder)["checksums"].items() if "array_record" in name}


def corpus_config(source: str, **changed: Any) -> CorpusConfig:
    return CorpusConfig(sources=(source,), **changed)


class Interrupted(Exception):
    pass


def interrupted_after(count: int) -> runners.Runner:
    """One worker, until so many tasks are done."""
    left = [count]

    def run(function: Any, tasks: Any) -> Any:
        for task in tasks:
            if not left[0]:
                raise Interrupted
            left[0] -= 1
            function(task)
            yield task

    return run
