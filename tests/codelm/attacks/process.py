"""A candidate that turns on its own process: leaves early, changes what it finds there, forges what it says."""

from tests.codelm.attacks import Attack

PROCESS = [
    Attack(
        "exit_at_import",
        "sys.exit before any check",
        """
import sys

sys.exit(0)
""",
    ),
    Attack(
        "os_exit_at_import",
        "os._exit(0) before any check",
        """
import os

os._exit(0)
""",
    ),
    Attack(
        "quit",
        "quit() in a call",
        """
def answer(x):
    quit()
""",
    ),
    Attack(
        "os_exit",
        "os._exit(0) in a call",
        """
import os

def answer(x):
    os._exit(0)
""",
    ),
    Attack(
        "system_exit",
        "SystemExit(0) in a call",
        """
def answer(x):
    raise SystemExit(0)
""",
    ),
    Attack(
        "exec_true",
        "becomes /bin/true",
        """
import os

def answer(x):
    os.execv("/bin/true", ["true"])
""",
    ),
    Attack(
        "at_exit",
        "atexit, then leaves",
        """
import atexit, os, sys

atexit.register(os._exit, 0)
sys.exit()
""",
    ),
    Attack(
        "builtins",
        "builtins that say yes",
        """
import builtins

for n in ("all", "any", "isinstance", "callable", "hasattr"):
    setattr(builtins, n, lambda *a, **k: True)
builtins.len = lambda x: 0
builtins.type = lambda x: str

def answer(x):
    return 0
""",
    ),
    Attack(
        "unittest",
        "unittest and AssertionError that never fail",
        """
import builtins, unittest

builtins.AssertionError = SystemExit
unittest.TestCase.assertEqual = lambda *a: None

def answer(x):
    return 0
""",
    ),
    Attack(
        "codec",
        "our codec in its process",
        """
import sys

c = sys.modules["codelm.sandbox_codec"]
c.encode = lambda *a, **k: "T"
c.NotPlain = BaseException
c._SEQUENCES.clear()

def answer(x):
    return 0
""",
    ),
    Attack(
        "modules",
        "empties sys.modules",
        """
import sys

sys.modules.clear()

def answer(x):
    return 0
""",
    ),
    Attack(
        "frames",
        "looks for the answer in the frames that called it",
        """
import sys, re

def answer(x):
    f, seen = (sys._getframe(), "")
    while f:
        seen += repr(f.f_locals) + repr(f.f_globals)
        f = f.f_back
    found = re.search("[0-9a-f]{32}", seen)
    return found[0] * x if found else seen[:0]
""",
    ),
    Attack(
        "collector",
        "looks for the answer in all objects",
        """
import gc, re

def answer(x):
    for o in gc.get_objects():
        try:
            found = re.search("secret-[0-9a-f]{32}", repr(o))
        except BaseException:
            continue
        if found:
            return found[0] * x
""",
    ),
    Attack(
        "trace",
        "traces whatever its process runs",
        """
import sys

seen = []
sys.settrace(lambda f, e, a: seen.append(dict(f.f_locals)))
sys.setprofile(lambda f, e, a: None)

def answer(x):
    return 0
""",
    ),
    Attack(
        "forged",
        "writes 'passed' to every descriptor",
        r"""
import os

def answer(x):
    for fd in range(64):
        for said in (b"passed", b"\x00\x00\x00\x01T", b"\x00\x00\x00\nt5 s00 l2 i0 i1 s s"):
            try:
                os.write(fd, said)
            except OSError:
                pass
    return True
""",
    ),
    Attack(
        "forged_report",
        "guesses a nonce and reports all checks",
        """
import sys, os

c = sys.modules["codelm.sandbox_codec"]
text = c.encode(("0" * 32, [0, 1], "", ""))
for fd in range(3, 64):
    try:
        c.send(fd, text)
    except OSError:
        pass
os._exit(0)
""",
    ),
    Attack(
        "forged_answers",
        "answers before it is asked",
        """
import sys

c = sys.modules["codelm.sandbox_codec"]
for fd in range(3, 64):
    try:
        for _ in range(9):
            c.send(fd, "=T")
    except OSError:
        pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "flooded",
        "floods every descriptor",
        r"""
import os

def answer(x):
    while True:
        for fd in range(1, 64):
            try:
                os.set_blocking(fd, False)
                os.write(fd, b"\xff" * 65536)
            except OSError:
                pass
""",
    ),
    Attack(
        "huge_frame",
        "announces a message of 4 GB",
        r"""
import os

def answer(x):
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff\xff\xff\xff")
        except OSError:
            pass
""",
    ),
    Attack(
        "hostile_frame",
        "a list that says it has 2**40 items, in lists",
        """
import sys

c = sys.modules["codelm.sandbox_codec"]

def answer(x):
    for fd in range(3, 64):
        try:
            c.send(fd, "=" + "l1 " * 60 + "l" + str(2**40) + " i1" * 99)
        except OSError:
            pass
""",
    ),
    Attack(
        "closed",
        "closes all descriptors, then sleeps",
        """
import os, time

def answer(x):
    os.closerange(0, 64)
    time.sleep(60)
""",
    ),
    Attack(
        "replaced_name",
        "a candidate named as our function that counts",
        """
def __ran__(*a):
    pass

def answer(x):
    return 0
""",
    ),
    Attack(
        "slow_name",
        "a name that is code when it is looked up",
        """
class D(dict):
    def __getitem__(s, k):
        return lambda *a: True

import sys

sys.modules["candidate"].__class__ = type("M", (type(sys),), {"__getattr__": lambda s, k: True})

def answer(x):
    return 0
""",
    ),
]
