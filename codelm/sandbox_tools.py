"""Compilers and interpreters of this machine: where they really are, and what a sandbox has to see of it."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

_TOOLS = ("bash", "node", "tsc", "javac", "java", "go", "g++", "rustc")


@functools.cache
def path(tool: str) -> str | None:
    """The real file, since a sandbox has neither a home nor its links; None where there is none on PATH."""
    found = shutil.which(tool)
    if not found:
        return None
    if tool == "rustc":  # may be rustup's, which looks for the compiler in a home
        root = _said(found, "--print", "sysroot")
        real = Path(root) / "bin" / "rustc"
        return str(real) if root and real.exists() else None
    real = Path(found).resolve()
    # The compilers of GCC and LLVM look at the name that they are called by.
    return found if real.parent == Path(found).parent or str(real).startswith("/usr/bin/") else str(real)


@functools.cache
def version(tool: str) -> tuple[int, ...]:
    """Of what its --version says, the numbers; () where it says none."""
    numbers = _said(path(tool) or tool, "--version").lstrip("v").split(".")
    return tuple(int(number) for number in numbers if number.isdigit())


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def folders() -> list[str]:
    """What has to be visible besides /usr: the folders that tools elsewhere were installed to."""
    found = set()
    for tool in _TOOLS:
        real = path(tool)
        if real and not real.startswith(("/usr/", "/bin/")):
            found.add(_installed(Path(real)))
    return sorted(found)


def _installed(real: Path) -> str:
    """…/bin/tool is part of …, unless that holds more than a tool: then it is seen alone."""
    folder = real.parent.parent
    private = (Path.home(), Path.home() / ".local", Path("/"), Path(os.sep + "opt"))
    return str(folder if real.parent.name == "bin" and folder not in private else real)
