"""What git knows of a working copy: its files, commit, date and origin, without trusting what the copy configures."""

import os
import re
import subprocess
from dataclasses import dataclass

# A repository's own config can name programs to run; none of these may. Nor is the user's config asked: the answer is
# the same for everybody, and a copy that somebody else owns is read as well.
_SAFE = [
    "git",
    "--no-pager",
    "--literal-pathspecs",
    *("-c", "safe.directory=*"),
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", f"core.excludesFile={os.devnull}"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "log.showSignature=false"),
    *("-c", "protocol.allow=never"),
]
_TIMEOUT = 600  # seconds; only a hanging disk takes that long
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[a-z+]+)://)?(?:[^@/]*@)?(?P<host>[\w.-]+)(?::\d+(?=/))?[:/](?!//)(?P<path>[^?#]+)"
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A working copy; what git could not tell is empty."""

    paths: tuple[str, ...] = ()
    """Files that git tracks, or would: not those it ignores."""
    commit: str = ""
    date: int = 0
    """Unix time of the commit."""
    name: str = ""
    """`owner/name` by its origin."""
    url: str = ""
    """The origin as a person would open it, without what a password may be in."""


def checkout(folder: str) -> Checkout | None:
    """What git says of a folder, or None: no repository, a broken one, or no git."""
    if not os.path.lexists(os.path.join(folder, ".git")):
        return None
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    url, name = origin((_git(folder, "config", "--get", "remote.origin.url") or "").strip())
    date = (_git(folder, "log", "-1", "--format=%ct") or "").strip()
    return Checkout(
        paths=tuple(sorted({path for path in listed.split("\0") if path})),
        commit=(_git(folder, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip(),
        date=int(date) if date.isdigit() else 0,
        name=name,
        url=url,
    )


def _git(folder: str, *arguments: str) -> str | None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {
        "GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(folder)),  # a repository around it is another one
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    try:
        done = subprocess.run(
            [*_SAFE, "-C", os.path.realpath(folder), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def origin(address: str) -> tuple[str, str]:
    """A remote's web address and `owner/name`; nothing for a folder on some disk."""
    found = _ADDRESS.fullmatch(address)
    if not found or found["scheme"] == "file" or (not found["scheme"] and ":" not in address):
        return "", ""
    path = found["path"].strip("/").removesuffix(".git")
    return (f"https://{found['host']}/{path}", path) if "/" in path else ("", "")
