"""The model of base_7b.py mid-trained on rows of 32K: whole repositories, YaRN, rows split over 4 chips.

    codelm run configs/long_7b_32k.py
    codelm plan configs/long_7b_32k.py --topology v5p:4x4x8

Cost: 8.39B tokens at 68.9 GFLOPs each: 5.8e+20 FLOPs; README's table of plans says how fast at best.
It begins from the last state of runs/base-7b (train.start), which the config of base_7b.py trains. Expect: the loss
of late positions falls, that of early ones stays (the report shows both); not run yet.
"""

import dataclasses

from codelm.config import Config, MeshConfig
from codelm.train_config import MidtrainConfig
from configs import base_7b


def config() -> Config:
    before = base_7b.config()
    return dataclasses.replace(
        before,
        name="long-7b-32k",
        train=dataclasses.replace(before.train, start="runs/base-7b", accumulate=2),
        midtrain=MidtrainConfig(steps=2000, seq_len=32_768, rope_scaling="yarn", level="repository"),
        mesh=MeshConfig(data=1, fsdp=-1, context=4),
    )
