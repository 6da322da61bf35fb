"""What every command that looks at batches takes, and the loader it then has."""

from dataclasses import dataclass
from pathlib import Path

from codelm.caches import CACHE
from codelm.commandline import ConfigOption
from codelm.config import resolve
from data import inputs
from data.loader import Loader, make


@dataclass(frozen=True)
class LoaderOptions:
    config: ConfigOption
    json: bool = False
    """Print JSON."""
    split: str = "train"
    """Split of the corpora."""
    dir: Path = inputs.RUNS
    """Folder of runs: the run's corpus and tokenizer are made there if they are missing."""
    cache: Path = CACHE
    """Folder for tokens and rows, which are made once."""

    def loader(self) -> Loader:
        """With its corpus and tokenizer made first where they are missing."""
        config = resolve(self.config)
        corpus = inputs.own_corpus(config, self.dir) if inputs.needs_own_corpus(config) else None
        tokenizer = inputs.tokenizer(config, corpus, self.dir)
        return make(config, str(corpus.folder) if corpus else "", tokenizer, split=self.split, cache=self.cache)
