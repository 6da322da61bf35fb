"""One of several processes that put the same batches on one mesh: started by test_feed.py, with what it is told."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from codelm import config_io
from data import feed, loader


def main() -> None:
    told = json.loads(sys.argv[1])
    jax.distributed.initialize(told["address"], told["processes"], told["process"])
    made = loader.make(config_io.load(told["config"]), told["corpus"], cache=Path(told["cache"]), workers=1)
    mesh = jax.make_mesh(tuple(told["mesh"].values()), tuple(told["mesh"]))
    asked: list[int] = []
    rows = loader.Loader.row
    loader.Loader.row = lambda self, number: (asked.append(number), rows(self, number))[1]  # type: ignore[method-assign]
    with jax.set_mesh(mesh):
        (batch,) = feed.feed(made, mesh, start=told["step"], stop=told["step"] + 1)
        checksum = int(jax.jit(lambda batch: batch["tokens"].sum())(batch))
    shards = {
        name: [(shard.index, np.asarray(shard.data)) for shard in batch[name].addressable_shards] for name in batch
    }
    np.save(told["out"], {"shards": shards, "checksum": checksum, "rows": sorted(asked)}, allow_pickle=True)


if __name__ == "__main__":
    main()
