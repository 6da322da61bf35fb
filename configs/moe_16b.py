"""16B mixture of experts, 2.6B active: 64 experts of 1408, 6 a token and 2 shared.

    codelm config show configs/moe_16b.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 59B tokens at 17.9 GFLOPs each: 1.1e21 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for 128 chips of v5p.
"""

from codelm.config import Config, DataConfig, MeshConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="moe-16b",
        model=PRESETS["moe-16b"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=8192, batch_size=512),
        train=TrainConfig(steps=14_000, warmup_steps=1000),
        mesh=MeshConfig(data=1, fsdp=-1, expert=8),
    )
