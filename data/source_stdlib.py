"""The source `stdlib`: the running Python's standard library, which every machine has."""

import platform
import sysconfig
from collections.abc import Iterator
from itertools import groupby

from data import source_tree
from data.document import Raw
from data.sources import Item, Unit

# Test suites are half of the bytes and mostly data; installed packages are not the standard library.
_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}


def units(spec: str, place: str, unit_bytes: int) -> Iterator[Unit]:
    root = sysconfig.get_path("stdlib")
    entries, unreadable = source_tree.files(root)
    library = [e for e in entries if e.path.endswith((".py", ".pyi")) and _NOT_LIBRARY.isdisjoint(e.path.split("/"))]
    for i, group in enumerate(source_tree.groups(library, unit_bytes)):
        yield Unit(
            source=spec,
            name=f"stdlib#{i}",
            items=tuple(entry.path for entry in group),
            size=sum(entry.size for entry in group),
            version=source_tree.version(group, platform.python_version()),
            context=(("root", root), *(("unreadable", what) for what in unreadable if i == 0)),
        )


def read(unit: Unit, max_bytes: int) -> Iterator[Item]:
    """Each top-level module or package is a repository: splits are by repository, and this is one of many."""
    root = dict(unit.context)["root"]
    for top, paths in groupby(unit.items, lambda path: path.partition("/")[0]):
        repository = f"python/{top.removesuffix('.py')}"
        for found in source_tree.contents(root, paths, repository, max_bytes):
            if not isinstance(found, tuple):
                yield found
                continue
            path, content = found
            provenance = f"stdlib@{platform.python_version()}/{path}"
            yield Raw(content, path, repository, licences=("PSF-2.0",), provenance=provenance)
