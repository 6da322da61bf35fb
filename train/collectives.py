"""What a compiled program sends between chips: by kind and mesh axis, and the seconds that takes on their links.

The seconds are those of links that do nothing else and are never idle: of rings along the dimensions of the torus that
a group of chips spans, both ways where a dimension is closed; between slices, of each chip's share of the network. What
is permuted goes half one way and half the other, at once, as XLA and `codelm.sharding` do it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from train.hlo import Instruction, Program
from train.topologies import Topology

SLICES = "slices"  # stands for the mesh axis that goes over them
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LIST = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")


@dataclass(frozen=True)
class Collective:
    """One instruction, on one chip."""

    kind: str
    axes: tuple[str, ...]
    """Of the mesh, along which its groups lie."""
    bytes: float
    """Of its result, or of a reduce-scatter's operand."""
    times: int
    seconds: float
    """For all the times."""


def collectives(program: Program, mesh: Mesh, topology: Topology) -> list[Collective]:
    """What is sent while something else is computed appears in several pieces, but counts once.

    The program is that of one slice: what goes to others is a `send` that says what for.
    """
    seen: set[tuple[str, ...]] = set()
    found = []
    for computation, instruction, times in program.instructions():
        if instruction.opcode == "send" and (purpose := _TRANSFER.search(instruction.attributes)):
            found.append(_between_slices(instruction, purpose.group(1), times, topology))
        for part in program.parts(instruction):
            kind = part.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = re.search(r"channel_id=\d+", part.attributes)
            sizes = [(shape.dtype, shape.dimensions) for shape in part.shapes]  # which are the same in any memory
            piece = (computation.name, channel.group() if channel else part.name, str(sizes))
            if part is not instruction and piece in seen:
                continue
            seen.add(piece)
            found.append(_read(part, kind, times, mesh, topology))
    return found


def by_kind(found: Sequence[Collective]) -> dict[str, dict[str, float]]:
    total: dict[str, dict[str, float]] = {}
    for each in found:
        row = total.setdefault(each.kind, {"count": 0.0, "bytes": 0.0, "seconds": 0.0})
        row["count"] += each.times
        row["bytes"] += each.bytes * each.times
        row["seconds"] += each.seconds
    return total


def by_axes(found: Sequence[Collective]) -> dict[str, float]:
    """Bytes along each axis, or several at once."""
    total: dict[str, float] = {}
    for each in found:
        name = "+".join(each.axes) or "none"
        total[name] = total.get(name, 0.0) + each.bytes * each.times
    return total


def _read(instruction: Instruction, kind: str, times: int, mesh: Mesh, topology: Topology) -> Collective:
    group = _pairs(instruction) if kind == "collective-permute" else _group(instruction, mesh.size)
    axes = _axes(group, mesh)
    size = _bytes(instruction) * (len(group) if kind == "reduce-scatter" else 1)
    return Collective(kind, axes, size, times, times * _seconds(kind, size, group, mesh, topology))


def _between_slices(instruction: Instruction, purpose: str, times: int, topology: Topology) -> Collective:
    kind = purpose.lower().replace("_", "-")
    size = instruction.shapes[0].bytes
    sent = _wire(kind, size, topology.slices) if kind == "all-reduce" else size
    return Collective(kind, (SLICES,), size, times, times * sent / topology.chip.network)


def _bytes(instruction: Instruction) -> float:
    """Of the results; what is started names its operands before them, and counters after."""
    shapes = [shape for shape in instruction.shapes if shape.dimensions or shape.dtype != "u32"]
    if instruction.opcode in ("collective-permute-start", "all-gather-start"):
        shapes = shapes[len(shapes) // 2 :]
    return sum(shape.bytes for shape in shapes)


# --- Who talks to whom -----------------------------------------------------------------------------------------------


def _group(instruction: Instruction, devices: int) -> list[int]:
    """The first of its groups, as places in the mesh; all are alike."""
    told = instruction.attributes
    if found := _MESH.search(told):
        return _of_axes(found.group(1), found.group(2))
    if found := _IOTA.search(told):
        groups, sizes, order = ([int(n) for n in part.split(",")] if part else [] for part in found.groups())
        ids = np.arange(math.prod(sizes)).reshape(sizes)
        return (ids.transpose(order) if order else ids).reshape(groups)[0].tolist()
    if found := _LIST.search(told):
        return [int(n) for n in found.group(1).split(",")]
    return list(range(devices))


def _of_axes(sizes: str, axes: str) -> list[int]:
    """mesh['a'=2,'b'=8] {'b'}, or {'b':(2)4}: of b cut into 2 x 4, the 4."""
    mesh = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", sizes)}
    ids, index = np.arange(math.prod(mesh.values())).reshape(list(mesh.values())), []
    parts = {
        name: (int(before or 1), int(size or 0))
        for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)
    }
    for name, whole in mesh.items():
        before, size = parts.get(name, (whole, 1))
        step = whole // (before * size) if size else 1
        index.append(np.arange(size or whole) * step if name in parts else np.zeros(1, int))
    return ids[np.ix_(*index)].reshape(-1).tolist()


def _pairs(instruction: Instruction) -> list[int]:
    """From whom to whom: the first that are two; all go equally far, but where a ring is closed."""
    found = _PAIRS.search(instruction.attributes)
    pairs = [tuple(map(int, pair)) for pair in re.findall(r"(\d+),(\d+)", found.group(1))] if found else []
    return list(next((pair for pair in pairs if pair[0] != pair[1]), (0, 0)))


def _axes(group: Sequence[int], mesh: Mesh) -> tuple[str, ...]:
    places = np.stack(np.unravel_index(np.asarray(group), mesh.devices.shape))
    return tuple(name for name, along in zip(mesh.axis_names, places, strict=True) if len(set(along.tolist())) > 1)


# --- How long it takes -----------------------------------------------------------------------------------------------


def _seconds(kind: str, size: float, group: Sequence[int], mesh: Mesh, topology: Topology) -> float:
    devices, chip, n = mesh.devices.reshape(-1), topology.chip, len(group)
    places = np.array([devices[i].coords for i in group])
    spans = {d: len(set(places[:, d].tolist())) for d in range(len(topology.grid))}
    spans = {d: span for d, span in spans.items() if span > 1}
    if kind == "collective-permute":
        return size * _hops(places[0], places[1], topology) / (2 * chip.link)
    closed = {d: topology.grid[d] % chip.wraps == 0 and span == topology.grid[d] for d, span in spans.items()}
    if kind == "all-to-all":
        hops = sum(span / 4 if closed[d] else span / 3 for d, span in spans.items())
        return size * hops / (chip.link * max(2 * len(spans), 1))
    links = sum(2 if closed[d] else 1 for d in spans)
    return _wire(kind, size, n) / (chip.link * max(links, 1))


def _wire(kind: str, size: float, members: int) -> float:
    """Bytes that each chip receives."""
    return size * (members - 1) / members * (2 if kind == "all-reduce" else 1)


def _hops(start: np.ndarray, end: np.ndarray, topology: Topology) -> int:
    hops = 0
    for size, a, b in zip(topology.grid, start.tolist(), end.tolist(), strict=False):
        away = abs(a - b)
        hops += min(away, size - away) if size % topology.chip.wraps == 0 else away
    return hops
