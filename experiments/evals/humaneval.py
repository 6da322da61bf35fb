"""HumanEval and HumanEval+: the rest of a function, called by tests that never share a process with it."""

from collections.abc import Mapping
from typing import Any

from codelm.sandbox import Check, Limits
from experiments.evals import benchmarks, difficulty
from experiments.evals.catalogue import Data
from experiments.evals.postprocessing import BODY
from experiments.evals.suite import Outcome, Prompt, Suite, Task, Tools

HUMANEVAL = benchmarks.File(
    "humaneval/HumanEval.jsonl.gz",
    "https://raw.githubusercontent.com/openai/human-eval/master/data/HumanEval.jsonl.gz",
    ("task_id", "prompt", "canonical_solution", "test", "entry_point"),
)
HUMANEVAL_PLUS = benchmarks.File(
    "evalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
    "https://github.com/evalplus/humanevalplus_release/releases/latest/download/HumanEvalPlus-OriginFmt.jsonl.gz",
    HUMANEVAL.fields,
)
# HumanEval+/32 asks whether a number is a zero of itself: nothing passes, the published solution neither.
_MISTAKEN = "_poly(*candidate(*inp), inp)"
LIMITS = Limits(seconds=30)
_STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\nimport ", "\nfrom ")


def humaneval(data: Data) -> Suite:
    return _suite("humaneval", "164 functions in Python from signature and docstring", HUMANEVAL, data, LIMITS)


def humaneval_plus(data: Data) -> Suite:
    """Its answers are long: eleven lists of a million numbers for one task."""
    about = "HumanEval with some 80 times as many tests, without find_zero, whose tests are wrong as published"
    return _suite("humaneval-plus", about, HUMANEVAL_PLUS, data, Limits(seconds=180, cpu_seconds=60, memory_mb=2048))


def _suite(name: str, about: str, file: benchmarks.File, data: Data, limits: Limits) -> Suite:
    read = benchmarks.read(file, data.benchmarks, data.cache)
    tasks = [
        Task(
            row["task_id"],
            Prompt(row["prompt"]),
            row["canonical_solution"],
            {"language": "Python"},
            checks(row, row["prompt"] + row["canonical_solution"]),
        )
        for row in read.rows
        if _MISTAKEN not in row["test"]
    ]
    tasks = difficulty.by_size(tasks, [task.checks["setup"] for task in tasks])

    def attempt(task: Task, tools: Tools) -> Outcome:
        body = BODY.apply(task, tools.ask(task.prompt))
        verdict = tools.pool.check(check_of(task.prompt.prefix + body, task, limits))
        return Outcome(body, {"pass": float(verdict.passed)}, verdict.reason)

    return Suite(name, 1, about, tasks, attempt, {"pass": "passes"}, read.sha256, BODY, 512, _STOP, executes=True)


def checks(row: Mapping[str, Any], reference: str) -> dict[str, str]:
    """What `check_of` needs of a row and the program that solves it."""
    return {"test": row["test"], "entry_point": row["entry_point"], "setup": reference}


def check_of(program: str, task: Task, limits: Limits) -> Check:
    """The tests call the function through a proxy; what else they use (poly, encode_cyclic) they have of the reference,
    never of the candidate."""
    name = task.checks["entry_point"]
    tests = f"{task.checks['test']}\ncheck({name})\n"
    return Check(program, tests, (name,), task.checks["setup"], limits=limits)
