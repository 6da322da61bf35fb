"""What an experiment's data needs before its first batch: its own corpus, and a tokenizer learnt on it.

Both lie in the run's folder, under the names that `codelm data show` and training look for.
"""

import hashlib
import os
import sys
from pathlib import Path

from codelm import tokenizer as tokenizers
from codelm import tokenizer_training
from codelm.config import Config
from codelm.errors import UserError
from codelm.publish import write_atomically
from codelm.tokenizer import Tokenizer
from data import build, dataset, manifest
from data.dataset import Corpus
from data.plan import Settings

RUNS = Path("runs")
CORPUS = "corpus"  # in the run's folder


def run_folder(config: Config, runs: Path = RUNS) -> Path:
    return runs / config.name


def own_corpus(config: Config, runs: Path = RUNS) -> Corpus:
    """The corpus of the config: the one in the run's folder, or built anew where that was made by another config."""
    benchmarks = config.corpus.benchmarks or os.environ.get("CODELM_BENCHMARKS", "")
    out = run_folder(config, runs) / CORPUS
    if (out / dataset.MANIFEST).exists():
        found = dataset.load(out)
        same = found.manifest.get("fingerprint") == manifest.fingerprint(config.corpus)
        if same and bool(found.manifest.get("benchmarks")) == bool(benchmarks):
            return found
    print(f"building the corpus of {config.name} in {out}", file=sys.stderr)
    return build.build(config.corpus, Settings(out=str(out), benchmarks=benchmarks, overwrite=True))


def needs_own_corpus(config: Config) -> bool:
    """Whether some source, or the tokenizer, is made of it."""
    return not config.tokenizer.path or any(not source.corpus for source in config.data.sources)


def tokenizer(config: Config, corpus: Corpus | None, runs: Path = RUNS) -> Tokenizer:
    return tokenizers.load(tokenizer_file(config, corpus, runs))


def tokenizer_file(config: Config, corpus: Corpus | None, runs: Path = RUNS) -> Path:
    """The one that the config names, or one learnt on the corpus, which is kept."""
    if config.tokenizer.path or corpus is None:
        return tokenizers.file_of(config.tokenizer.path)
    path = tokenizer_path(config, corpus, runs)
    if not path.exists():
        print(f"learning a tokenizer of {config.tokenizer.vocab_size:,} pieces: {path}", file=sys.stderr)
        write_atomically(path, _learn(corpus, config.tokenizer.vocab_size))
    return path


def tokenizer_path(config: Config, corpus: Corpus, runs: Path = RUNS) -> Path:
    """Where the one learnt on the corpus is kept."""
    return _learnt_path(config, corpus, run_folder(config, runs))


def _learnt_path(config: Config, corpus: Corpus, folder: Path) -> Path:
    """In a run's folder; its name tells what it was learnt from."""
    known = f"{corpus.manifest['digest']} {config.tokenizer.vocab_size} {tokenizers.OWN_SPECIALS}"
    return folder / f"tokenizer-{hashlib.sha256(known.encode()).hexdigest()[:8]}.model"


def left_in(folder: Path, config: Config) -> tuple[Corpus | None, Tokenizer]:
    """The corpus and the tokenizer that a run used, out of its folder; nothing is made."""
    corpus = dataset.load(folder / CORPUS) if needs_own_corpus(config) else None
    if config.tokenizer.path or corpus is None:
        return corpus, tokenizers.load(config.tokenizer.path)
    path = _learnt_path(config, corpus, folder)
    if not path.exists():
        raise UserError(f"{path} is missing, the tokenizer that the run learnt: the same `codelm run` learns it again")
    return corpus, tokenizers.load(path)


def _learn(corpus: dataset.Corpus, vocab_size: int) -> bytes:
    lines = (line for document in corpus.documents("train") for line in document.text.splitlines(keepends=True))
    size = corpus.manifest["splits"]["train"]["text_bytes"]
    return tokenizer_training.train(
        tokenizer_training.sample(lines, size, tokenizer_training.DEFAULT_MAX_BYTES), vocab_size
    )
