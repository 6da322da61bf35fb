"""1.3B dense model: 24 layers of 2048, 16 query and 8 key/value heads.

    codelm config show configs/base_1_3b.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 27B tokens at 9.82 GFLOPs each: 2.7e20 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for 64 chips of v5e.
"""

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-1-3b",
        model=PRESETS["1.3b"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=256),
        train=TrainConfig(steps=13_000, warmup_steps=1000),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
