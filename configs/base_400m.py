"""400M-class dense model, the depth dial at 18.

    codelm config show configs/base_400m.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 16B tokens at 2.80 GFLOPs each: 4.4e19 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for 16 chips of v5e.
"""

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-400m",
        model=PRESETS["400m"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=4096, batch_size=256),
        train=TrainConfig(steps=15_000, warmup_steps=1000),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
