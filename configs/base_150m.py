"""150M-class dense model, the depth dial at 14, on one GPU.

    codelm run configs/base_150m.py
    codelm plan configs/base_150m.py --topology h100:1

Cost: 31.5B tokens at 1.12 GFLOPs each: 3.5e+19 FLOPs; README's table of plans says how fast at best.
Expect: not run yet. A plan for GPUs is arithmetic; `python -m experiments.bench.gpu` measures.
"""

import dataclasses

from codelm.config import Config, DataConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-150m",
        model=dataclasses.replace(PRESETS["150m"], remat="none"),
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=2048, batch_size=512),
        train=TrainConfig(steps=30_000, warmup_steps=1000, accumulate=16),
    )
