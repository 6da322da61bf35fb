"""Writes tests/golden/plans/: what every shipped config comes to on its topology, as `codelm plan` says it.

make plans         # compiles again what has changed, a minute or two each; then look at the diff

Each says by which program it was made, so that a test can tell without compiling whether it still holds.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax

from codelm.config import Config, resolve
from codelm.config_io import load
from tests.golden.make_configs import shipped
from train.gpu_plan import plan_gpus
from train.plan_command import longest, stage_config
from train.planning import VERSION, lowered, plan
from train.topologies import Gpus, Topology, parse

GOLDEN = Path(__file__).parent / "plans"
_COMMAND = re.compile(r"codelm plan configs/(\w+)\.py --topology (\S+)(?: --slices (\d+))?")


def clusters() -> dict[str, tuple[Path, str, int]]:
    """Each config's own topology and slices: the command in its docstring says them."""
    found = {}
    for path in shipped():
        if command := _COMMAND.search(path.read_text()):
            found[path.stem] = (path, command.group(2), int(command.group(3) or 1))
    return found


def staged(path: Path) -> tuple[Config, str]:
    config = resolve(load(path))
    stage = longest(config)
    return stage_config(config, stage), stage


def program(config: Config, cluster: Topology | Gpus) -> str:
    """What a plan is made from."""
    if isinstance(cluster, Gpus):
        return ""
    return hashlib.sha256(lowered(config, cluster).encode()).hexdigest()[:16]


def made(path: Path, topology: str, slices: int) -> dict[str, Any]:
    config, stage = staged(path)
    cluster = parse(topology, slices)
    found = plan_gpus(config, stage, cluster) if isinstance(cluster, Gpus) else plan(config, stage, cluster)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    return {"version": VERSION, "program": program(config, cluster), "made_with": versions, **dataclasses.asdict(found)}


def golden(name: str) -> dict[str, Any]:
    path = GOLDEN / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table() -> str:
    """As README shows them."""
    lines = [
        "| config | on | GiB a chip, of | s/step at best | bound by | tokens/s | MFU | collectives, GB a chip |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in clusters():
        found = golden(name)
        stage = ", mid-training" if found["stage"] == "midtrain" else ""
        method = ", arithmetic" if found["method"] == "arithmetic" else ""
        needs, limit = (found[field] / 2**30 for field in ("hbm_bytes_per_chip", "hbm_limit"))
        sent = sum(row["bytes"] for row in found["collectives"].values()) / 1e9
        lines.append(
            f"| {name}{stage} | {found['topology']}{method} | {needs:.1f}, {limit:.1f} | {found['step_seconds']:.2f} | "
            f"{found['bound_by']} | {found['tokens_per_second']:,.0f} | {found['predicted_mfu']:.0%} | {sent:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    jax.config.update("jax_platforms", "cpu")  # what is compiled for is only described
    every = "--all" in sys.argv
    wanted = clusters()
    for name, (path, topology, slices) in wanted.items():
        config, _ = staged(path)
        cluster, before = parse(topology, slices), golden(name)
        same = before.get("program") == program(config, cluster) and not isinstance(cluster, Gpus)
        if same and not every and before["topology"] == getattr(cluster, "told", topology):
            print(f"{name}: as before", flush=True)
            continue
        (GOLDEN / f"{name}.json").write_text(json.dumps(made(path, topology, slices), indent=2) + "\n")
        print(f"{name}: wrote {GOLDEN.name}/{name}.json", flush=True)
    for old in GOLDEN.glob("*.json"):
        if old.stem not in wanted:
            old.unlink()
    print(f"\nREADME's table:\n\n{table()}")


if __name__ == "__main__":
    main()
