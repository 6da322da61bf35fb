"""`codelm plan`: whether an experiment fits a cluster, and how fast it can be there at best."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax

from codelm.commandline import ConfigOption, parse_with_config
from codelm.config import Config, resolve
from codelm.errors import UserError
from codelm.hardware import GIB
from codelm.midtraining import midtrained

if TYPE_CHECKING:
    from train.planning import Plan


@dataclass(frozen=True)
class PlanOptions:
    """Whether a step of training fits a cluster, and how fast it can be there at best. For TPUs the real step is
    compiled, without a TPU (extra tpu), which takes a minute or two; for GPUs it is arithmetic. Any field of the config
    can be set by its dotted path."""

    config: ConfigOption
    topology: str = ""
    """A slice of TPUs (v5e:4x4, v5p:4x4x8, v6e:8x8, tpu7x:2x2x1, v4:2x2x2) or a number of GPUs (h100:64)."""
    slices: int = 1
    """So many slices of TPUs, joined by a network."""
    stage: Literal["longest", "pretrain", "midtrain"] = "longest"
    """Which stage; longest = the one with the longest rows."""
    search: bool = False
    """Try remat policies, parts of a batch and mesh shapes as well, and print the best that fit."""
    json: bool = False
    """Print JSON."""


def plan(argv: list[str], prog: str) -> None:
    options = parse_with_config(PlanOptions, argv, prog)
    if not options.topology:
        raise UserError("which cluster? --topology v5p:4x4x8, or h100:64")
    config = resolve(options.config)
    stage = _stage(config, options.stage)
    jax.config.update("jax_platforms", "cpu")  # the machine's own accelerators are left alone
    from train.topologies import Gpus, parse

    cluster = parse(options.topology, options.slices)
    if isinstance(cluster, Gpus):
        if options.search:
            raise UserError("--search compiles what it tries, so it is for TPU topologies")
        from train.gpu_plan import plan_gpus

        _print([("as it is", plan_gpus(stage_config(config, stage), stage, cluster))], "", options.json)
        return
    from train import planning
    from train.plan_search import fitting, search

    def of_stage(config: Config) -> Config:
        return stage_config(config, stage)

    if options.search:
        found = search(config, of_stage, stage, cluster, _say)
        if not found:
            raise UserError(f"nothing that was tried fits {cluster.told}: take more chips, or a smaller model")
        _print([(tried.way.told(config), tried.plan) for tried in found], "", options.json)
        return
    made, advice = planning.plan(of_stage(config), stage, cluster, _say), ""
    if not made.fits:
        _say("it does not fit; looking for what would")
        better = fitting(config, of_stage, stage, cluster, made, _say)
        advice = f"fits with {better.way.told(config)}" if better else "take more chips, or shorter rows"
    _print([("as it is", made)], advice, options.json)


def stage_config(config: Config, stage: str) -> Config:
    return midtrained(config) if stage == "midtrain" else config


def _stage(config: Config, asked: str) -> str:
    if asked == "midtrain" and not config.midtrain.steps:
        raise UserError(f"{config.name} has no mid-training: midtrain.steps is 0")
    return longest(config) if asked == "longest" else asked


def longest(config: Config) -> str:
    """The stage with the longest rows."""
    longer = config.midtrain.steps and midtrained(config).data.seq_len >= config.data.seq_len
    return "midtrain" if longer else "pretrain"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(plans: Sequence[tuple[str, "Plan"]], advice: str, as_json: bool) -> None:
    """Several are those of a search, the best first."""
    if as_json:
        found = [{"change": change, **dataclasses.asdict(each)} for change, each in plans]
        print(json.dumps(found if len(found) > 1 else found[0] | ({"advice": advice} if advice else {}), indent=2))
        return
    if len(plans) > 1:
        _print_ranking(plans)
    print(described(plans[0][1]))
    if advice:
        print(f"advice       {advice}")


def _print_ranking(plans: Sequence[tuple[str, "Plan"]]) -> None:
    width = max(len(change) for change, _ in plans)
    print(f"{'':{width}}  GiB a chip  seconds a step  tokens/s  bound by")
    for change, each in plans:
        print(
            f"{change:{width}}  {each.hbm_bytes_per_chip / GIB:10.1f}  {each.step_seconds:14.3g}  "
            f"{each.tokens_per_second:8,.0f}  {each.bound_by}"
        )
    print()


def described(made: "Plan") -> str:
    """A plan as a person reads it."""
    shape = ", ".join(f"{axis} {size}" for axis, size in made.mesh.items() if size > 1) or "one device"
    limit, needs, split = made.hbm_limit / GIB, made.hbm_bytes_per_chip / GIB, made.hbm_split
    verdict = "fits" if made.fits else f"does not fit, by {needs - limit:.1f} GiB"
    tokens = (
        f"{made.rows_per_device:g} rows a device"
        if made.rows_per_device >= 1
        else f"1/{1 / made.rows_per_device:g} of a row a device"
    )
    parts = f" in each of {made.accumulate} parts" if made.accumulate > 1 else ""
    how = "by arithmetic only, nothing was compiled" if made.method == "arithmetic" else "compiled"
    lines = [
        f"{made.config}, {made.stage}, on {made.topology}: {made.devices} devices, mesh {shape}; {tokens}{parts}, "
        f"remat {made.remat}; {how}",
        f"memory       {needs:.1f} of {limit:.1f} GiB a chip: {verdict} (parameters {split['parameters'] / GIB:.2f}, "
        f"optimizer {split['optimizer'] / GIB:.2f}, activations and gradients {split['activations'] / GIB:.2f})",
    ]
    if made.roofline_seconds["memory"]:
        lines += _rates(made)
    return "\n".join(lines)


def _rates(made: "Plan") -> list[str]:
    seconds = made.roofline_seconds
    sent = ", ".join(
        f"{kind} {row['bytes'] / 1e9:.2f} GB in {row['count']:,.0f}" for kind, row in sorted(made.collectives.items())
    )
    axes = ", ".join(
        f"{axis} {size / 1e9:.2f} GB" for axis, size in made.collective_bytes_by_axis.items() if size > 1e6
    )
    return [
        f"compute      {seconds['compute']:.3g} s: {made.executed_flops_per_chip / 1e12:,.1f} TFLOP a chip, "
        "recomputation too",
        f"HBM traffic  {seconds['memory']:.3g} s",
        f"collectives  {seconds['collectives']:.3g} s: {sent or 'none'}{f'; along {axes}' if axes else ''}",
        f"at best      {made.step_seconds:.3g} s a step, bound by {made.bound_by}: {made.tokens_per_second:,.0f} "
        f"tokens/s, MFU {made.predicted_mfu:.1%} (each of the three alone at the published rate, all at once)",
    ]
