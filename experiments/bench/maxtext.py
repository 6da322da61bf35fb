"""Memory and collectives of a training step compiled for TPUs, next to those of MaxText's; no TPU is needed.

    .venv/bin/python -m experiments.bench.maxtext        # extra tpu; about five minutes on two cores

The same models, rows of 8192, fully sharded over all chips, AdamW, every layer recomputed. MaxText's figures are those
of its 0.2.5, compiled the same way (jax 0.12.0.1, libtpu 0.0.51); its collectives are counted as ours: bytes of the
results on one chip, times how often the loops around them turn. One JSON line.
"""

import json
from dataclasses import dataclass

import jax

from codelm.config import Config, DataConfig, MeshConfig, ModelConfig, TokenizerConfig, resolve
from codelm.presets import PRESETS
from train.planning import plan
from train.topologies import Topology, parse


@dataclass(frozen=True)
class Case:
    model: ModelConfig
    topology: str
    rows: int
    maxtext_peak: float
    maxtext_collectives: float


LLAMA_8B = ModelConfig(
    depth=32, width=4096, heads=32, kv_heads=8, head_dim=128, mlp_width=14336, vocab_size=128_256, tied_embeddings=False
)
CASES = {
    "1.3b": Case(PRESETS["1.3b"], "v5e:4x4", 16, 3.87e9, 1.9e9 + 10.9e9),
    "llama-3.1-8b": Case(LLAMA_8B, "v5p:2x4x4", 128, 30.6e9, 11.3e9 + 66.5e9),
}
AIMS = {"peak": 0.95, "collectives": 0.9}


def config_of(case: Case) -> Config:
    vocab = case.model.vocab_size or 49_152
    told = Config(
        model=case.model,
        tokenizer=TokenizerConfig(vocab_size=vocab),
        data=DataConfig(seq_len=8192, batch_size=case.rows),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
    return resolve(told)


def measured(case: Case) -> dict[str, float]:
    cluster = parse(case.topology)
    assert isinstance(cluster, Topology)
    found = plan(config_of(case), "pretrain", cluster)
    sent = sum(row["bytes"] for row in found.collectives.values())
    return {
        "peak_gb": round(found.hbm_bytes_per_chip / 1e9, 3),
        "maxtext_peak_gb": case.maxtext_peak / 1e9,
        "peak_ratio": round(found.hbm_bytes_per_chip / case.maxtext_peak, 3),
        "collectives_gb": round(sent / 1e9, 2),
        "maxtext_collectives_gb": round(case.maxtext_collectives / 1e9, 1),
        "collectives_ratio": round(sent / case.maxtext_collectives, 3),
    }


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    print(json.dumps({"cases": {name: measured(case) for name, case in CASES.items()}, "aims": AIMS}))


if __name__ == "__main__":
    main()
