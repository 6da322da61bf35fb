"""One of several processes that measure one model on one mesh: started by test_held_out.py, with what it is told."""

import json
import sys
from pathlib import Path

import jax

from codelm import config_io
from codelm.model import create
from codelm.tokenizer import load
from train import held_out, infilling

AXES = ("data", "fsdp", "expert", "tensor", "context")


def main() -> None:
    told = json.loads(sys.argv[1])
    jax.distributed.initialize(told["address"], told["processes"], told["process"])
    config, corpus = config_io.load(told["config"]), told["corpus"]
    mesh = jax.make_mesh((told["processes"], 1, 1, 2, 1), AXES)
    tokenizer = load(config.tokenizer.path)
    with jax.set_mesh(mesh):
        model = create(config.model, 0)
        made = held_out.make(config, corpus, tokenizer, told["cache"], mesh)
        metrics, filled = infilling.make(config, corpus, tokenizer).measure(model)
        found = {**made.measure(model), **metrics, "rows": len(made.text[0]["tokens"])}
    Path(told["out"]).write_text(json.dumps([found, [one.completion for one in filled]]))


if __name__ == "__main__":
    main()
