"""Other ways to run the same experiment: what is recomputed, parts of a batch, shapes of the mesh.

None of these changes what is computed, only where and when, so that any of them may be taken.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from codelm.config import Config, MeshConfig, mesh_shape, resolve
from codelm.errors import UserError
from train.planning import Plan, plan
from train.topologies import Topology

_REMATS = ("none", "matmuls", "full")  # from the fastest to the smallest
_TRIES = 3

Stage = Callable[[Config], Config]
"""A stage's own config out of that of the experiment."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """What is changed of a config."""

    remat: str
    accumulate: int
    mesh: MeshConfig

    @staticmethod
    def of(config: Config) -> "Way":
        return Way(config.model.remat, config.train.accumulate, config.mesh)

    def applied(self, config: Config) -> Config:
        """May be impossible (UserError)."""
        model = dataclasses.replace(config.model, remat=cast(Any, self.remat))
        train = dataclasses.replace(config.train, accumulate=self.accumulate)
        return resolve(dataclasses.replace(config, model=model, train=train, mesh=self.mesh))

    def told(self, config: Config) -> str:
        """As options of the command line, where it differs from the config."""
        said = []
        if self.remat != config.model.remat:
            said.append(f"--model.remat {self.remat}")
        if self.accumulate != config.train.accumulate:
            said.append(f"--train.accumulate {self.accumulate}")
        before = dataclasses.asdict(config.mesh)
        said += [
            f"--mesh.{axis} {size}" for axis, size in dataclasses.asdict(self.mesh).items() if size != before[axis]
        ]
        return " ".join(said) or "as it is"


@dataclass(frozen=True)
class Tried:
    way: Way
    plan: Plan


def fitting(config: Config, stage: Stage, name: str, topology: Topology, found: Plan, say: Say) -> Tried | None:
    """A small change after which a plan that does not fit does: recompute all, then as many parts as it takes."""
    way = dataclasses.replace(Way.of(config), remat="full")
    if config.model.remat == "full":
        way = _smaller(way, found)
    return _first_that_fits(config, stage, name, topology, way, say)


def search(config: Config, stage: Stage, name: str, topology: Topology, say: Say) -> list[Tried]:
    """What fits, the fastest first: for every mesh and remat policy with as few parts as fit."""
    tried = []
    for way in _ways(config, stage, len(topology.devices)):
        say(f"trying {way.told(config)}")
        if found := _first_that_fits(config, stage, name, topology, way, say):
            tried.append(found)
    return sorted(tried, key=lambda each: (each.plan.step_seconds, sum(each.plan.roofline_seconds.values())))


def _ways(config: Config, stage: Stage, devices: int) -> Iterator[Way]:
    for mesh in _meshes(stage(config), devices):
        for remat in _REMATS:
            way = Way(remat, config.train.accumulate, mesh)
            if _possible(config, stage, way, devices):
                yield way


def _meshes(config: Config, devices: int) -> Sequence[MeshConfig]:
    """The config's own; the same with half and a quarter of fsdp given to tensor or data."""
    shape = mesh_shape(config, devices)
    others = [
        shape | {"fsdp": shape["fsdp"] // factor, axis: shape[axis] * factor}
        for axis in ("tensor", "data")
        for factor in (2, 4)
        if shape["fsdp"] % factor == 0
    ]
    return [config.mesh, *(MeshConfig(**mesh) for mesh in others)]


def _possible(config: Config, stage: Stage, way: Way, devices: int) -> bool:
    try:
        mesh_shape(stage(way.applied(config)), devices)
    except UserError:
        return False
    return True


def _first_that_fits(config: Config, stage: Stage, name: str, topology: Topology, way: Way, say: Say) -> Tried | None:
    for _ in range(_TRIES):
        if not _possible(config, stage, way, len(topology.devices)):
            return None
        found = plan(stage(way.applied(config)), name, topology)
        limit = found.hbm_limit / 2**30
        needs = found.hbm_bytes_per_chip / 2**30
        if found.fits:
            say(f"{way.told(config)}: {needs:.1f} of {limit:.1f} GiB, at best {found.step_seconds:.3g} s a step")
            return Tried(way, found)
        say(f"{way.told(config)}: needs {needs:.1f} of {limit:.1f} GiB")
        way = _smaller(way, found)
    return None


def _smaller(way: Way, found: Plan) -> Way:
    """With as many times more parts as what lies beside the state is too large, a power of two."""
    split = found.hbm_split
    room = max(found.hbm_limit - split["parameters"] - split["optimizer"], 1.0)
    factor = 2 ** max(math.ceil(math.log2(split["activations"] / room)), 1)
    return dataclasses.replace(way, accumulate=way.accumulate * factor)
