"""Six hundred good Python files that are on every machine: what cleaning must leave alone."""

import sysconfig
from functools import cache
from pathlib import Path

_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3"}


@cache
def texts() -> dict[str, str]:
    """By path; without test suites, which are mostly data, and files that are not UTF-8."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if _NOT_LIBRARY.isdisjoint(inside.parts):
            try:
                found[inside.as_posix()] = path.read_bytes().decode().replace("\r\n", "\n")
            except UnicodeDecodeError:
                continue
    return {path: text for path, text in found.items() if text}
