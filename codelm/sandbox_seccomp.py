"""The system calls that no untrusted program needs, refused by a filter of our own making (seccomp, classic BPF)."""

import errno
import platform
import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…
_COLUMNS = ("x86_64", "aarch64")

# name: number on x86_64, on aarch64 (0: there is none).
_REFUSED = {
    # Other processes, and namespaces of one's own.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "personality": (135, 92),
    # File systems.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    # Large and seldom used parts of the kernel.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, 0),
    # The machine.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, 0),
    "ioperm": (173, 0),
    "vhangup": (153, 58),
    # Memory that outlives what holds it, or that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_AF_UNIX = 1
_X32 = 0x4000_0000  # the bit of the x32 calls, which would pass by every number here

_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # where they are in seccomp_data; of the argument, its low half


def _do(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def program(machine: str = "") -> bytes:
    """The filter for this machine (or another), as bwrap's --seccomp reads it; empty where we have no numbers."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return b""
    column = _COLUMNS.index(machine)
    refuse = _do(_RETURN, _ERRNO | errno.EPERM)
    lines = [
        _do(_LOAD, _ARCHITECTURE),
        _do(_EQUAL, _ARCHITECTURES[machine], yes=1),
        refuse,  # 32-bit calls have other numbers
        _do(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [_do(_AT_LEAST, _X32, no=1), refuse]
    for numbers in _REFUSED.values():
        if numbers[column]:
            lines += [_do(_EQUAL, numbers[column], no=1), refuse]
    # Its flags lie in memory, where no filter can look: C libraries fall back to clone.
    lines += [_do(_EQUAL, _CLONE3[column], no=1), _do(_RETURN, _ERRNO | errno.ENOSYS)]
    lines += [_do(_EQUAL, _CLONE[column], no=4), _do(_LOAD, _ARGUMENT), _do(_ANY_BIT, _NEW_NAMESPACES, no=1), refuse]
    lines += [_do(_RETURN, _ALLOW)]
    lines += [_do(_EQUAL, _SOCKET[column], no=3), _do(_LOAD, _ARGUMENT), _do(_EQUAL, _AF_UNIX, yes=1), refuse]
    lines += [_do(_RETURN, _ALLOW)]
    return b"".join(lines)
