"""What a profiler's trace says of time: seconds of each operation, without those of the operations inside it.

Of accelerators, what ran on the devices; of a CPU, what its threads did: there an operation that several threads share
shows on the one that began it.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jax.profiler import ProfileData, ProfileEvent, ProfileLine

from codelm.errors import UserError

# The lines of a device that show each operation once: XLA's own on TPUs, streams on GPUs.
_LINES = ("XLA Ops", "Stream")

Name = tuple[str, str]  # module, operation


@dataclass
class Times:
    """Over a whole trace."""

    places: int
    """Devices, or threads of a CPU, that did anything."""
    on_devices: bool
    seconds: dict[Name, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[Name, int] = field(default_factory=lambda: defaultdict(int))


def newest(folder: Path) -> Path:
    """The file of the last trace that was taken into a folder."""
    found = sorted(folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"the profiler left no trace in {folder}")
    return found[-1]


def read(file: Path) -> Times:
    planes = list(ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [(plane.name, line) for plane in devices for line in plane.lines if line.name.startswith(_LINES)]
    times = Times(len({name for name, _ in lines}), bool(lines))
    if not lines:
        lines = [(plane.name, line) for plane in planes if plane.name == "/host:CPU" for line in plane.lines]
    for _, line in lines:
        events = _operations(line, times.on_devices)
        times.places += bool(events) and not times.on_devices
        _add(times, events)
    return times


def _operations(line: ProfileLine, on_device: bool) -> list[tuple[Name, float, float]]:
    """Name, start and end in nanoseconds. What a host's thread does besides is no operation."""
    found = []
    for event in line.events:
        told = dict(event.stats)
        if on_device or "hlo_op" in told:
            name = (str(told.get("hlo_module", "")), str(told.get("hlo_op") or _named(event)))
            found.append((name, event.start_ns, event.start_ns + event.duration_ns))
    return found


def _named(event: ProfileEvent) -> str:
    """TPUs name events by the whole instruction."""
    return event.name.split(" = ")[0].removeprefix("%")


def _add(times: Times, events: Iterable[tuple[Name, float, float]]) -> None:
    """A loop's time is that of its turns, and of a call that of what it calls: only the rest is their own."""
    around: list[tuple[Name, float]] = []
    for name, start, end in sorted(events, key=lambda event: (event[1], -event[2])):
        while around and around[-1][1] <= start:
            around.pop()
        if around:
            times.seconds[around[-1][0]] -= (end - start) / 1e9
        times.seconds[name] += (end - start) / 1e9
        times.counts[name] += 1
        around.append((name, end))
