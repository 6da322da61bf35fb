"""16B mixture of experts, 2.6B active: 64 experts of 1408, 6 a token and 2 shared, on 128 chips of v5p.

    codelm run configs/moe_16b.py
    codelm plan configs/moe_16b.py --topology v5p:4x4x8

Cost: 58.7B tokens at 17.9 GFLOPs each: 1.1e+21 FLOPs; README's table of plans says how fast at best.
Expect: not run yet. An expert takes at most a quarter more than its even share of a row's tokens.
"""

import dataclasses

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    model = PRESETS["moe-16b"]
    # Without a limit experts need buffers for the worst case, eight times what they fill, and memory bounds the step.
    moe = dataclasses.replace(model.moe, capacity_factor=1.25)
    return Config(
        name="moe-16b",
        model=dataclasses.replace(model, moe=moe, remat="matmuls"),
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=512),
        train=TrainConfig(steps=14_000, warmup_steps=1000),
        mesh=MeshConfig(data=1, fsdp=-1, expert=8),
    )
