"""Planning: what a training step needs and how fast it can be at best, before a machine is paid for.

For TPUs the real step is compiled, without a TPU; memory is what the compiler says, or refuses. Its own figures of cost
leave loops and kernels out, so operations are counted in the traced program (`train.flops`), and memory traffic and
collectives in the compiled one (`train.hlo`, `train.collectives`).
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from codelm.arithmetic import training_flops_per_token
from codelm.config import Config, mesh_shape
from codelm.hardware import GIB, Chip
from codelm.sharding import spec
from train.collectives import Collective, by_axes, by_kind, collectives
from train.flops import flops_on_device
from train.hlo import Program
from train.mesh import mesh_on
from train.state import State
from train.step import Steps, make_steps
from train.topologies import Topology
from train.trainer import like_state

VERSION = 1


@dataclass(frozen=True)
class Plan:
    """Of one step; bytes and seconds are of one device."""

    config: str
    stage: str
    topology: str
    devices: int
    mesh: dict[str, int]
    rows_per_device: float
    """In one part of a batch."""
    accumulate: int
    remat: str
    method: str
    """compiled, or arithmetic."""
    fits: bool
    hbm_bytes_per_chip: float
    hbm_limit: float
    hbm_split: dict[str, float]
    """parameters, optimizer, and activations: the rest, gradients too."""
    flops_per_step: float
    """Of the model on all devices, without recomputation: what MFU counts."""
    executed_flops_per_chip: float
    roofline_seconds: dict[str, float]
    """compute, memory, collectives: each if it were alone and at the published rate."""
    step_seconds: float
    """The longest of those: no step is faster."""
    bound_by: str
    predicted_mfu: float
    """If the step took that long."""
    tokens_per_second: float
    collectives: dict[str, dict[str, float]]
    """By kind: count, bytes, seconds."""
    collective_bytes_by_axis: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """Of one device, whoever made it; `Plan` says what each is."""

    method: str
    fits: bool
    peak: float
    """Bytes, all in all."""
    memory: dict[str, float]
    """… of parameters and optimizer."""
    flops: float
    seconds: dict[str, float]
    """compute, memory, collectives."""
    collectives: dict[str, dict[str, float]]
    by_axis: dict[str, float]


@dataclass(frozen=True)
class _Part:
    """A jitted function of a step, and how often a step calls it."""

    times: int
    peak: float
    """Bytes, or what the compiler refused."""
    fits: bool
    flops: float
    traffic: float
    collectives: list[Collective]


def plan(config: Config, stage: str, topology: Topology, say: Callable[[str], None] = lambda line: None) -> Plan:
    """Compile a step of the config, which is resolved, for the topology. Takes a minute or two."""
    shape = mesh_shape(config, len(topology.devices))
    with mesh_on(shape, topology.devices) as mesh:
        state, parts = like_state(config), []
        for name, times, arguments, beside in _calls(config, make_steps(config), mesh, state):
            started = time.monotonic()
            say(f"compiling the {name} step for {topology.told}")
            parts.append(_compiled(times, arguments, beside, mesh, topology, config))
            say(f"compiled in {time.monotonic() - started:.0f} s")
            if not parts[-1].fits:
                break
        memory = {"parameters": bytes_on_device(state.model), "optimizer": bytes_on_device(_without_model(state))}
    return _made(config, stage, topology, shape, parts, memory)


def lowered(config: Config, topology: Topology) -> str:
    """The program of a step as XLA is given it, without the addresses that its kernels carry."""
    with mesh_on(mesh_shape(config, len(topology.devices)), topology.devices) as mesh:
        calls = _calls(config, make_steps(config), mesh, like_state(config))
        texts = [function.trace(*given).lower().as_text() for _, _, (function, given), _ in calls]
    return "\n".join(re.sub(r'backend_config = "[^"]*"', "", text) for text in texts)


def _calls(
    config: Config, steps: Steps, mesh: Mesh, state: State
) -> list[tuple[str, int, tuple[Any, tuple[Any, ...]], float]]:
    """The functions of a step: name, how often, with what, and the bytes that lie in memory beside that."""
    batch = like_batch(config, mesh)
    if config.train.accumulate == 1:
        return [("whole", 1, (steps.whole, (state, batch)), 0.0)]
    sums = _placed(jax.eval_shape(steps.first, state.model, batch), mesh)
    beside = bytes_on_device(_without_model(state))
    more = (steps.more, (state.model, sums, batch))
    return [("more", config.train.accumulate, more, beside), ("update", 1, (steps.update, (state, sums)), 0.0)]


def like_batch(config: Config, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A part of a batch as `data.feed` gives it, without its arrays."""
    shape = (config.data.batch_size // config.train.accumulate, config.data.seq_len)
    split = NamedSharding(mesh, spec("batch", "sequence"))
    kinds = {"loss_weights": jnp.float32}
    names = ("tokens", "targets", "loss_weights", "positions", "segment_ids")
    return {name: jax.ShapeDtypeStruct(shape, kinds.get(name, jnp.int32), sharding=split) for name in names}


def _placed(tree: Any, mesh: Mesh) -> Any:
    def place(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding: Any = x.sharding
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, sharding.spec))

    return jax.tree.map(place, tree)


