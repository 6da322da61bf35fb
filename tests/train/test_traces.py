"""Seconds of operations out of traces that are written by hand, as CPUs, GPUs and TPUs leave them."""

from pathlib import Path

import pytest
from jax.profiler import ProfileData

from codelm.errors import UserError
from train import traces

STATS = " ".join(
    f'stat_metadata {{ key: {n} value {{ id: {n} name: "{name}" }} }}' for n, name in ((1, "hlo_op"), (2, "hlo_module"))
)


def event(kind: int, start: int, duration: int, operation: str = "") -> str:
    """In microseconds."""
    told = f'stats {{ metadata_id: 1 str_value: "{operation}" }} stats {{ metadata_id: 2 str_value: "jit_whole" }}'
    stats = told if operation else ""
    return f"events {{ metadata_id: {kind} offset_ps: {start}000000 duration_ps: {duration}000000 {stats} }}"


def plane(name: str, lines: dict[str, list[str]], names: tuple[str, ...] = ("event",)) -> str:
    inside = " ".join(f'lines {{ id: {n} name: "{line}" {" ".join(lines[line])} }}' for n, line in enumerate(lines))
    metadata = " ".join(
        f'event_metadata {{ key: {n} value {{ id: {n} name: "{one}" }} }}' for n, one in enumerate(names, 1)
    )
    return f'planes {{ name: "{name}" {inside} {metadata} {STATS} }}'


def read(tmp_path: Path, *planes: str) -> traces.Times:
    file = tmp_path / "plugins" / "profile" / "now" / "host.xplane.pb"
    file.parent.mkdir(parents=True)
    file.write_bytes(ProfileData.text_proto_to_serialized_xspace(" ".join(planes)))
    return traces.read(traces.newest(tmp_path))


def microseconds(times: traces.Times) -> dict[tuple[str, str], float]:
    return {name: round(seconds * 1e6, 6) for name, seconds in times.seconds.items()}


def test_threads_of_a_cpu(tmp_path: Path) -> None:
    """What is inside a loop is not the loop's; what is no operation does not count."""
    one = [event(1, 0, 100, "while"), event(1, 10, 30, "dot"), event(1, 50, 40, "dot"), event(1, 60, 5, "add")]
    other = [event(1, 0, 20, "dot"), event(1, 200, 50)]
    times = read(tmp_path, plane("/host:CPU", {"a": one, "b": other, "idle": [event(1, 0, 9)]}))
    assert (times.places, times.on_devices) == (2, False)
    names = {name: ("jit_whole", name) for name in ("while", "dot", "add")}
    assert microseconds(times) == {names["while"]: 30, names["dot"]: 85, names["add"]: 5}
    assert times.counts[names["dot"]] == 3


def test_streams_of_gpus(tmp_path: Path) -> None:
    """What the host says of the same operations does not count again; a copy is no operation of XLA, and counts."""
    lines = {"Stream #1(Compute)": [event(1, 0, 7, "gemm")], "Stream #2(MemcpyH2D)": [event(2, 0, 3)], "Steps": []}
    devices = [plane(f"/device:GPU:{n}", lines, ("kernel", "MemcpyH2D")) for n in range(2)]
    times = read(tmp_path, *devices, plane("/host:CPU", {"a": [event(1, 0, 50, "gemm")]}))
    assert (times.places, times.on_devices) == (2, True)
    assert microseconds(times) == {("jit_whole", "gemm"): 14, ("", "MemcpyH2D"): 6}


def test_operations_of_tpus(tmp_path: Path) -> None:
    lines = {"XLA Modules": [event(2, 0, 90)], "XLA Ops": [event(1, 0, 60), event(1, 70, 5)]}
    times = read(tmp_path, plane("/device:TPU:0", lines, ("%fusion.3 = f32[8]{0} fusion(%p)", "jit_whole(1)")))
    assert microseconds(times) == {("", "fusion.3"): 65}


def test_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="left no trace"):
        traces.newest(tmp_path)
