"""3B dense model, the depth dial at 28, on two slices of 64 chips of v5e: each has a whole copy, split over its own.

    codelm run configs/base_3b.py
    codelm plan configs/base_3b.py --topology v5e:8x8 --slices 2

Cost: 60.8B tokens at 22 GFLOPs each: 1.3e+21 FLOPs; README's table of plans says how fast at best.
Expect: not run yet.
"""

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-3b",
        model=PRESETS["3b"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=256),
        train=TrainConfig(steps=29_000, warmup_steps=1000),
        mesh=MeshConfig(data=2, fsdp=-1),
    )
