"""What runs inside a sandbox: becomes nobody, takes one job from its channel, does it.

The candidate shares this process. It can change everything here and forge every answer; that gains it nothing, since
no expected value ever comes here and each answer is read as plain data by a process that it cannot reach.
"""

import _io
import builtins
import os
import resource
import sys

from codelm import sandbox_codec
from codelm.sandbox_codec import NotPlain

_SHOWN = 500  # characters of an exception's message


def main() -> None:
    """Arguments: the channel's file descriptor, the user to become (0: stay), whether processes are counted."""
    channel, user, counted = int(sys.argv[1]), int(sys.argv[2]), "counted" in sys.argv[3:]
    become(user)
    os.set_inheritable(channel, False)
    sandbox_codec.send(channel, sandbox_codec.encode("ready"))
    text = sandbox_codec.receive(channel)
    if text is None:
        return  # the pool is closed
    job = sandbox_codec.decode(text)
    assert isinstance(job, dict)
    _limit(job, counted)
    _stdin(job["stdin"])
    sys.argv = [""]
    sys.path[:] = [folder for folder in sys.path if folder != job["driver"]] + job["path"]
    if job["kind"] == "program":
        _run(channel, job["files"], job["commands"])
    elif job["kind"] == "transcript":
        _transcribe(channel, job)
    else:
        _serve(channel, job)


def become(user: int) -> None:
    """Where the sandbox was made by root, its processes are none of root's: a user of its own for each."""
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _limit(job: dict, counted: bool) -> None:
    mega = 1 << 20
    wanted = {
        resource.RLIMIT_CPU: job["cpu_seconds"],
        resource.RLIMIT_FSIZE: job["file_mb"] * mega,
        resource.RLIMIT_NOFILE: job["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: 64 * mega,
    }
    # Runtimes such as node's and Java's reserve much more address space than they use, and node never ends trying
    # where it gets no more: there is room for the pool to see that it has too much.
    if job["kind"] == "program":
        wanted[resource.RLIMIT_DATA] = 2 * job["memory_mb"] * mega
    else:
        wanted[resource.RLIMIT_AS] = job["memory_mb"] * mega
    if counted:
        wanted[resource.RLIMIT_NPROC] = job["processes"]
    for which, most in wanted.items():
        bound = resource.getrlimit(which)[1]
        # Of the processor's time: first the signal that tells, and a second later the one that nobody catches.
        hard = most + 1 if which == resource.RLIMIT_CPU else most
        hard = hard if bound == resource.RLIM_INFINITY else min(hard, bound)
        resource.setrlimit(which, (min(most, hard), hard))


def _stdin(text: str) -> None:
    """A file, so that it serves child processes too, and nobody has to feed it."""
    if not text:
        return
    with open(".stdin", "w+", encoding="utf-8", errors="surrogatepass", newline="") as file:
        file.write(text)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        os.dup2(file.fileno(), 0)
    os.unlink(".stdin")
    sys.stdin = _io.TextIOWrapper(_io.BufferedReader(_io.FileIO(0, closefd=False)), "utf-8", "replace")


# A candidate of the checks.


def _serve(channel: int, job: dict) -> None:
    """Execute the source, then answer the tests' calls until nobody asks any more."""
    space, failed = _load(job["source"])
    objects: list[object] = []
    if failed is None:
        answer = _encoded("loaded", {name: _kind_of(space, name) for name in job["names"]})
    else:
        answer = _encoded(*failed)
    while True:
        sandbox_codec.send(channel, answer)
        question = sandbox_codec.receive(channel)
        if question is None:
            os._exit(0)
        answer = _answer(question, space, objects)


def _load(source: str) -> tuple[dict[str, object], tuple[str, ...] | None]:
    """The candidate's names; and why there are none, as an answer."""
    module = type(sys)("candidate")
    for name in ("exit", "quit"):  # which site makes elsewhere
        setattr(builtins, name, sys.exit)
    sys.modules["candidate"] = module
    try:
        code = compile(source, "candidate.py", "exec")
    except (SyntaxError, ValueError) as error:
        return {}, ("syntax", f"{type(error).__name__}: {error}")
    except BaseException as error:
        return {}, _told(error)
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        return {}, _told(error)
    return module.__dict__, None


def _kind_of(space: dict[str, object], name: str) -> str:
    if name not in space:
        return "missing"
    value = space[name]
    return "class" if isinstance(value, type) else "function" if callable(value) else "value"


def _told(error: BaseException) -> tuple[str, ...]:
    name = type(error).__name__
    if not issubclass(type(error), Exception):  # isinstance would ask the error itself
        return ("exit", name)
    try:
        message = f"{error}"[:_SHOWN]
    except BaseException:
        message = ""
    return ("memory" if issubclass(type(error), MemoryError) else "raised", name, message)


def _encoded(*answer: object) -> str:
    try:
        return sandbox_codec.encode(answer)
    except BaseException:  # an exception that cannot even be told
        return sandbox_codec.encode(("result", "what came back cannot be told"))


def _answer(question: str, space: dict[str, object], objects: list[object]) -> str:
    def known(name: str) -> object:
        return objects[int(name[1:])] if name.startswith("#") else space[name]

    try:
        what, target, *given = sandbox_codec.decode(question, known)  # type: ignore[misc]
        if what == "value":
            value, stays = space[target], False
        elif what == "get":
            value, stays = getattr(target, given[0]), True
        elif what == "set":
            value, stays = setattr(target, given[0], given[1]), False
        else:
            # Of a class, or of what a class made: only such results may stay here and be told by a number.
            stays = isinstance(target, type) or any(target is one for one in objects)
            value = target(*given[0], **given[1])
        try:
            return "=" + sandbox_codec.encode(value)
        except NotPlain as error:
            if not stays:
                return _encoded("result", f"{error}")
            objects.append(value)
            return _encoded("object", len(objects) - 1)
    except BaseException as error:
        return _encoded(*_told(error))


# Examples as in an interactive session.


def _transcribe(channel: int, job: dict) -> None:
    """Tell what each example printed; the last message says why there are no more."""
    most = job["output_kb"] * 1024
    space, failed = _load(job["source"])
    if failed:
        sandbox_codec.send(channel, sandbox_codec.encode(("end", *failed)))
        return
    for example in job["examples"]:
        printed = _example(example, space)
        most -= len(printed)
        if most < 0:
            sandbox_codec.send(channel, sandbox_codec.encode(("end", "output")))
            return
        sandbox_codec.send(channel, sandbox_codec.encode(("printed", printed)))
    sandbox_codec.send(channel, sandbox_codec.encode(("end", "")))


def _example(example: str, space: dict[str, object]) -> str:
    before, sys.stdout = sys.stdout, _io.StringIO()
    try:
        exec(compile(example, "<example>", "single"), space)
    except BaseException as error:
        import traceback

        last = "".join(traceback.format_exception_only(type(error), error)[-1:])
        sys.stdout.write(f"Traceback (most recent call last):\n    ...\n{last}")
    printed, sys.stdout = sys.stdout, before
    return printed.getvalue() + ""


# Programs of other languages.


def _run(channel: int, files: dict[str, str], commands: list[list[str]]) -> None:
    """All commands but the last as children; this process becomes the last, so that its status is told by others."""
    for name, text in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(text)
    for command in commands[:-1]:
        child = os.fork()
        if not child:
            _become(command)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sandbox_codec.send(channel, sandbox_codec.encode(("ended", f"{status}")))
        if status or sandbox_codec.receive(channel) is None:
            os._exit(status if status >= 0 else 128 - status)
    _become(commands[-1])


def _become(command: list[str]) -> None:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    os._exit(127)
