"""The corpus and the tokenizer of many runs, each made once.

Every run still has both in its own folder, as one that is run alone: files of the first run that needs them are linked
into the others, so that they take no room, and any run's folder can be deleted or moved.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from codelm.config import Config
from data import inputs, manifest


def prepare(configs: Iterable[Config], runs: Path) -> None:
    """Afterwards every run finds what it would have made itself."""
    corpora: dict[tuple[str, str], Path] = {}
    tokenizers: dict[str, Path] = {}
    for config in configs:
        if not inputs.needs_own_corpus(config):
            continue
        folder = inputs.run_folder(config, runs) / inputs.CORPUS
        made = corpora.setdefault((manifest.fingerprint(config.corpus), config.corpus.benchmarks), folder)
        _share(made, folder)
        corpus = inputs.own_corpus(config, runs)
        if not config.tokenizer.path:
            path = inputs.tokenizer_path(config, corpus, runs)
            _share(tokenizers.setdefault(path.name, path), path)
            inputs.tokenizer(config, corpus, runs)


def _share(made: Path, wanted: Path) -> None:
    """Link a file or a folder to where it is wanted too, whole or not at all."""
    if wanted.exists() or made == wanted:
        return
    part = wanted.with_name(f".{wanted.name}.{os.getpid()}.part")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if made.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(made, part, copy_function=_link)
    else:
        _link(str(made), str(part))
    part.rename(wanted)


def _link(made: str, wanted: str) -> None:
    try:
        os.link(made, wanted)
    except OSError:  # a file system without links
        shutil.copy2(made, wanted)
