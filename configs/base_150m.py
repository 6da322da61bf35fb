"""150M-class dense model, the depth dial at 14.

    codelm config show configs/base_150m.py        # sizes, parameters, FLOPs/token, KV bytes/token

Cost: 31B tokens at 1.12 GFLOPs each: 3.5e19 FLOPs.
Expect: not run yet; this file fixes the sizes. Meant for one GPU or a v5e host.
"""

from codelm.config import Config, DataConfig, TokenizerConfig, TrainConfig
from codelm.presets import PRESETS


def config() -> Config:
    return Config(
        name="base-150m",
        model=PRESETS["150m"],
        tokenizer=TokenizerConfig(vocab_size=49_152),
        data=DataConfig(seq_len=2048, batch_size=512),
        train=TrainConfig(steps=30_000, warmup_steps=1000),
    )
