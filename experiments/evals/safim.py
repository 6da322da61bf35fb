"""SAFIM (arXiv 2403.04814): blocks, control expressions and API calls in programs of four languages.

A published file is one of its three parts (block_completion.jsonl.gz …; `unit_tests` may be a list or JSON of one).
Blocks and control expressions are run on inputs whose outputs are compared here; what was there is taken for right
without being run, as its makers do. API calls have to be the same, white space aside. Post-processing is theirs for
models that fill holes, reimplemented.
"""

import decimal
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from codelm import sandbox_languages
from codelm.errors import UserError
from codelm.sandbox import Limits
from experiments.evals.benchmarks import read_path
from experiments.evals.catalogue import Data
from experiments.evals.suite import Metric, NotRun, Outcome, PostProcessing, Prompt, Suite, Task, Tools
from experiments.evals.syntax_shape import shape, shared
from train.infilling import similarity

_FIELDS = ("task_id", "lang", "prompt", "eval_prompt", "ground_truth")
_LANGUAGES = {"python": "Python", "java": "Java", "cpp": "C++", "csharp": "C#"}
_KINDS = ("block", "control", "api")
_COMMENT = "/* TODO: Your code here */"
_HOLES = {"Python": "# TODO: Your code here", "Java": _COMMENT, "C++": _COMMENT, "C#": _COMMENT}
_HOLE = "{{completion}}"
_METRICS: dict[str, Metric] = {"pass": "passes", "exact": "mean", "similarity": "mean"}
_LIMITS = Limits(seconds=10, cpu_seconds=10)
_CLOSE = decimal.Decimal("1e-12")
_NUMBERS = decimal.Context(prec=60, traps=[decimal.InvalidOperation])
_FREE = frozenset({"yes", "no", "true", "false"})  # words of an output whose case is free

_PASS = 4  # a pass statement and its word, where they begin and end


@dataclass(frozen=True)
class _Test:
    input: str
    outputs: tuple[str, ...]
    """Any of them is right."""


def safim(data: Data) -> Suite:
    if not data.given:
        raise UserError("which part? safim:FILE, such as block_completion.jsonl.gz of github.com/gonglinyuan/safim")
    path = Path(data.given)
    read = read_path(path, _FIELDS)
    tasks = [_task(path, number, row) for number, row in enumerate(read.rows, start=1)]
    executes = any(task.checks["tests"] for task in tasks)
    about = f"holes in programs: {', '.join(sorted({task.slices['kind'] for task in tasks}))}"
    return Suite("safim", 1, about, tasks, _attempt, _METRICS, read.sha256, HOLE, 512, executes=executes)


def _task(path: Path, number: int, row: Mapping[str, Any]) -> Task:
    try:
        language, kind = _LANGUAGES[row["lang"]], row["task_id"].split("_")[0]
        prefix, suffix = row["prompt"].split(_HOLES[language])
        before, after = row["eval_prompt"].split(_HOLE)
        tests = tuple(_tests(row.get("unit_tests") or "[]"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}, task {number}: not as SAFIM's are ({error!r})") from error
    if kind not in _KINDS or (kind != "api" and not tests):
        raise UserError(f"{path}, task {number}: {row['task_id']!r} is of no kind of SAFIM's, or has no tests")
    slices = {"language": language, "kind": kind}
    checks = {"before": before, "after": after, "tests": tests, "kind": kind, "language": language}
    return Task(row["task_id"], Prompt(prefix, suffix), row["ground_truth"], slices, checks)


def _tests(given: str | list[dict[str, Any]]) -> Iterator[_Test]:
    for test in json.loads(given) if isinstance(given, str) else given:
        yield _Test(test["input"], tuple(test["output"]))


# ---- scores ----


def _attempt(task: Task, tools: Tools) -> Outcome:
    written = HOLE.apply(task, tools.ask(task.prompt))
    same = written.strip() == task.reference.strip()
    if task.checks["tests"]:
        why = "" if same else _failed(task, written, tools)
    else:
        why = "" if "".join(written.split()) == "".join(task.reference.split()) else "another call"
    scores = {"pass": float(not why), "exact": float(same), "similarity": similarity(written, task.reference)}
    return Outcome(written, scores, why)


def _failed(task: Task, written: str, tools: Tools) -> str:
    """Why a program is wrong. Inputs come to it alone, one after another."""
    language, source = task.checks["language"], task.checks["before"] + written + task.checks["after"]
    program = sandbox_languages.program(language, source, _LIMITS)
    if program is None:
        raise NotRun(sandbox_languages.missing(language))
    for test in task.checks["tests"]:
        ran = tools.pool.run(replace(program, stdin=test.input))
        if ran.reason == "sandbox":
            raise NotRun("the sandbox failed")
        if ran.reason or ran.status:
            return ran.reason or ("syntax" if ran.step + 1 < len(program.commands) else "error")
        if not any(_same_output(ran.stdout, output) for output in test.outputs):
            return "output"
    return ""


def _same_output(found: str, wanted: str) -> bool:
    """Token by token, numbers within 1e-12, as ExecEval compares them, which SAFIM is run by."""
    one, other = found.split(), wanted.split()
    return len(one) == len(other) and all(map(_same_token, one, other))


def _same_token(found: str, wanted: str) -> bool:
    if found == wanted or (wanted.lower() in _FREE and found.lower() == wanted.lower()):
        return True
    try:
        numbers = [_NUMBERS.create_decimal(token) for token in (found, wanted)]
        return abs(_NUMBERS.subtract(*numbers)) <= _CLOSE
    except decimal.InvalidOperation:
        return False


# ---- where a completion ends ----


def _cut(task: Task, written: str) -> str:
    match task.checks["kind"]:
        case "api":
            return _call(written)
        case "control":
            return _first_line(written) if task.checks["language"] == "Python" else _in_brackets(written)
        case _:
            return _block(task, written)


HOLE = PostProcessing(
    "safim",
    1,
    "an API call ends with its bracket, a control expression with its line or before the bracket around it, a block "
    "where dropping lines from its end leaves a program with the same syntax around it",
    _cut,
)


def _call(written: str) -> str:
    depth = 0
    for at, letter in enumerate(written):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth <= 0:
            return written[: at + 1]
    return written


def _in_brackets(written: str) -> str:
    depth = 0
    for at, letter in enumerate(written):
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return written[:at]
    return written


def _first_line(written: str) -> str:
    return next((line for line in written.splitlines() if line.strip()), "")


def _block(task: Task, written: str) -> str:
    language, before, after = task.checks["language"], task.checks["before"], task.checks["after"]
    empty = shape(f"{before}{'pass' if language == 'Python' else ''}{after}", language) or []
    needed = len(empty) - (_PASS if language == "Python" else 0)
    lines = written.splitlines(keepends=True)
    while lines:
        found = shape(f"{before}{''.join(lines)}{after}", language)
        if found is not None and len(found) >= needed and shared(empty, found) >= needed:
            break
        lines.pop()
    return "".join(lines)
