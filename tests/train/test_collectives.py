"""Who talks to whom in each way that XLA writes it down, and for how long on a torus that can be drawn on paper."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from jax.sharding import Mesh

from codelm.hardware import GB, Chip
from train.collectives import by_axes, by_kind, collectives
from train.hlo import Program
from train.topologies import Topology

CHIP = Chip(flops=1e12, memory=1e9, bandwidth=1e9, link=10 * GB, network=1 * GB, wraps=4)


@dataclass(frozen=True)
class Device:
    id: int
    coords: tuple[int, int, int]
    slice_index: int


def cluster(grid: tuple[int, int], slices: int = 1, wraps: int = 4) -> Topology:
    devices = [Device(i, (x, y, 0), s) for i, (s, x, y) in enumerate(np.ndindex(slices, *grid))]
    chip = Chip(**{**CHIP.__dict__, "wraps": wraps})
    return Topology("paper", grid, slices, chip, devices)


def mesh_of(topology: Topology, **sizes: int) -> Mesh:
    devices: Any = np.empty(len(topology.devices), object)
    devices[:] = topology.devices
    return Mesh(devices.reshape(tuple(sizes.values())), tuple(sizes))


def program(instruction: str) -> Program:
    return Program(
        "HloModule m\n\nENTRY %main (x: f32[1000]) -> f32[4000] {\n  %x = f32[1000]{0} parameter(0)\n"
        f"  ROOT %out = {instruction}\n}}\n"
    )


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", ("b",)),
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", ("a",)),
        ("replica_groups=[2,4]<=[8]", ("b",)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("a",)),
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", ("b",)),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", ("a", "b")),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}", ("a", "b")),
        ("replica_groups={}", ("a", "b")),
    ],
)
def test_the_axes_of_a_group(groups: str, axes: tuple[str, ...]) -> None:
    topology = cluster((2, 4))
    text = f"f32[4000]{{0}} all-gather(%x), channel_id=1, {groups}, dimensions={{0}}"
    (found,) = collectives(program(text), mesh_of(topology, a=2, b=4), topology)
    assert (found.kind, found.axes, found.bytes, found.times) == ("all-gather", axes, 16_000, 1)


@pytest.mark.parametrize(
    ("text", "wraps", "expected"),
    [
        # Along 4 chips in a closed ring, three quarters of the result come over two links; on a line over one.
        ("f32[4000]{0} all-gather(%x), replica_groups={{0,1,2,3},{4,5,6,7}}", 4, 12_000 / (2 * 10e9)),
        ("f32[4000]{0} all-gather(%x), replica_groups={{0,1,2,3},{4,5,6,7}}", 16, 12_000 / 10e9),
        # All eight, over a line of two and a ring of four: three links. A sum goes there and back.
        ("f32[1000]{0} all-reduce(%x), replica_groups={}", 4, 2 * 4000 * 7 / 8 / (3 * 10e9)),
        # What is left of a sum is a quarter of what went in.
        ("f32[250]{0} reduce-scatter(%x), replica_groups={{0,1,2,3},{4,5,6,7}}", 4, 4000 * 3 / 4 / (2 * 10e9)),
        # One hop, half of it either way.
        ("(f32[1000]{0}, f32[1000]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
         4, 4000 / (2 * 10e9)),
        ("f32[1000]{0} collective-permute(%x), source_target_pairs={{0,2},{2,0}}", 4, 2 * 4000 / (2 * 10e9)),
        # To and from all of a ring of four: a hop on average, in both directions.
        ("f32[1000]{0} all-to-all(%x), replica_groups={{0,1,2,3},{4,5,6,7}}", 4, 4000 / (2 * 10e9)),
    ],
)  # fmt: skip
def test_seconds_on_the_links(text: str, wraps: int, expected: float) -> None:
    topology = cluster((2, 4), wraps=wraps)
    (found,) = collectives(program(f"{text}, channel_id=1"), mesh_of(topology, a=2, b=4), topology)
    assert found.seconds == pytest.approx(expected)


def test_between_slices_each_chip_sends_its_share_of_a_sum_there_and_back() -> None:
    topology = cluster((2, 2), slices=2)
    text = (
        "(f32[1000]{0}, u32[], token[]) send(%x, %token), channel_id=2, is_host_transfer=true, frontend_attributes="
        '{_xla_host_transfer_rendezvous="all-reduce.1_0",_xla_megascale_target="{1,2}x{0:3}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    (found,) = collectives(program(text), mesh_of(topology, a=2, b=4), topology)
    assert (found.kind, found.axes, found.bytes) == ("all-reduce", ("slices",), 4000)
    assert found.seconds == pytest.approx(2 * 4000 / 2 / 1e9)


def test_pieces_of_one_are_one() -> None:
    piece = "all-gather(%p), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}"
    parts = [
        f"%part{i} (p: f32[1000]) -> f32[4000] {{\n  %p = f32[1000]{{0}} parameter(0)\n"
        f"  ROOT %g{i} = f32[4000]{place} {piece}\n}}\n"
        for i, place in enumerate(("{0}", "{0:S(1)}", "{0}"))
    ]
    calls = [f"  %f{i} = f32[4000]{{0}} fusion(%x), kind=kCustom, calls=%part{i}" for i in range(3)]
    text = "\n".join(
        [
            "HloModule m\n",
            *parts,
            "ENTRY %main (x: f32[1000]) -> f32[4000] {",
            "  %x = f32[1000]{0} parameter(0)",
            *calls,
            "  ROOT %out = f32[4000]{0} all-reduce(%f2), channel_id=9, replica_groups={{0,4},{1,5}}",
            "}",
        ]
    )
    topology = cluster((2, 4))
    found = collectives(Program(text), mesh_of(topology, a=2, b=4), topology)
    kinds = by_kind(found)
    assert {kind: (row["count"], row["bytes"]) for kind, row in kinds.items()} == {
        "all-gather": (1, 16_000),
        "all-reduce": (1, 16_000),
    }
    assert by_axes(found) == {"b": 16_000, "a": 16_000}
