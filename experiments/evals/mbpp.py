"""MBPP and MBPP+: a short program from one sentence and one test."""

import ast
import re
import warnings
from collections.abc import Mapping
from typing import Any

from codelm.errors import UserError
from codelm.sandbox import Check, Limits
from experiments.evals import benchmarks, difficulty
from experiments.evals.catalogue import Data
from experiments.evals.suite import Outcome, PostProcessing, Prompt, Suite, Task, Tools

MBPP = benchmarks.File(
    "mbpp/mbpp.jsonl",
    "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl",
    ("task_id", "text", "code", "test_list", "test_setup_code"),
)
# EvalPlus publishes it twice; this is the one whose tests are written out, as those of HumanEval+ are.
MBPP_PLUS = benchmarks.File(
    "evalplus/MbppPlus-OriginFmt.jsonl.gz",
    "https://github.com/evalplus/mbppplus_release/releases/latest/download/MbppPlus-OriginFmt.jsonl.gz",
    ("task_id", "prompt", "code", "test_list", "test_imports", "test"),
)
TEST_SPLIT = range(11, 511)
_ABOUT = "from its description and first test in a docstring, no examples"
_STOP = ("\nassert ", "\nprint(", "\nif __name__", '\n"""', "\n'''", "\n```")
_AFTER = re.compile("|".join(re.escape(stop[1:]) for stop in _STOP))


def _program(task: Task, text: str) -> str:
    lines = text.split("\n")
    return "\n".join(lines[: next((n for n, line in enumerate(lines) if _AFTER.match(line)), len(lines))])


PROGRAM = PostProcessing(
    "program", 1, "cut before the first line that begins with assert, print, if __name__, quotes or a fence", _program
)


def mbpp(data: Data) -> Suite:
    read = benchmarks.read(MBPP, data.benchmarks, data.cache)
    tasks = [task_of(row) for row in read.rows if row["task_id"] in TEST_SPLIT]
    return suite_of("mbpp", f"the test problems, 11 to 510: Python {_ABOUT}", tasks, read.sha256, Limits(seconds=30))


def mbpp_plus(data: Data) -> Suite:
    read = benchmarks.read(MBPP_PLUS, data.benchmarks, data.cache)
    about = f"the problems that EvalPlus kept, with some 35 times as many tests: Python {_ABOUT}"
    tasks = [_task(row, row["prompt"], [*row["test_imports"], row["test"]]) for row in read.rows]
    return suite_of("mbpp-plus", about, tasks, read.sha256, Limits(seconds=60, cpu_seconds=60))


def suite_of(name: str, about: str, tasks: list[Task], source: str, limits: Limits) -> Suite:
    tasks = difficulty.by_size(tasks, [task.reference for task in tasks])

    def attempt(task: Task, tools: Tools) -> Outcome:
        program = PROGRAM.apply(task, tools.ask(task.prompt))
        verdict = tools.pool.check(Check(program, **task.checks, limits=limits))
        return Outcome(program, {"pass": float(verdict.passed)}, verdict.reason)

    return Suite(name, 1, about, tasks, attempt, {"pass": "passes"}, source, PROGRAM, 512, _STOP, executes=True)


def task_of(row: Mapping[str, Any]) -> Task:
    return _task(row, row["text"], [row["test_setup_code"], *row["test_list"]])


def _task(row: Mapping[str, Any], text: str, tests: list[str]) -> Task:
    """The file has lines of DOS and of Unix."""
    description, example, code, test = (
        part.replace("\r\n", "\n").replace("\r", "")
        for part in (text, row["test_list"][0], row["code"], "\n".join(tests))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # about "\\w" and such, which were right once
        reference, asked = ast.parse(code), ast.parse(test)
    used = {node.id for node in ast.walk(asked) if isinstance(node, ast.Name)}
    names = [node.name for node in reference.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    if not used.intersection(names):
        raise UserError(f"MBPP {row['task_id']}: its tests call nothing that its solution defines; its file is damaged")
    return Task(
        f"MBPP/{row['task_id']}",
        Prompt(f'"""\n{description}\n{example}\n"""\n'),
        code,
        {"language": "Python"},
        {"tests": test, "names": tuple(name for name in names if name in used), "setup": _imports(reference)},
    )


def _imports(program: ast.Module) -> str:
    """Tests use modules that only the solution imports."""
    return "\n".join(ast.unparse(node) for node in program.body if isinstance(node, ast.Import | ast.ImportFrom))
