"""No call copies what is being written: where it takes a copy of every view for each token, nothing says so but time.

Compiled as it is served, with the optimisations that the other tests leave out for speed."""

import os
import subprocess
import sys

from tests.conftest import ROOT

SLOTS, ROOM = 8192, 0.7  # of a view: the scores of attention take some

SCRIPT = f"""
import dataclasses
import numpy as np
from codelm.config import ModelConfig, dial
from codelm.lm import LM
from codelm.model import create
from infer import programs
from infer.engine import Engine, Options
from infer.programs import Sight

small = ModelConfig(depth=2, width=32, heads=2, kv_heads=1, head_dim=256, max_seq_len={SLOTS})
config = dial(dataclasses.replace(small, compute_dtype="float32"), 64)
device = Engine(LM(config, create(config, 0), None, "codelm"), Options(rows=2)).device
slots = device.shapes.slots[-1]
for rows in (1, 2):
    for name, width in (("decode", 8), ("verify", 4), ("extend", 16)):
        if rows > 1 and name != "decode":
            continue
        resident, none = device._empty(rows, slots), np.zeros(rows, np.int32)
        targets = device._targets([None] * rows, [0] * rows, [width] * rows, width)
        given = device.tree, device.leaves, device.pages, resident.memory, Sight(resident.starts, None), targets
        choosing = device._choosing([None] * rows, width if name == "verify" else 1)
        block = np.zeros((rows, width), np.int32)
        rest = {{
            "decode": (none, none, none, np.zeros((rows, 32), np.int32), choosing),
            "verify": (block, none, none, choosing),
            "extend": (block, none, np.int32(1), choosing, np.bool_(True)),
        }}[name]
        compiled = getattr(programs, name).lower(*given, *rest, dtype="float32").compile()
        view = resident.memory[0].key.nbytes
        print(name, rows, compiled.memory_analysis().temp_size_in_bytes / view)
"""


def test_a_call_needs_less_memory_than_one_view_takes() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in found] == [
        ["decode", "1"],
        ["verify", "1"],
        ["extend", "1"],
        ["decode", "2"],
    ]
    assert not {(name, rows): room for name, rows, room in found if float(room) > ROOM}
