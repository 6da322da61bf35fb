"""Benchmarks that no corpus may contain: problems out of a folder of JSONL, whatever their layout.

Known layouts, by their fields: HumanEval and EvalPlus (prompt, canonical_solution), infilling (and a suffix), MBPP
(text, code, test_list), CRUXEval (code, input, output). Of every other layout each text is a part to look for. A row of
which nothing could be read is an error: a benchmark that silently does not load would let contamination through.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etils import epath

from codelm.errors import UserError
from data import jsonl

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_NAMES = ("task_id", "id", "name", "question_id", "problem_id")


@dataclass(frozen=True, slots=True)
class Problem:
    benchmark: str
    """The folder of the file, or the file's name where it has none of its own."""
    name: str
    """The task's identifier, or the line it stands on."""
    program: str = ""
    """The problem solved, as a file would have it: with the signature and docstring where the prompt is code."""
    prompt: str = ""
    """What is asked, in words or as the beginning of the program."""
    solution: str = ""
    """The part of the program that answers the prompt; empty for infilling, where it is some span."""
    tests: str = ""
    other: tuple[str, ...] = ()
    """Every other text of the row: code or prose, it is not known which."""


def load(folder: epath.PathLike) -> list[Problem]:
    """Every problem of every JSONL file (plain, .gz or .zst) in the folder and below."""
    root = epath.Path(folder)
    return [problem for file in find(root) for problem in _problems(file, root)]


def find(folder: epath.Path) -> list[epath.Path]:
    """The files of a folder of benchmarks."""
    if not folder.is_dir():
        raise UserError(f"no folder of benchmarks at {folder}; give one that holds JSONL files")
    found = sorted(files(folder))
    if not found:
        raise UserError(f"no benchmarks in {folder}: no file there or below ends in {', '.join(_ENDINGS)}")
    return found


def files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path)
        elif path.name.endswith(_ENDINGS):
            yield path


def _problems(file: epath.Path, folder: epath.Path) -> Iterator[Problem]:
    benchmark = file.name.split(".")[0] if file.parent == folder else file.parent.relative_to(folder).as_posix()
    number = 0
    for number, row in rows(file):
        name = next((str(row[key]) for key in _NAMES if key in row), f"{file.name}:{number}")
        try:
            problem = _problem(benchmark, name, row)
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}, line {number}: not what its layout should hold ({error!r})") from error
        if not any((problem.program.strip(), problem.prompt.strip(), problem.tests.strip(), problem.other)):
            raise UserError(f"{file}, line {number}: no text in the row, so nothing to look for")
        yield problem
    if not number:
        raise UserError(f"no problems in {file}: the file is empty")


def rows(file: epath.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each with the number of its line."""
    number = 0
    try:
        with io.TextIOWrapper(jsonl.opened(str(file)), "utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{file}, line {number}: a {type(row).__name__}, not an object of fields")
                    yield number, row
    except json.JSONDecodeError as error:
        raise UserError(f"{file}, line {number}: not JSON ({error.msg})") from error
    except (EOFError, OSError, ValueError) as error:
        raise UserError(f"{file}, after line {number}: cannot be read ({error})") from error


def _problem(benchmark: str, name: str, row: dict[str, Any]) -> Problem:
    """The row by its layout; texts that the layout does not name are kept too."""
    if {"prompt", "canonical_solution"} <= row.keys():
        used = {"prompt", "canonical_solution", "suffix", "test", "entry_point"}
        prompt, solution = row["prompt"], row["canonical_solution"]
        parts = {"prompt": prompt, "tests": row.get("test", "")}
        if "suffix" in row:
            parts["program"] = prompt + solution + row["suffix"]
        else:
            parts |= {"program": prompt + solution, "solution": solution}
    elif {"code", "test_list"} <= row.keys():
        used = {"code", "text", "prompt", "test_list", "challenge_test_list", "test_setup_code"}
        prompt = row["text"] if "text" in row else row["prompt"]
        parts = {"program": row["code"], "prompt": prompt, "solution": row["code"]}
        tests = [row.get("test_setup_code", ""), *row["test_list"], *row.get("challenge_test_list", [])]
        parts["tests"] = "\n".join(tests)
    elif {"code", "input", "output"} <= row.keys():
        used = {"code", "input", "output"}
        parts = {"program": row["code"], "solution": row["code"]}
        parts["tests"] = f"f({row['input']}) == {row['output']}"
    else:
        used, parts = set[str](), {}
    rest = [value for key, value in row.items() if key not in used | set(_NAMES)]
    return Problem(benchmark, name, **parts, other=tuple(_texts(rest)))


def _texts(value: object) -> Iterator[str]:
    """Every text inside, however nested, that is not empty."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
