"""A small corpus in several languages and scripts for tests of batches, its tokenizer, and configs over it."""

import json
import random
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codelm import corpus_config, tokenizer_training
from codelm.config import Config, CorpusConfig, DataConfig, ModelConfig, TokenizerConfig
from codelm.data_config import FimConfig, SourceConfig, SpansConfig
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import Tokenizer
from data import build, dataset, loader
from data.loader import Loader
from tests.data.building import settings
from tests.data.made_corpus import module

VOCAB = 700
EVERY_CHOOSER = SpansConfig(characters=1, lines=1, tokens=1, syntax=1, causal=1, several=1)
NO_HOLES = FimConfig(rate=0.0)


@dataclass(frozen=True)
class Batches:
    corpus: Path
    tokenizer: Tokenizer
    tokenizer_path: Path
    cache: Path

    def config(self, *sources: SourceConfig, seed: int = 0, **data: Any) -> Config:
        fields: dict[str, Any] = {"seq_len": 256, "batch_size": 8, "sources": sources or (SourceConfig(),)}
        return Config(
            seed=seed,
            model=ModelConfig(depth=1, vocab_size=VOCAB),
            tokenizer=TokenizerConfig(path=str(self.tokenizer_path), vocab_size=VOCAB),
            data=DataConfig(**(fields | data)),
        )

    def loader(self, *sources: SourceConfig, seed: int = 0, **data: Any) -> Loader:
        return loader.make(self.config(*sources, seed=seed, **data), self.corpus, cache=self.cache, workers=1)

    def texts(self, corpus: Path | None = None) -> dict[tuple[str, str], str]:
        found = dataset.load(corpus or self.corpus).documents("train")
        return {(document.repository, document.path): document.text for document in found}


def make(folder: Path, held_out: float = 0.0) -> Batches:
    corpus = build_corpus(folder, "code", documents(), held_out)
    learnt = (text for text in texts_of(corpus) if text.isascii() or "Ünïcode" in text)  # the rare are cut into bytes
    proto = tokenizer_training.train((line for text in learnt for line in text.splitlines(True)), VOCAB)
    path = folder / "tokenizer.model"
    path.write_bytes(proto)
    return Batches(corpus, from_proto(proto), path, folder / "cache")


def texts_of(corpus: Path) -> list[str]:
    return [document.text for document in dataset.load(corpus).documents("train")]


def build_corpus(folder: Path, name: str, rows: list[dict[str, str]], held_out: float = 0.0) -> Path:
    """The rows as they are, nothing held out unless asked."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = typing.get_args(corpus_config.Step)
    config = CorpusConfig(sources=(f"files:{folder / name}.jsonl",), skip=steps, validation=held_out)
    build.build(config, settings(folder / name))
    return folder / name


def documents(repositories: int = 8) -> list[dict[str, str]]:
    rng = random.Random(0)
    rows = []
    for number in range(repositories):
        name = f"owner/repo{number}"
        texts = {
            "lib/base.py": module(number, 3),
            "lib/util.py": f"from lib.base import thing\n\n{module(100 + number, 2)}",
            "tests/test_util.py": f"import pytest\nfrom lib import util\n\n{module(200 + number, 2)}",
            "web/index.js": javascript(rng, 5),
            "web/parts/row.js": f"import {{ a }} from '../index.js';\n{javascript(rng, 3)}",
            "cmd/main.go": go(rng, 4),
            "README.md": f"# Ünïcode {number}\r\n\r\n" + "".join(rng.choices("naïve 日本語🎉 \t\r\né", k=150)),
        }
        rows += [{"repo_name": name, "path": path, "content": text} for path, text in texts.items()]
    rows.append({"repo_name": "owner/long", "path": "long.py", "content": module(999, 60)})
    rows.append({"repo_name": "owner/short", "path": "x.py", "content": "x"})
    rows += [{"repo_name": "owner/tiny", "path": f"{n}.py", "content": c} for n, c in enumerate("xyzxyzxy")]
    rare = "".join(map(chr, rng.choices([*range(0x5000, 0x9000), *range(0x1F600, 0x1F650)], k=1500)))
    rows.append({"repo_name": "owner/rare", "path": "rare.txt", "content": rare})
    return rows


def javascript(rng: random.Random, count: int) -> str:
    lines = []
    for _ in range(count):
        name, value = rng.choice("abcdef") + str(rng.randrange(100)), rng.randrange(9)
        lines += [f"export function {name}(items) {{", f"  return items.map((item) => item.{name} + {value});", "}", ""]
    return "\n".join(lines)


def go(rng: random.Random, count: int) -> str:
    lines = ["package main", "", 'import "fmt"', ""]
    for _ in range(count):
        name = rng.choice("pqrst") + str(rng.randrange(100))
        lines += [f"func {name}(n int) int {{", f'\tfmt.Println("{name}", n)', f"\treturn n * {rng.randrange(9)}", "}"]
    return "\n".join(lines)


def fim(**changed: Any) -> FimConfig:
    return replace(FimConfig(), **changed)
