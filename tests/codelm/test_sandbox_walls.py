"""What is within the walls of a sandbox, as root makes them and as others do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codelm import sandbox
from codelm.sandbox import Check, Limits, Pool
from codelm.sandbox_bubblewrap import installed

walled = pytest.mark.skipif(not installed(), reason="no bubblewrap (apt install bubblewrap)")


@walled
def test_a_sandbox_sees_no_more_than_it_needs() -> None:
    look = "import os\ndef see():\n    return sorted(os.listdir('/')), os.listdir('/tmp'), dict(os.environ)"
    with Pool(1) as pool:
        seen, _ = pool.transcript(look, ["print(*see()[0])", "see()[1]", "print(*sorted(see()[2]))", "os.getpid() < 9"])
        status, _ = pool.transcript("", ["print(open('/proc/self/status').read())"])
    system = {"bin", "dev", "driver", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "site-packages", "tmp"}
    tools = {"usr", "root", Path(sys.base_prefix).resolve().parts[1]}
    assert set(seen[0].split()) <= system | tools
    assert seen[1] == "[]\n"
    assert set(seen[2].split()) <= {"HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PWD", "TMPDIR"}
    assert seen[3] == "True\n"
    lines = dict(line.split(":", 1) for line in status[0].strip().splitlines())
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == int(lines["CapAmb"], 16) == 0
    assert lines["NoNewPrivs"].strip() == "1"
    assert os.geteuid() or int(lines["Uid"].split()[0]) >= 1_900_000_000


_WRITABLE = """
import os
folders = ["/", "/usr", "/etc", "/dev", "/dev/shm", "/driver", "/site-packages", "/root", "/proc", "/tmp"]
here = [folder for folder in [*folders, os.path.dirname(os.__file__)] if os.access(folder, os.W_OK)]
"""
_FORKS = """
import os, time
here = 0
try:
    while here < 99:
        if not os.fork():
            time.sleep(9)
        here += 1
except OSError:
    pass
"""
_TAKES = """
import os, time
for _ in range(3):
    if not os.fork():
        break
here = b"x" * (150 << 20)
time.sleep(9)
"""
_FILLS = """
here = 0
try:
    for here in range(999):
        open(f"/tmp/{here}", "wb").write(b"x" * (1 << 20))
except OSError:
    pass
"""


@walled
@pytest.mark.parametrize(
    ("reason", "candidate", "tests"),
    [
        ("", _WRITABLE, "assert here == ['/tmp']"),
        ("", _FORKS, "assert 1 < here < 16"),
        ("memory", _TAKES, "assert here"),
        ("", _FILLS, "assert 99 < here <= 256"),
    ],
    ids=["files", "processes", "memory", "scratch"],
)
def test_a_sandbox_takes_no_more_than_it_may(reason: str, candidate: str, tests: str) -> None:
    with Pool(1) as pool:
        verdict = pool.check(Check(candidate, tests, ("here",), limits=Limits(seconds=8, memory_mb=256)))
    assert verdict.reason == reason, verdict


@walled
def test_a_normal_user_has_the_same_walls(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As root there is no user namespace; this is the way that others go. It needs a Python that they can read."""
    if os.geteuid() or not Path("/usr/bin/python3").exists() or not Path("/usr/bin/setpriv").exists():
        pytest.skip("only as root, with a system Python and setpriv")
    with subprocess.Popen(["mktemp", "-d"], stdout=subprocess.PIPE, text=True) as made:
        folder = Path((made.stdout.read() if made.stdout else "").strip())
    try:
        _copy(folder)
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-B"]
        done = subprocess.run([*user, str(folder / "go.py")], capture_output=True, text=True, timeout=60, cwd="/")
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    if "UserError" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.stdout.split() == ["True"] * 4, done.stderr


_AS_USER = """
import sys
sys.path.insert(0, "{folder}")
from codelm.sandbox import Check, Limits, Pool
checks = [
    ("here = 1", "assert here == 1"),
    ({forks!r}, "assert 0 < here < 8"),
    ({writable!r}, "assert here == ['/tmp']"),
    ({outside!r}, "assert not here"),
]
with Pool(1) as pool:
    assert "user" in pool.protections[0], pool.protections
    for candidate, tests in checks:
        print(pool.check(Check(candidate, tests, ("here",), limits=Limits(seconds=5, processes=8))).passed)
"""


def _copy(folder: Path) -> None:
    """Our code where a user without a home can read it."""
    package = folder / "codelm"
    package.mkdir()
    for source in [*Path(sandbox.__file__).parent.glob("sandbox*.py"), Path(sandbox.__file__).with_name("errors.py")]:
        (package / source.name).write_text(source.read_text())
    outside = f"import os\nhere = os.path.exists({str(folder)!r})"
    (folder / "go.py").write_text(_AS_USER.format(folder=folder, forks=_FORKS, writable=_WRITABLE, outside=outside))
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
