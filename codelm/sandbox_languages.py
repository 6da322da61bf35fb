"""How programs of other languages are compiled and run, with what is installed here."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from codelm import sandbox_bubblewrap, sandbox_tools
from codelm.sandbox import Limits, Program

_USUAL = Limits()
_STRIPS_TYPES = (22, 18)  # the node that runs TypeScript by itself


@dataclass(frozen=True)
class Toolchain:
    """The commands for one source file."""

    file: str
    commands: tuple[tuple[str, ...], ...]
    processes: int = 0
    """Threads that its tools need at least; 0 as of the other two: no more than anybody."""
    memory_mb: int = 0
    file_mb: int = 0

    def limits(self, limits: Limits) -> Limits:
        return replace(
            limits,
            processes=max(limits.processes, self.processes),
            memory_mb=max(limits.memory_mb, self.memory_mb),
            file_mb=max(limits.file_mb, self.file_mb),
        )


def _python() -> Toolchain:
    return Toolchain("main.py", ((sandbox_bubblewrap.PYTHON, "-I", "-B", "main.py"),))


def _shell() -> Toolchain | None:
    bash = sandbox_tools.path("bash")
    return Toolchain("main.sh", ((bash, "main.sh"),)) if bash else None


def _javascript() -> Toolchain | None:
    node = sandbox_tools.path("node")
    return Toolchain("main.js", ((node, "main.js"),), processes=32) if node else None


def _typescript() -> Toolchain | None:
    node, tsc = sandbox_tools.path("node"), sandbox_tools.path("tsc")
    if node and sandbox_tools.version("node") >= _STRIPS_TYPES:
        return Toolchain("main.ts", ((node, "--experimental-strip-types", "main.ts"),), processes=32)
    if node and tsc:  # types are for the editor here: what is checked is what it does
        return Toolchain("main.ts", ((node, tsc, "--noCheck", "main.ts"), (node, "main.js")), processes=32)
    return None


def _java() -> Toolchain | None:
    javac, java = sandbox_tools.path("javac"), sandbox_tools.path("java")
    if not javac or not java:
        return None
    small = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", "-Xmx512m")
    compiler = (javac, *(f"-J{option}" for option in small), "-encoding", "UTF-8", "Main.java")
    return Toolchain("Main.java", (compiler, (java, *small, "-cp", ".", "Main")), processes=64, memory_mb=2048)


def _go() -> Toolchain | None:
    go = sandbox_tools.path("go")
    if not go:
        return None
    build = ("env", "GOCACHE=/tmp/.cache", "GOPATH=/tmp/.go", "GO111MODULE=off", go, "build", "-o", "main", "main.go")
    return Toolchain("main.go", (build, ("./main",)), processes=64, memory_mb=2048, file_mb=64)


def _cpp() -> Toolchain | None:
    compiler = sandbox_tools.path("g++")
    build = (compiler or "", "-std=c++17", "-O1", "-o", "main", "main.cpp")
    return Toolchain("main.cpp", (build, ("./main",)), file_mb=64) if compiler else None


def _rust() -> Toolchain | None:
    rustc = sandbox_tools.path("rustc")
    build = (rustc or "", "--edition", "2021", "-C", "debuginfo=0", "-o", "main", "main.rs")
    return Toolchain("main.rs", (build, ("./main",)), processes=32, file_mb=64) if rustc else None


# What makes it, the command that has to be on PATH, and the package that brings that.
_LANGUAGES: dict[str, tuple[Callable[[], Toolchain | None], str, str]] = {
    "Python": (_python, "python", "python3"),
    "JavaScript": (_javascript, "node", "nodejs"),
    "TypeScript": (_typescript, "tsc", "node 22.18 or later, or node-typescript"),
    "Java": (_java, "javac", "default-jdk-headless"),
    "Go": (_go, "go", "golang"),
    "C++": (_cpp, "g++", "g++"),
    "Rust": (_rust, "rustc", "rustc"),
    "Shell": (_shell, "bash", "bash"),
}


def toolchain(language: str) -> Toolchain | None:
    """None for a language that we do not run, or cannot here."""
    return _LANGUAGES[language][0]() if language in _LANGUAGES else None


def missing(language: str) -> str:
    """One line that says why programs of a language are not run; empty where they are."""
    if language not in _LANGUAGES:
        return f"no way to run {language} (there is one for {', '.join(_LANGUAGES)})"
    make, tool, package = _LANGUAGES[language]
    return "" if make() else f"no {tool} on PATH (install {package})"


def program(language: str, source: str, limits: Limits = _USUAL, stdin: str = "") -> Program | None:
    """What `Pool.run` takes; None where there is no toolchain. The limits are widened to what its tools need."""
    tools = toolchain(language)
    if tools is None:
        return None
    file, commands = tools.file, tools.commands
    public = re.search(r"\bpublic\s+(?:final\s+|abstract\s+)*class\s+(\w+)", source)
    if language == "Java" and public:
        file = f"{public[1]}.java"  # the compiler insists
        named = {"Main": public[1], "Main.java": file}
        commands = tuple(tuple(named.get(word, word) for word in command) for command in commands)
    return Program({file: source}, commands, stdin, tools.limits(limits))
