"""What weights in fewer bits gain in speed: a model as it is and in 8 bits, 4 bits and fp8, its size by the depth dial.

    .venv/bin/python -m experiments.bench.quantised                    # 150M, in float32; some minutes on two cores
    .venv/bin/python -m experiments.bench.quantised --depth 6 --vocab-size 16384 --compute-dtype bfloat16

One JSON line for each: megabytes of the weights that decoding keeps, tokens/s of one request through the engine, and
both over those of the model as it is. The models write in turns. Weights are random: how good they are, `codelm
quantize` says of a model that has learnt.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from statistics import median
from typing import Literal

import jax
import tyro

from codelm.arithmetic import count_parameters
from codelm.config import ModelConfig, dial
from codelm.lm import LM
from codelm.model import create
from codelm.quantised import GROUP, Quantisation
from experiments.quantize_command import in_fewer_bits, megabytes, ratio, speeds


@dataclass(frozen=True)
class Options:
    """Time a model with its weights as they are, and in fewer bits."""

    depth: int = 14
    vocab_size: int = 32768
    compute_dtype: Literal["float32", "bfloat16"] = "float32"


def main() -> None:
    options = tyro.cli(Options)
    sized = ModelConfig(depth=options.depth, max_seq_len=1024, compute_dtype=options.compute_dtype)
    config = dial(sized, options.vocab_size)
    print(f"{count_parameters(config).total / 1e6:.1f}M parameters, on {jax.devices()[0].device_kind}", file=sys.stderr)
    plain = LM(config, create(config, 0), None, "codelm")
    hows = (Quantisation("8"), Quantisation("8", output_table=False), Quantisation("4", GROUP), Quantisation("fp8"))
    models = [plain, *(in_fewer_bits(plain, how) for how in hows)]
    sizes = [megabytes(model.model.apart()) for model in models]
    rates = speeds(models)
    for how, size, turns in zip((None, *hows), sizes, rates, strict=True):
        told = dataclasses.asdict(how) if how else {"bits": options.compute_dtype}
        found = {"megabytes": round(size, 1), "tokens_per_second": round(median(turns), 1)}
        ratios = {"size": round(size / sizes[0], 2), "speed": round(ratio(turns, rates[0]), 2)}
        print(json.dumps({**told, **found, **ratios}), flush=True)


if __name__ == "__main__":
    main()
