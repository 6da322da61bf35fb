"""7B dense model: 32 layers of 4096, 8 key/value heads, feed-forward 14336, on 64 chips of v5p.

    codelm run configs/base_7b.py
    codelm plan configs/base_7b.py --topology v5p:4x4x4

Cost: 147B tokens at 49.5 GFLOPs each: 7.3e+21 FLOPs; README's table of plans says how fast at best.
Expect: not run yet.
"""

import dataclasses

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-7b",
        model=dataclasses.replace(PRESETS["7b"], remat="matmuls"),
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=512),
        train=TrainConfig(steps=35_000, warmup_steps=1000, accumulate=4),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
