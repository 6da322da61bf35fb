"""Sweeps as algebra: points that say what differs from one config, combined by plain functions.

    from experiments.sweeps import Sweep, chain, named, over, product, zipped

    def sweep() -> Sweep:
        rates = over("train.learning_rate", 1e-3, 2e-3, 4e-3)
        sizes = zipped(over("model.depth", 2, 4), over("train.steps", 200, 100))
        return Sweep("configs/quickstart.py", chain(product(sizes, rates), named("muon", {"train.optimizer": "muon"})))

`codelm sweep FILE` runs it; in a notebook, `planned(sweep())` gives every run with its complete config. A run is called
after what its point sets: quickstart-depth=2-learning_rate=0.001 is the first of these seven, quickstart-muon the last.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from codelm import config_io
from codelm.config import Config, field_paths, resolve
from codelm.errors import UserError, nearest
from codelm.midtraining import midtrained

type Scalar = bool | int | float | str
type Value = Scalar | Sequence[Scalar]
type Points = tuple[Point, ...]

_LONGEST_NAME = 200  # characters; a file system allows 255 in the name of a folder


@dataclass(frozen=True)
class Point:
    """What one run sets, by dotted path, and what it is called after."""

    names: tuple[str, ...]
    overrides: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Sweep:
    """One run for every point, each the config of a file with what the point sets."""

    config: str
    points: Points


@dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    name: str
    file: str
    overrides: tuple[tuple[str, Value], ...]
    config: Config
    """Resolved, with the name."""


def over(path: str, *values: Value) -> Points:
    """A point for each value of a field. A list of values is one value, of a field that takes a list."""
    return tuple(Point((f"{label(path)}={_shown(value)}",), ((path, _frozen(value)),)) for value in values)


def named(name: str, overrides: Mapping[str, Value]) -> Points:
    """One point that sets several fields, or none, and is called by a name instead of by them."""
    return (Point((name,), tuple((path, _frozen(value)) for path, value in overrides.items())),)


def product(*axes: Points) -> Points:
    """Every combination of a point of each; those of the last change fastest."""
    return tuple(_joined(points) for points in itertools.product(*axes))


def zipped(*axes: Points) -> Points:
    """The first points of each together, then the second ones, and so on.

    They are called after the first of the axes, or after as many of them as it takes to tell the points apart.
    """
    lengths = [len(axis) for axis in axes]
    if len(set(lengths)) > 1:
        raise UserError(f"zipped takes as many points of each, not {', '.join(map(str, lengths))}: see product")
    rows = list(zip(*axes, strict=True))
    for needed in range(1, len(axes) + 1):
        names = [tuple(name for point in row[:needed] for name in point.names) for row in rows]
        if len(set(names)) == len(rows) or needed == len(axes):
            return tuple(Point(name, _joined(row).overrides) for name, row in zip(names, rows, strict=True))
    return ()


def chain(*parts: Points) -> Points:
    """The points of all, one part after the other."""
    return tuple(itertools.chain(*parts))


def load(path: Path) -> Sweep:
    """The sweep of a Python file: its `sweep()`."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"no sweep at {path}: it is a Python file with `def sweep() -> Sweep`")
    try:
        return config_io.from_python(path, "sweep", Sweep)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def planned(sweep: Sweep) -> list[Run]:
    """Every run, complete and checked: a mistake in the last is found before the first begins."""
    base = config_io.load(sweep.config)
    runs = [_planned(point, base, sweep.config) for point in sweep.points]
    if not runs:
        raise UserError("a sweep without points: over needs values, product needs points of each axis")
    seen: dict[str, Run] = {}
    for run in runs:
        if run.name in seen:
            again = "the same point twice" if seen[run.name].overrides == run.overrides else "give one a name by named"
            raise UserError(f"two runs are called {run.name}: {again}")
        seen[run.name] = run
    return runs


def _planned(point: Point, base: Config, file: str) -> Run:
    name = "-".join((base.name, *point.names))
    if len(name) > _LONGEST_NAME:
        raise UserError(f"{name[:40]}… is {len(name)} characters long: give the point a name by named")
    try:
        config = resolve(dataclasses.replace(overridden(base, point.overrides), name=name))
        if config.midtrain.steps:
            midtrained(config)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return Run(name, file, point.overrides, config)


def overridden(config: Config, overrides: Sequence[tuple[str, Value]]) -> Config:
    """The config with fields set by dotted path, as on the command line; types are checked when it is resolved."""
    known = list(_paths(config, ""))
    for path, value in overrides:
        if path == "name":
            raise UserError("the sweep names its runs: use named for a name of your own")
        if path not in known:
            raise UserError(f"no field '{path}'; nearest: '{nearest(path, known)}'")
        config = _set(config, path.split("."), value)
    return config


def label(path: str) -> str:
    """The shortest end of a dotted path that tells a field from all before it: depth, midtrain.learning_rate."""
    parts = path.split(".")
    for start in reversed(range(len(parts))):
        end = ".".join(parts[start:])
        if _first_field(end) == path:
            return end
    return ".".join(parts[1:]) or path  # of an element of a list, or wrong


@cache
def _first_field(end: str) -> str:
    return next((path for path in field_paths(Config) if f".{path}".endswith(f".{end}")), "")


def arguments(overrides: Sequence[tuple[str, Value]]) -> list[str]:
    """Overrides as the command line takes them."""
    given = []
    for path, value in overrides:
        if isinstance(value, tuple):
            given += [f"--{path}", *map(str, value)]
        else:
            given.append(f"--{path}={value}")  # joined: a value may begin with a dash
    return given


def _joined(points: Sequence[Point]) -> Point:
    """One point that sets what all of them set."""
    overrides: dict[str, Value] = {}
    for path, value in (override for point in points for override in point.overrides):
        if overrides.setdefault(path, value) != value:
            raise UserError(f"{path} is set twice in one point, to {overrides[path]} and to {value}")
    return Point(tuple(name for point in points for name in point.names), tuple(overrides.items()))


def _paths(value: Any, path: str) -> Iterator[str]:
    """Every dotted path that can be set in a config, elements of lists of fields among them."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _paths(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        for n, item in enumerate(value):
            yield from _paths(item, f"{path}.{n}")
    else:
        yield path


def _set(config: Any, path: list[str], value: Value) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(config, tuple):
        n = int(head)
        return (*config[:n], _set(config[n], rest, value), *config[n + 1 :])
    return dataclasses.replace(config, **{head: _set(getattr(config, head), rest, value)})


def _frozen(value: Any) -> Value:
    return tuple(value) if isinstance(value, list | tuple) else value


def _shown(value: Any) -> str:
    """A value in the name of a folder."""
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return re.sub(r"[^\w.+-]+", "_", str(value), flags=re.ASCII)
