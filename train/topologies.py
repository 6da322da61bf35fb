"""Clusters that are only described: TPUs, for which programs compile here, and GPUs, for which they are reckoned."""

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax.experimental import topologies

from codelm import libtpu
from codelm.errors import UserError, nearest
from codelm.hardware import CHIPS, Chip, chip_of

# What is on offer: v5e:4x4 is 16 chips of v5e in a square.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
TPUS = {"v4": _DEEP, "v5e": _FLAT, "v5p": _DEEP, "v6e": _FLAT, "tpu7x": _DEEP}
GPUS = {"a100": 8, "h100": 8, "h200": 8, "b200": 8}  # so many share a switch


@dataclass(frozen=True)
class Topology:
    """Slices of TPUs, each a torus, joined by a network."""

    name: str
    grid: tuple[int, ...]
    """Chips of one slice along each dimension."""
    slices: int
    chip: Chip
    devices: Sequence[Any]

    @property
    def told(self) -> str:
        return f"{self.slices} x {self.name}" if self.slices > 1 else self.name


@dataclass(frozen=True)
class Gpus:
    """GPUs on machines of several."""

    name: str
    count: int
    per_machine: int
    chip: Chip


def parse(name: str, slices: int = 1) -> Topology | Gpus:
    """What a name like v5p:4x4x8 or h100:64 stands for."""
    kind, _, size = name.lower().partition(":")
    if slices < 1:
        raise UserError(f"--slices {slices}: take at least 1")
    if kind in GPUS and re.fullmatch(r"[1-9]\d*", size):
        if slices > 1:
            raise UserError("--slices are of TPUs; of GPUs say how many there are: h100:64")
        return Gpus(name.lower(), int(size), GPUS[kind], CHIPS[kind.upper()])
    if kind not in TPUS or not re.fullmatch(r"\d+(x\d+){1,2}", size):
        raise _unknown(name)
    return _described(f"{kind}:{size}", tuple(int(n) for n in size.split("x")), slices)


def _described(name: str, grid: tuple[int, ...], slices: int) -> Topology:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError('compiling for TPUs needs libtpu: make install EXTRAS="tpu" (or pip install libtpu)')
    libtpu.leave_alone()
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name.startswith("v4:"):
        options |= {"chip_config_name": "megacore"}  # both cores of a chip as one device, as JAX has them
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # the plugin raises what it likes for a name it does not know
        if "INVALID_ARGUMENT" not in str(error) and "not divisible" not in str(error):
            raise UserError(f"libtpu cannot describe {name}: {str(error).splitlines()[0][:160]}") from error
        raise _unknown(name) from error
    found = chip_of(devices[0].device_kind)
    assert found is not None, devices[0].device_kind
    return Topology(name, grid, slices, found[1], devices)


def _unknown(name: str) -> UserError:
    known = [f"{kind}:{size}" for kind, sizes in TPUS.items() for size in sizes]
    kind = nearest(name.partition(":")[0].lower(), [*TPUS, *GPUS])
    if kind in GPUS:
        return UserError(f"no topology '{name}'; of GPUs say how many: {kind}:8")
    same = [each for each in known if each.startswith(f"{kind}:")]
    first = nearest(name.lower(), same)
    near = sorted(same, key=lambda each: abs(same.index(each) - same.index(first)))[:3]
    return UserError(f"no topology '{name}'; nearest: {', '.join(near)} (GPUs: h100:64)")
