"""Reaching what is outside by way of the kernel: the network, privileges, namespaces, devices."""

from tests.codelm.attacks import REACHED, Attack

KERNEL = [
    Attack(
        "tcp",
        "a listener of the host",
        """
import socket

reached = False
try:
    socket.create_connection(("127.0.0.1", {PORT}), 1)
    reached = True
except OSError:
    pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "internet",
        "UDP, TCP and DNS outside",
        """
import socket

reached = False
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    try:
        s = socket.socket(socket.AF_INET, kind)
        s.connect(("1.1.1.1", 53))
        s.send(b"x")
        reached = True
    except OSError:
        pass
try:
    socket.getaddrinfo("example.com", 80)
    reached = True
except OSError:
    pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "raw_sockets",
        "families of sockets that are seldom used",
        """
import socket

reached = False
for family in (2, 10, 16, 17, 38, 40):
    for kind in (1, 2, 3):
        try:
            socket.socket(family, kind)
            reached = True
        except OSError:
            pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "abstract_socket",
        "a socket of the host without a file",
        r"""
import socket

reached = False
try:
    socket.socket(socket.AF_UNIX).connect("\x00{MARK}")
    reached = True
except OSError:
    pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "ctypes_calls",
        "setuid, mount, unshare, ptrace, chroot, bpf, keyctl, personality by number",
        """
import ctypes, platform

libc = ctypes.CDLL(None, use_errno=True)
x = platform.machine() == "x86_64"
reached = [
    n
    for n, r in dict(
        setuid=libc.setuid(0),
        setgid=libc.setgid(0),
        mount=libc.mount(b"x", b"/tmp", b"tmpfs", 0, 0),
        unshare=libc.unshare(268435456),
        setns=libc.setns(3, 0),
        chroot=libc.chroot(b"/tmp"),
        ptrace=libc.ptrace(0, 0, 0, 0),
        personality=libc.personality(262144),
        memfd=libc.memfd_create(b"x", 0),
        shm=libc.shmget(0, 4096, 896),
        reboot=libc.reboot(0),
        io_uring=libc.syscall(425, 1, 0),
        keyctl=libc.syscall(250 if x else 219, 0, 0, 0),
        bpf=libc.syscall(321 if x else 280, 0, 0, 0),
        userfaultfd=libc.syscall(323 if x else 282, 0),
        perf=libc.syscall(298 if x else 241, 0, 0, 0, 0, 0),
        clone=libc.syscall(56 if x else 220, 268435473, 0, 0, 0, 0),
    ).items()
    if r != -1
]

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "clone3",
        "clone3 with a namespace, whose flags no filter sees",
        """
import ctypes, struct

libc = ctypes.CDLL(None, use_errno=True)
args = ctypes.create_string_buffer(struct.pack("=11Q", 268435456, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
reached = libc.syscall(435, args, 88) != -1

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "x32",
        "calls by their other numbers",
        """
import ctypes, platform

libc = ctypes.CDLL(None, use_errno=True)
reached = platform.machine() == "x86_64" and any(
    (libc.syscall(1073741824 | n, 0, 0, 0, 0, 0) != -1 for n in (39, 41, 272, 521))
)

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "set_user_id",
        "programs that are root's",
        """
import subprocess, glob, os, stat

reached = False
for p in glob.glob("/usr/bin/*"):
    try:
        special = os.stat(p).st_mode & stat.S_ISUID
    except OSError:
        continue
    if special and p.endswith(("su", "sudo", "mount")):
        r = subprocess.run(
            [p, "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        reached = reached or r.stdout.strip() == "0"

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "tools",
        "unshare, nsenter and bwrap of /usr/bin",
        """
import subprocess

reached = False
for c in (
    ["unshare", "-Ur", "id", "-u"],
    ["nsenter", "-t", "1", "-a", "id", "-u"],
    ["bwrap", "--bind", "/", "/", "id", "-u"],
    ["chroot", "/proc/1/root", "id", "-u"],
):
    try:
        reached = reached or subprocess.run(c, capture_output=True).returncode == 0
    except OSError:
        pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "devices",
        "disks and memory of the machine",
        """
import os

reached = False
for i, (a, b) in enumerate([(8, 0), (254, 0), (253, 0), (1, 1), (1, 2)]):
    try:
        os.mknod(f"/tmp/d{i}", 24960 if a > 1 else 8576, os.makedev(a, b))
        reached = True
    except OSError:
        pass
for p in ("/dev/mem", "/dev/sda", "/dev/vda", "/dev/kmsg", "/proc/kcore"):
    try:
        open(p, "rb").read(1)
        reached = True
    except OSError:
        pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
    Attack(
        "terminal",
        "types on the terminal that started it",
        """
import fcntl, termios, os

reached = False
for fd in (0, 1, 2):
    try:
        fcntl.ioctl(fd, termios.TIOCSTI, b"x")
        reached = True
    except OSError:
        pass
try:
    os.open("/dev/tty", os.O_RDWR)
    reached = True
except OSError:
    pass

def answer(x):
    return "{REACHED}" if reached else ""
""",
        tests=REACHED,
    ),
]
