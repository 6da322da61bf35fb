"""Where documents come from: each source cut into units of bounded size, and each unit read file by file.

A source is a line: `stdlib`, `packages[:NAME,…]`, `repositories:FOLDER`, `files:PATH-or-GLOB`, `tfds:NAME[:SPLIT]` or
`hf:NAME[:SPLIT]`. Folders and paths are local or on `gs://`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from codelm.errors import UserError, nearest
from data.document import Raw, TooLarge, Unreadable

Item = Raw | Unreadable | TooLarge

KINDS = {
    "stdlib": "",
    "packages": "[:NAME,…]",
    "repositories": ":FOLDER",
    "files": ":PATH-or-GLOB",
    "tfds": ":NAME[:SPLIT]",
    "hf": ":NAME[:SPLIT]",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """A bounded piece of a source: what is read in one go, and what an interrupted build does not read again."""

    source: str
    """The source it is a piece of, as the user wrote it."""
    name: str
    """Unique within the source, for a person to read."""
    items: tuple[str, ...]
    """What to read: file paths within a root, or the bounds of a range."""
    size: int
    """Bytes it will read; an estimate where only reading tells."""
    version: str
    """Another one when the content is."""
    context: tuple[tuple[str, str], ...] = ()
    """What reading needs to know besides, and things found unreadable on the way (`unreadable`: `path: why`)."""


def units(specs: Sequence[str], unit_bytes: int = 32 << 20) -> Iterator[Unit]:
    """The sources' units of about `unit_bytes`, in an order that depends on nothing but the sources."""
    parsed = [(spec, *parse(spec)) for spec in specs]  # every mistake is said before anything is read
    for spec, kind, place in parsed:
        yield from _reader(kind).units(spec, place, unit_bytes)


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    """The files or rows of a unit. One above `max_bytes` is not read; nothing that is broken ends the reading."""
    for key, value in unit.context:
        if key == "unreadable":
            path, _, why = value.partition(": ")
            yield Unreadable(path, why)
    yield from _reader(parse(unit.source)[0]).read(unit, max_bytes)


def parse(spec: str) -> tuple[str, str]:
    """The kind of a source, and its place or name."""
    kind, _, place = spec.partition(":")
    if kind not in KINDS:
        meant = nearest(kind, list(KINDS))
        raise UserError(f"no kind of source is called {kind!r}; did you mean {meant}{KINDS[meant]}?")
    if KINDS[kind].startswith(":") and not place:
        raise UserError(f"the source {spec!r} says too little: write {kind}{KINDS[kind]}")
    if not KINDS[kind] and place:
        raise UserError(f"the source {kind} takes nothing after it: write {kind}, not {spec!r}")
    return kind, place


def _reader(kind: str) -> ModuleType:
    """The module that knows a kind of source; each brings its own libraries."""
    match kind:
        case "stdlib":
            from data import source_stdlib as module
        case "packages":
            from data import source_packages as module
        case "repositories":
            from data import source_repositories as module
        case "files":
            from data import source_files as module
        case "tfds":
            from data import source_tfds as module
        case _:
            from data import source_huggingface as module
    return module
