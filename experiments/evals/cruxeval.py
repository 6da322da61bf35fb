"""CRUXEval: what a function gives for an input, or an input for which it gives an output."""

import ast
from collections.abc import Callable, Mapping
from typing import Any

from codelm.sandbox import Check, Limits
from experiments.evals import benchmarks, difficulty
from experiments.evals.catalogue import Data
from experiments.evals.suite import Outcome, PostProcessing, Prompt, Suite, Task, Tools

FILE = benchmarks.File(
    "cruxeval/cruxeval.jsonl",
    "https://raw.githubusercontent.com/facebookresearch/cruxeval/main/data/cruxeval.jsonl",
    ("id", "code", "input", "output"),
)
_LIMITS = Limits(seconds=30, cpu_seconds=5)
_TWO = "two examples and the assert to complete; equal is right, as in the paper"
_OUTPUT_EXAMPLES = """\
def f(n):
    return n
assert f(17) == 17

def f(s):
    return s + "a"
assert f("x9j") == "x9ja"

"""
_INPUT_EXAMPLES = """\
def f(my_list):
    count = 0
    for i in my_list:
        if len(i) % 2 == 0:
            count += 1
    return count
assert 3 == f(["mq", "px", "zy"])

def f(s1, s2):
    return s1 + s2
assert "banana" == f("ba", "nana")

"""


def _expression(task: Task, text: str) -> str:
    return text.split("\n", 1)[0].strip()


def _arguments(task: Task, text: str) -> str:
    line = _expression(task, text)
    ends = (at for at, letter in enumerate(line) if letter == ")" and _call(line[:at]))
    return line[: next(ends, len(line))].strip()


EXPRESSION = PostProcessing("expression", 1, "the first line, without white space around it", _expression)
ARGUMENTS = PostProcessing("arguments", 1, "the first line, up to the bracket that closes the call", _arguments)


def cruxeval_output(data: Data) -> Suite:
    def prompt(row: Mapping[str, Any]) -> str:
        return f"{_OUTPUT_EXAMPLES}{row['code']}\nassert f({row['input']}) =="

    about = f"what a function in Python gives: {_TWO}"
    return _suite("cruxeval-output", about, EXPRESSION, "output", prompt, _of_output, data)


def cruxeval_input(data: Data) -> Suite:
    def prompt(row: Mapping[str, Any]) -> str:
        return f"{_INPUT_EXAMPLES}{row['code']}\nassert {row['output']} == f("

    about = f"an input for which a function in Python gives an output: {_TWO}"
    return _suite("cruxeval-input", about, ARGUMENTS, "input", prompt, _of_input, data)


def _suite(
    name: str,
    about: str,
    how: PostProcessing,
    answer: str,
    prompt: Callable[[Mapping[str, Any]], str],
    check: Callable[[Mapping[str, Any], str], Check | None],
    data: Data,
) -> Suite:
    read = benchmarks.read(FILE, data.benchmarks, data.cache)
    tasks = [Task(row["id"], Prompt(prompt(row)), row[answer], {"language": "Python"}, row) for row in read.rows]
    tasks = difficulty.by_size(tasks, [task.checks["code"] for task in tasks])

    def attempt(task: Task, tools: Tools) -> Outcome:
        written = how.apply(task, tools.ask(task.prompt))
        made = check(task.checks, written)
        if made is None:
            return Outcome(written, {"pass": 0.0}, "syntax")
        verdict = tools.pool.check(made)
        return Outcome(written, {"pass": float(verdict.passed)}, verdict.reason)

    return Suite(name, 1, about, tasks, attempt, {"pass": "passes"}, read.sha256, how, 128, ("\n",), executes=True)


# The answer deserves no trust: it is evaluated alone, and its value goes to where the function is and the assert.


def _of_output(row: Mapping[str, Any], output: str) -> Check | None:
    if _parsed(output) is None:
        return None
    return Check(f"answer = (\n{output}\n)\n", f"assert answer == {row['output']}", ("answer",), limits=_LIMITS)


def _of_input(row: Mapping[str, Any], arguments: str) -> Check | None:
    """Each argument has a name of its own, since some are functions, which cannot be sent but can be called. They may
    use the program's variables, so a copy of it is there too."""
    call = _call(arguments)
    if call is None:
        return None
    given = [("*", each.value) if isinstance(each, ast.Starred) else ("", each) for each in call.args]
    given += [(f"{each.arg}=" if each.arg else "**", each.value) for each in call.keywords]
    names = tuple(f"argument_{number}" for number in range(len(given)))
    values = [ast.get_source_segment(f"f({arguments})", value) for _, value in given]
    bound = [f"{name} = (\n{value}\n)" for name, value in zip(names, values, strict=True)]
    candidate = "\n".join([row["code"], *bound])
    passed = ", ".join(how + name for (how, _), name in zip(given, names, strict=True))
    return Check(candidate, f"assert f({passed}) == {row['output']}", names, row["code"], limits=_LIMITS)


def _call(arguments: str) -> ast.Call | None:
    call = _parsed(f"f({arguments})")
    return call if isinstance(call, ast.Call) else None


def _parsed(expression: str) -> ast.expr | None:
    try:
        return ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
