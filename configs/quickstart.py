"""Quickstart: a 4M-parameter model learns Python from the running Python's own standard library.

    make demo                                   # trains it and shows what it writes
    codelm config show configs/quickstart.py

Cost: about two minutes on two CPU cores. Expect: a loss well below the unigram entropy of the corpus, and text that has
the shape of Python (keywords, indentation, calls) but no sense.
"""

from codelm.config import Config, CorpusConfig, DataConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="quickstart",
        model=PRESETS["quickstart"],
        corpus=CorpusConfig(validation=0.05),
        tokenizer=TokenizerConfig(vocab_size=4096),
        data=DataConfig(seq_len=256, batch_size=8),
        train=TrainConfig(steps=100, learning_rate=2e-3, warmup_steps=15, decay_fraction=0.5),
    )
