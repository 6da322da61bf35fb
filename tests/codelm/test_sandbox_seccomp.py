"""The filter, run as the kernel runs it, on calls that it must refuse and calls that it must not."""

import errno
import re
import struct
from pathlib import Path

import pytest

from codelm import sandbox_seccomp

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOWED, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def _answer(machine: str, number: int, first: int = 0, architecture: int = 0) -> int:
    """What the filter returns for a call."""
    data = struct.pack("=IIQQ", number, architecture or ARCHITECTURES[machine], 0, first)
    lines = list(struct.iter_unpack("=HBBI", sandbox_seccomp.program(machine)))
    at, held = 0, 0
    while True:
        code, yes, no, value = lines[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
            at += yes if holds else no


@pytest.mark.parametrize(
    ("machine", "number", "first", "answer"),
    [
        ("x86_64", 0, 0, ALLOWED),  # read
        ("x86_64", 101, 0, EPERM),  # ptrace
        ("x86_64", 165, 0, EPERM),  # mount
        ("x86_64", 272, 0, EPERM),  # unshare
        ("x86_64", 425, 0, EPERM),  # io_uring_setup
        ("x86_64", 435, 0, ENOSYS),  # clone3
        ("x86_64", 56, 0x01200011, ALLOWED),  # clone, as fork does
        ("x86_64", 56, 0x003D0F00, ALLOWED),  # as threads do
        ("x86_64", 56, 0x10000011, EPERM),  # a user namespace
        ("x86_64", 56, 0x00020011, EPERM),  # a mount namespace
        ("x86_64", 41, 1, ALLOWED),  # socket: unix
        ("x86_64", 41, 2, EPERM),  # inet
        ("x86_64", 41, 16, EPERM),  # netlink
        ("x86_64", 0x40000000 | 0, 0, EPERM),
        ("aarch64", 63, 0, ALLOWED),  # read
        ("aarch64", 117, 0, EPERM),
        ("aarch64", 220, 0x10000011, EPERM),
        ("aarch64", 220, 0x11, ALLOWED),
        ("aarch64", 198, 1, ALLOWED),
        ("aarch64", 198, 2, EPERM),
        ("aarch64", 435, 0, ENOSYS),
    ],
)
def test_calls(machine: str, number: int, first: int, answer: int) -> None:
    assert _answer(machine, number, first) == answer


def test_calls_of_another_architecture_are_refused() -> None:
    assert _answer("x86_64", 0, architecture=0x40000003) == EPERM


def test_an_architecture_without_numbers_has_no_filter() -> None:
    assert sandbox_seccomp.program("riscv64") == b""


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]}")
    told = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", HEADERS[machine].read_text()))
    column = list(HEADERS).index(machine)
    known = sandbox_seccomp._REFUSED | {"clone": sandbox_seccomp._CLONE, "socket": sandbox_seccomp._SOCKET}
    wrong = {name: told[name] for name, numbers in known.items() if name in told and int(told[name]) != numbers[column]}
    assert not wrong
    assert len(told.keys() & known.keys()) > 40
