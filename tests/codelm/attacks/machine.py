"""Taking all there is: processes, memory, disk, output, time."""

from tests.codelm.attacks import Attack

MACHINE = [
    Attack(
        "fork_bomb",
        "forks until it cannot",
        """
import os

def answer(x):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""",
    ),
    Attack(
        "fork_bomb_import",
        "the same before any call",
        """
import os

while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    ),
    Attack(
        "spawn_bomb",
        "shells that start shells",
        """
import subprocess

def answer(x):
    while True:
        try:
            subprocess.Popen(["sh", "-c", "while true; do sleep 9 & done"])
        except OSError:
            pass
""",
    ),
    Attack(
        "thread_bomb",
        "threads until it cannot",
        """
import threading, time

def answer(x):
    while True:
        try:
            threading.Thread(target=time.sleep, args=(9,)).start()
        except RuntimeError:
            pass
""",
    ),
    Attack(
        "memory",
        "bytes",
        """
def answer(x):
    return bytearray(1 << 40)
""",
    ),
    Attack(
        "memory_touched",
        "bytes that it writes",
        """
def answer(x):
    keep = []
    while True:
        try:
            keep.append(bytearray(b"x" * (1 << 22)))
        except MemoryError:
            pass
""",
    ),
    Attack(
        "memory_list",
        "a list that grows",
        """
def answer(x):
    l = [1]
    while True:
        l += l
""",
    ),
    Attack(
        "memory_children",
        "children that each take what one may",
        """
import os, time

def answer(x):
    for _ in range(3):
        if not os.fork():
            break
    keep = bytearray(b"x" * (150 << 20))
    time.sleep(9)
""",
    ),
    Attack(
        "memory_shared",
        "shared memory and unnamed files",
        """
import mmap, os

keep = []

def answer(x):
    while True:
        try:
            m = mmap.mmap(-1, 1 << 22)
            m.write(b"x" * (1 << 22))
            keep.append(m)
        except (OSError, MemoryError):
            pass
        try:
            fd = os.memfd_create("x")
            os.write(fd, b"x" * (1 << 22))
        except OSError:
            pass
""",
    ),
    Attack(
        "scratch_fill",
        "fills the scratch",
        """
def answer(x):
    i = 0
    while True:
        i += 1
        try:
            open(f"/tmp/{i}", "wb").write(b"x" * (1 << 20))
        except OSError:
            return "full"
""",
    ),
    Attack(
        "file_size",
        "one file without an end",
        """
def answer(x):
    with open("/tmp/f", "wb") as f:
        while True:
            f.write(b"x" * (1 << 20))
""",
    ),
    Attack(
        "output",
        "prints without an end",
        """
def answer(x):
    while True:
        print("x" * 1000)
""",
    ),
    Attack(
        "errors",
        "the same on stderr, at import",
        """
import sys

while True:
    sys.stderr.write("x" * 1000)
""",
    ),
    Attack(
        "output_children",
        "children that print without an end, and outlive it",
        """
import os

def answer(x):
    if not os.fork():
        while True:
            os.write(1, b"x" * 1000)
    os._exit(0)
""",
    ),
    Attack(
        "recursion",
        "calls itself without an end",
        """
import sys

sys.setrecursionlimit(10**9)

def answer(x):
    return answer(x)
""",
    ),
    Attack(
        "recursion_c",
        "… by way of C",
        """
import sys

sys.setrecursionlimit(10**9)

class R:
    def __repr__(self):
        return repr(self)

def answer(x):
    return repr(R())
""",
    ),
    Attack(
        "deep_source",
        "source that is nested too deeply",
        "answer = " + "(" * 5000 + "1" + ")" * 5000,
    ),
    Attack(
        "busy",
        "a loop that catches all",
        """
def answer(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
""",
    ),
    Attack(
        "busy_import",
        "the same at import",
        """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
    ),
    Attack(
        "regex",
        "a regular expression without an end",
        """
import re

def answer(x):
    return re.match("(a+)+$", "a" * 64 + "b")
""",
    ),
    Attack(
        "sleeps",
        "sleeps",
        """
import time

def answer(x):
    time.sleep(10**6)
""",
    ),
    Attack(
        "stops",
        "stops itself and all others",
        """
import os, signal

def answer(x):
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGSTOP)
""",
    ),
    Attack(
        "ignores_signals",
        "ignores every signal it can, then spins",
        """
import signal

for s in range(1, 65):
    try:
        signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError):
        pass

def answer(x):
    while True:
        pass
""",
    ),
    Attack(
        "kills",
        "kills its parents, process 1, all, and the pool",
        """
import os

for p in (os.getppid(), 1, -1, {PID}, -{PID}, 0):
    try:
        os.kill(p, 9)
    except OSError:
        pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "kills_by_fd",
        "kills by pidfd",
        """
import os, signal

for p in (1, os.getppid(), {PID}):
    try:
        signal.pidfd_send_signal(os.pidfd_open(p), 9)
    except OSError:
        pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "daemon",
        "a child of a child in a session of its own, that outlives it",
        """
import os, sys, subprocess

if not os.fork():
    os.setsid()
    if not os.fork():
        os.closerange(0, 64)
        os.execv(sys.executable or "/bin/sh", ["{MARK}", "-c", "import time; time.sleep(99)"])
    os._exit(0)
os._exit(0)
""",
    ),
    Attack(
        "daemon_call",
        "the same from a call that answers",
        """
import os

def answer(x):
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execv("/bin/sh", ["{MARK}", "-c", "while true; do sleep 1; done"])
        os._exit(0)
    return x
""",
    ),
    Attack(
        "nice",
        "priority and affinity",
        """
import os

for f in (
    lambda: os.nice(-20),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
    lambda: os.setpriority(0, 0, -20),
):
    try:
        f()
    except OSError:
        pass
    else:
        answer = None

def answer(x):
    return 0
""",
    ),
    Attack(
        "limits",
        "raises its own limits, then takes memory",
        """
import resource

for r in range(16):
    try:
        resource.setrlimit(r, (-1, -1))
    except (OSError, ValueError):
        pass

def answer(x):
    keep = []
    while True:
        try:
            keep.append(bytearray(b"x" * (1 << 24)))
        except MemoryError:
            pass
""",
    ),
]
