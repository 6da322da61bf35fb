"""7B dense model: 32 layers of 4096, 8 key/value heads, feed-forward 14336.

    codelm config show configs/base_7b.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 147B tokens at 49.5 GFLOPs each: 7.3e21 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for 64 chips of v5p.
"""

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-7b",
        model=PRESETS["7b"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=512),
        train=TrainConfig(steps=35_000, warmup_steps=1000),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
