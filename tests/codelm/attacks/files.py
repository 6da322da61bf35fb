"""Looking for the answers, and leaving things behind."""

from tests.codelm.attacks import Attack

FILES = [
    Attack(
        "secret_file",
        "reads the file with the answers",
        """
try:
    text = open("{SECRET}").read()
except OSError:
    text = ""

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "search",
        "searches the disk for it",
        """
import os

text = ""
for top in ("/work", "/root", "/home", "/tmp", "/mnt", "/opt", "/srv", "/var", "/etc", "/driver"):
    for folder, folders, names in os.walk(top):
        folders[:] = [f for f in folders if f not in (".pyenv", ".rustup")]
        for n in names:
            if "codelm-secret" in n:
                text = open(folder + "/" + n).read()

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "environment",
        "reads the environment of all it sees",
        """
import os, glob, re

text = repr(dict(os.environ))
for p in glob.glob("/proc/[0-9]*/environ"):
    try:
        text += open(p, errors="replace").read()
    except OSError:
        pass
found = re.search("secret-[0-9a-f]{32}", text)
text = found[0] if found else ""

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "proc_fds",
        "opens what other processes have open",
        """
import glob, os, re

text = ""
for p in (
    glob.glob("/proc/[0-9]*/fd/*")
    + glob.glob("/proc/[0-9]*/root" + "/*")
    + glob.glob("/proc/[0-9]*/cwd/*")
):
    try:
        fd = os.open(p, os.O_RDONLY | os.O_NONBLOCK)
        text += os.read(fd, 9999).decode(errors="replace")
    except OSError:
        pass
found = re.search("secret-[0-9a-f]{32}", text)
text = found[0] if found else ""

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "proc_memory",
        "reads the memory of process 1 and of the pool",
        """
import re

text = ""
for p in (1, {PID}):
    try:
        for line in open(f"/proc/{p}/maps"):
            a, b = (int(x, 16) for x in line.split()[0].split("-"))
            m = open(f"/proc/{p}/mem", "rb")
            m.seek(a)
            text += m.read(b - a).decode(errors="replace")
    except (OSError, ValueError, OverflowError):
        pass
found = re.search("secret-[0-9a-f]{32}", text)
text = found[0] if found else ""

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "proc_root",
        "goes out by /proc/1/root",
        """
text = ""
for p in ("/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/self/cwd/../../.."):
    try:
        text = open(p + "{SECRET}").read()
    except OSError:
        pass

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "symlink",
        "a link in the scratch to the file",
        """
import os

text = ""
try:
    os.symlink("{SECRET}", "/tmp/l")
    os.link("{SECRET}", "/tmp/h")
except OSError:
    pass
try:
    text = open("/tmp/l").read()
except OSError:
    pass

def answer(x):
    return text.strip() * x if text else ""
""",
    ),
    Attack(
        "writes",
        "writes wherever it may be read later",
        """
import os, sys, glob

for f in [
    "/usr",
    "/etc",
    "/usr/lib",
    "/root",
    "/home",
    "/var/tmp",
    "/dev/shm",
    "/driver",
    "/driver/codelm",
    "/site-packages",
    "/",
    "/work",
    *sys.path,
]:
    try:
        open(f + "/{MARK}.py", "w").write("x")
    except OSError:
        pass
for f in glob.glob("/driver/codelm/*") + glob.glob("/site-packages/*.py"):
    try:
        open(f, "ab").write(b"{MARK}")
    except OSError:
        pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "test_files",
        "rewrites tests and conftest where it finds any",
        """
import os

for folder, folders, names in os.walk("/"):
    folders[:] = [f for f in folders if f not in ("proc", "share", ".rustup", "jvm", "gcc")]
    for n in names:
        if n.startswith(("test_", "conftest", "sitecustomize")):
            try:
                open(folder + "/" + n, "w").write("{MARK}")
            except OSError:
                pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "site_customize",
        "leaves a sitecustomize for the next",
        """
import os

for f in ("/tmp", "/site-packages", os.path.dirname(os.__file__)):
    for n in ("sitecustomize", "usercustomize", "numpy", "marshal"):
        try:
            open(f + f"/{n}.py", "w").write("import os; os._exit(0)")
        except OSError:
            pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "proc_sys",
        "writes to /proc/sys and sysrq",
        """
for p in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sysrq-trigger",
    "/proc/1/oom_score_adj",
    "/proc/self/uid_map",
    "/proc/1/setgroups",
):
    try:
        with open(p, "w") as f:
            f.write("{MARK}")
    except OSError:
        continue

def answer(x):
    return 0
""",
    ),
    Attack(
        "descriptor_rights",
        "asks for descriptors over a socket",
        r"""
import socket, array

a, b = socket.socketpair()
for fd in range(3, 64):
    try:
        socket.send_fds(socket.socket(fileno=fd), [b"\x00\x00\x00\x01T"], [0, 1])
    except OSError:
        pass

def answer(x):
    return 0
""",
    ),
]
