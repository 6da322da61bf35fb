"""Quickstart: a 4M-parameter model learns Python from the running Python's own standard library.

    make demo                                   # the whole of it: codelm run configs/quickstart.py
    codelm config show configs/quickstart.py

Cost: about three minutes on two CPU cores. Expect: a held-out loss well below the unigram entropy of the corpus, and
text that has the shape of Python (keywords, indentation, calls) but no sense; hardly a hole is filled exactly.
"""

from codelm.config import Config, CorpusConfig, DataConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS
from codelm.train_config import CheckpointConfig, EvaluationConfig, MidtrainConfig


def config() -> Config:
    return Config(
        name="quickstart",
        model=PRESETS["quickstart"],
        corpus=CorpusConfig(validation=0.05),
        tokenizer=TokenizerConfig(vocab_size=4096),
        data=DataConfig(seq_len=256, batch_size=8),
        train=TrainConfig(steps=160, learning_rate=2e-3, warmup_steps=15, decay_fraction=0.3, final_fraction=0.3),
        midtrain=MidtrainConfig(steps=16, learning_rate=6e-4),
        evaluation=EvaluationConfig(every=40, batches=4, suites=("bits-per-byte", "typing"), suites_tasks=40),
        checkpoint=CheckpointConfig(every=40),
    )
