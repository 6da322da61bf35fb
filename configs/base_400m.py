"""400M-class dense model, the depth dial at 18, on 16 chips of v5e.

    codelm run configs/base_400m.py
    codelm plan configs/base_400m.py --topology v5e:4x4

Cost: 15.7B tokens at 2.8 GFLOPs each: 4.4e+19 FLOPs; README's table of plans says how fast at best.
Expect: not run yet.
"""

import dataclasses

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-400m",
        model=dataclasses.replace(PRESETS["400m"], remat="matmuls"),
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=4096, batch_size=256),
        train=TrainConfig(steps=15_000, warmup_steps=1000, accumulate=4),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
