"""Where a run ran: versions, devices, commit."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from codelm import __version__
from codelm.hardware import peak_flops

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece", "libtpu")


def environment() -> dict[str, Any]:
    device = jax.devices()[0]
    peak, source = peak_flops(device)
    return {
        "codelm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "devices": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "peak_flops": {"one_device": peak, "source": source},
        "processes": jax.process_count(),
        "commit": _commit(),
        "command": sys.argv,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Of this code, with a + where it was changed since; empty where it is no checkout."""
    folder = Path(__file__).parent.parent
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    answers = []
    for command in commands:
        try:
            done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode:
            return ""
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")
