"""The corpus that is on every machine: the running Python's own standard library."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from codelm import text_files
from codelm.text_files import TextFile

# Test suites are half of the bytes and mostly data; installed packages are not the standard library.
_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}


def files() -> list[TextFile]:
    """Python sources of the standard library, sorted by path, without its test suites."""
    root = Path(sysconfig.get_path("stdlib"))
    found = text_files.find([root])
    return [f for f in found if f.language == "Python" and _NOT_LIBRARY.isdisjoint(f.path.relative_to(root).parts)]


def documents(files: list[TextFile]) -> Iterator[str]:
    for file in files:
        if text := "".join(text_files.lines(file)):
            yield text
