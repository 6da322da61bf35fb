"""The walls: the bubblewrap command that a process is put behind, and what it keeps out."""

import os
import random
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from codelm import sandbox_seccomp, sandbox_tools

PYTHON = os.path.realpath(sys.executable)
PACKAGES = "/site-packages"
DRIVER = "/driver"
SCRATCH_MB = 256

_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC = ("ld.so.cache", "alternatives", "localtime")
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",  # threads count as processes
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "TMPDIR": "/tmp",
}
# Above what is given to people, services and containers; random, since other pools may run beside this one.
_USERS = range(1_900_000_000, 2_000_000_000)


def installed() -> bool:
    return shutil.which("bwrap") is not None


def user() -> int:
    """Who a process in a sandbox becomes: as root a user that nobody else is, so that the kernel's count of its
    processes is a count of this sandbox (root's are not counted); 0 where a user namespace sees to that."""
    return random.choice(_USERS) if os.geteuid() == 0 else 0


def packages(unsafe: bool) -> str:
    """Where the installed packages are seen."""
    return sysconfig.get_path("purelib") if unsafe else PACKAGES


def environment(scratch: str | None) -> dict[str, str]:
    """What a process outside is started with: bwrap with the way to itself, since its own can be read inside."""
    return _ENVIRONMENT | {"HOME": scratch, "TMPDIR": scratch} if scratch else {"PATH": os.environ.get("PATH", "")}


def command(driver: str, seccomp: int) -> list[str]:
    """Of bwrap, up to the program. `driver`: the folder with our own code; `seccomp`: a descriptor of the filter."""
    walls = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    walls += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() == 0:
        walls += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        walls += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for name, value in _ENVIRONMENT.items():
        walls += ["--setenv", name, value]
    walls += [*_visible(), "--ro-bind", driver, DRIVER]
    walls += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(SCRATCH_MB << 20), "--tmpfs", "/tmp"]
    # The root and /dev are file systems in memory too, and without a size.
    walls += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
    return walls + (["--seccomp", str(seccomp)] if seccomp >= 0 else [])


def _visible() -> list[str]:
    """Read-only, and no more than programs need: on the disk may be the answers, in a home anything."""
    walls = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        folder = Path("/") / name
        if folder.is_symlink():
            walls += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            walls += ["--ro-bind", str(folder), str(folder)]
    etc = [Path("/etc") / name for name in _ETC] + sorted(Path("/etc").glob("java-*"))
    seen = [str(Path(sys.base_prefix).resolve()), *sandbox_tools.folders(), *map(str, etc)]
    for path in seen:
        if not path.startswith("/usr/") and path != "/usr":
            for parent in reversed(Path(path).parents[:-1]):  # as bwrap makes them, others could not pass
                walls += ["--perms", "0755", "--dir", str(parent)]
            walls += ["--ro-bind-try", path, path]
    return [*walls, "--ro-bind-try", sysconfig.get_path("purelib"), PACKAGES]


def protections(unsafe: bool, seccomp: bool) -> tuple[str, ...]:
    """To print, and to keep with results."""
    watched = "watched: wall clock, memory of all processes, output"
    if unsafe:
        return (
            "UNSAFE, no bubblewrap: what runs sees files and network as you do, and may leave processes behind",
            "rlimits: CPU, memory, file size, open files, no core",
            watched,
        )
    root = os.geteuid() == 0
    return (
        "namespaces: " + ", ".join([*([] if root else ["user"]), "pid", "net", "ipc", "uts", "mount"]),
        "a user of its own, no capabilities" if root else "no capabilities",
        f"read-only root of system folders, no home; scratch of {SCRATCH_MB} MB in memory",
        "seccomp" if seccomp else "NO seccomp: no system call numbers for this architecture",
        "rlimits: CPU, memory, file size, processes, open files, no core",
        watched,
    )


def argv(module: str, folder: str, arguments: Sequence[str]) -> list[str]:
    """Python with one of our modules, without the packages of the host or whatever an environment asks for."""
    start = f"import sys; sys.path.insert(0, {folder!r}); from codelm.{module} import main; main()"
    return [PYTHON, "-I", "-S", "-B", "-c", start, *arguments]


def filter_of(folder: Path) -> Path | None:
    """A file with the system calls to refuse."""
    program = sandbox_seccomp.program()
    if not program:
        return None
    (folder / "seccomp").write_bytes(program)
    return folder / "seccomp"
