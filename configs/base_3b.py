"""3B dense model, the depth dial at 28.

    codelm config show configs/base_3b.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 61B tokens at 22.1 GFLOPs each: 1.3e21 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for 64 chips of v5p.
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
        mesh=MeshConfig(data=1, fsdp=-1),
    )
