"""1.3B dense model: 24 layers of 2048, 16 query and 8 key/value heads, on 64 chips of v5e.

    codelm run configs/base_1_3b.py
    codelm plan configs/base_1_3b.py --topology v5e:8x8

Cost: 27.3B tokens at 9.81 GFLOPs each: 2.7e+20 FLOPs; README's table of plans says how fast at best.
Expect: not run yet.
"""

import dataclasses

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-1-3b",
        model=dataclasses.replace(PRESETS["1.3b"], remat="matmuls"),
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=256),
        train=TrainConfig(steps=13_000, warmup_steps=1000, accumulate=4),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