def _without_model(state: State) -> Any:
    return [leaf for name, leaf in zip(state._fields, state, strict=True) if name != "model"]


def bytes_on_device(tree: Any) -> float:
    """Of arrays, which may be abstract, on one device."""
    return float(sum(x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree)))


def _compiled(
    times: int,
    call: tuple[Any, tuple[Any, ...]],
    beside: float,
    mesh: Mesh,
    topology: Topology,
    config: Config,
) -> _Part:
    function, arguments = call
    traced = function.trace(*arguments)
    flops = flops_on_device(traced.jaxpr, dict(mesh.shape), config.model.moe)
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"HLO temporaries \(([\d.]+)([MG])\)", str(error))
        if needed is None:
            raise
        peak = float(needed.group(1)) * (GIB if needed.group(2) == "G" else 2**20)
        return _Part(times, peak + beside, False, flops, 0.0, [])
    program = Program(compiled.as_text())
    peak = compiled.memory_analysis().peak_memory_in_bytes + beside
    found = collectives(program, mesh, topology)
    return _Part(times, peak, peak <= topology.chip.memory, flops, program.hbm_traffic(), found)


def _made(
    config: Config, stage: str, topology: Topology, shape: dict[str, int], parts: list[_Part], memory: dict[str, float]
) -> Plan:
    chip = topology.chip
    sent = [
        dataclasses.replace(each, times=each.times * part.times, seconds=each.seconds * part.times)
        for part in parts
        for each in part.collectives
    ]
    flops = sum(part.flops * part.times for part in parts)
    estimate = Estimate(
        method="compiled",
        fits=all(part.fits for part in parts),
        peak=max(part.peak for part in parts),
        memory=memory,
        flops=flops,
        seconds={
            "compute": flops / chip.flops,
            "memory": sum(part.traffic * part.times for part in parts) / chip.bandwidth,
            "collectives": sum(each.seconds for each in sent),
        },
        collectives=by_kind(sent),
        by_axis=by_axes(sent),
    )
    return finished(config, stage, topology.told, shape, chip, estimate)


def finished(config: Config, stage: str, topology: str, shape: dict[str, int], chip: Chip, found: Estimate) -> Plan:
    """The plan that an estimate comes to."""
    data, parts, devices = config.data, config.train.accumulate, math.prod(shape.values())
    tokens = data.batch_size * data.seq_len
    model_flops = float(tokens * training_flops_per_token(config.model, data.seq_len))
    bound = max(found.seconds, key=lambda name: found.seconds[name])
    step = found.seconds[bound]
    return Plan(
        config=config.name,
        stage=stage,
        topology=topology,
        devices=devices,
        mesh=shape,
        rows_per_device=data.batch_size / parts / (shape["data"] * shape["fsdp"] * shape["expert"] * shape["context"]),
        accumulate=parts,
        remat=config.model.remat,
        method=found.method,
        fits=found.fits,
        hbm_bytes_per_chip=found.peak,
        hbm_limit=chip.memory,
        hbm_split={**found.memory, "activations": max(found.peak - sum(found.memory.values()), 0.0)},
        flops_per_step=model_flops,
        executed_flops_per_chip=found.flops,
        roofline_seconds=found.seconds,
        step_seconds=step,
        bound_by=bound,
        predicted_mfu=model_flops / (devices * chip.flops * step),
        tokens_per_second=tokens / step,
        collectives=found.collectives,
        collective_bytes_by_axis=found.by_axis,
    )
