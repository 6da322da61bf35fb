"""Files of MultiPL-E and HumanEval-X: functions in other languages than Python, tested in those languages.

What is written and its tests are one program and one process here, unlike in the suites of Python. The program has to
say, after its last test, a word that only its standard input holds: ending early does not pass, and neither does
printing what tests print. Code that goes out of its way to read that word itself would pass.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from codelm import sandbox_languages
from codelm.errors import UserError
from codelm.languages import known_language, language_of
from codelm.sandbox import Limits, Ran
from experiments.evals import benchmarks
from experiments.evals.catalogue import Data
from experiments.evals.suite import NotRun, Outcome, PostProcessing, Prompt, Suite, Task, Tools

_LIMITS = Limits(seconds=60, cpu_seconds=30, memory_mb=2048)
_SHARED = "tests share a process with what they test"
# What HumanEval-X puts before its programs in C++.
_HEADERS = """\
#include <algorithm>
#include <climits>
#include <cstring>
#include <iostream>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <vector>
"""
# Assertions hold only where they are enabled before the class is loaded.
_MAIN = """
class Main {
    public static void main(String[] args) throws Exception {
        ClassLoader.getSystemClassLoader().setDefaultAssertionStatus(true);
        Problem.main(args);
        System.out.println(new java.util.Scanner(System.in).next());
    }
}
"""
_NODE = (r"\Z", '\nconsole.log(require("fs").readFileSync(0, "utf8"));\n')
# How the tests of a language come to say the word: before which brackets, if any, they get a statement that prints what
# standard input holds.
_ENDS: dict[str, tuple[str, str]] = {
    "C++": (r"\}\s*\Z", "{ std::string word; std::cin >> word; std::cout << word; }\n"),
    "Java": (r"\Z", _MAIN),
    "JavaScript": _NODE,
    "TypeScript": _NODE,
    "Shell": (r"\Z", "\ncat\n"),
    "Rust": (r"\}\s*\Z", 'println!("{}", std::io::read_to_string(std::io::stdin()).unwrap());\n'),
}
_HUMANEVAL_X = ("C++", "Java", "JavaScript")  # the tests of Go and Rust need their package managers
# Braces, and what they may stand in without being any.
_BRACES = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|(?P<brace>[{}])""", re.DOTALL
)
_TUPLES = re.compile(r"\b(?:Unit|Pair|Triplet|Quartet|Quintet)(?:<|\.with)")


def _before_stops(task: Task, text: str) -> str:
    return text[: min((at for stop in task.checks["stop"] if (at := text.find(stop)) >= 0), default=len(text))]


def _closed(task: Task, text: str) -> str:
    opened = depth = sum(step for step, _ in _braces(task.prompt.prefix))
    for step, end in _braces(text):
        depth += step
        if depth < max(opened, 1):
            return text[:end] + "\n}" * depth
    return text


def _braces(text: str) -> Iterator[tuple[int, int]]:
    """1 or -1 for each, and where it ends."""
    for found in _BRACES.finditer(text):
        if found["brace"]:
            yield (1 if found["brace"] == "{" else -1), found.end()


STOPS = PostProcessing("stop-tokens", 1, "cut before the first of the task's stop tokens", _before_stops)
CLOSED = PostProcessing("closed", 1, "cut after the brace that closes the function; its class is closed then", _closed)


def multipl_e(data: Data) -> Suite:
    read = _read("multipl-e", data, ("name", "language", "prompt", "tests", "stop_tokens"))
    tasks = [
        _task(row["name"], row["language"], row["prompt"], "", row["tests"], row["stop_tokens"]) for row in read.rows
    ]
    return _suite("multipl-e", "MultiPL-E", tasks, read.sha256, STOPS, tuple(_ENDS), data)


def humaneval_x(data: Data) -> Suite:
    read = _read("humaneval-x", data, ("task_id", "prompt", "canonical_solution", "test"))
    tasks = [
        _task(row["task_id"], row["task_id"].split("/")[0], row["prompt"], row["canonical_solution"], row["test"], ())
        for row in read.rows
    ]
    return _suite("humaneval-x", "HumanEval-X", tasks, read.sha256, CLOSED, _HUMANEVAL_X, data)


def _read(name: str, data: Data, fields: Sequence[str]) -> benchmarks.Rows:
    if not data.given:
        raise UserError(f"{name} is a file for each language: give one as {name}:FILE")
    return benchmarks.read_path(Path(data.given), fields)


def _task(name: str, language: str, prompt: str, reference: str, tests: str, stop: Sequence[str]) -> Task:
    """Data sets name languages in words or by extensions: cpp, sh, go_test.go."""
    known = known_language(language) or language_of(f"tests.{language}") or language
    return Task(name, Prompt(prompt), reference, {"language": known}, {"tests": tests, "stop": stop})


def _suite(
    name: str,
    title: str,
    tasks: Sequence[Task],
    source: str,
    how: PostProcessing,
    languages: Sequence[str],
    data: Data,
) -> Suite:
    def attempt(task: Task, tools: Tools) -> Outcome:
        language = task.slices["language"]
        _check_runs(task, languages)
        written = how.apply(task, tools.ask(task.prompt))
        word = secrets.token_hex(16)
        program = sandbox_languages.program(language, _source(task, written), _LIMITS, stdin=word)
        assert program is not None, "its tool is not missing"
        ran = tools.pool.run(program)
        reason = _reason(ran, word, len(program.commands))
        return Outcome(written, {"pass": float(not reason)}, reason)

    about = f"{title}, {' and '.join(sorted({task.slices['language'] for task in tasks}))}: {_SHARED}"
    stem, stop = Path(data.given).name.split(".")[0], tuple(tasks[0].checks["stop"])
    return Suite(f"{name}-{stem}", 1, about, tasks, attempt, {"pass": "passes"}, source, how, 512, stop, executes=True)


def _check_runs(task: Task, languages: Sequence[str]) -> None:
    language = task.slices["language"]
    if missing := sandbox_languages.missing(language):
        raise NotRun(missing)
    if language not in languages:
        raise NotRun(f"tests in {language} are not run")
    if language == "Java" and _TUPLES.search(task.prompt.prefix + task.checks["tests"]):
        raise NotRun("org.javatuples, which its tests use, is not here")


def _source(task: Task, written: str) -> str:
    language = task.slices["language"]
    brackets, saying = _ENDS[language]
    tests = re.sub(brackets, lambda found: saying + found[0], task.checks["tests"], count=1)
    program = f"{task.prompt.prefix}{written}\n"
    match language:
        case "C++":
            return f"{_HEADERS}{program}{tests}"
        case "Java":
            tests = tests.replace("public class Main", "class Problem")  # as the class is called in MultiPL-E
            return f"{program}{tests}".replace("import org.javatuples.*;\n", "")
        case "JavaScript":  # HumanEval-X asserts with console.assert, which does no more than print
            return f'{program}console.assert = require("assert");\n{tests}'
    return program + tests


def _reason(ran: Ran, word: str, commands: int) -> str:
    """In the words of `codelm.sandbox.Verdict`."""
    if ran.reason:
        return ran.reason
    if ran.status:
        return "error" if ran.step + 1 == commands else "syntax"
    return "" if word in ran.stdout else "checks"
