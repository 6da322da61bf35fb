"""CrossCodeEval and RepoBench: the next line or statement of a file, with pieces of other files of its repository.

Both are read from the files that their makers publish, in their layouts. Scores by characters are this project's (see
text_scores.py), not fuzzywuzzy's that the papers give.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codelm.errors import UserError
from codelm.formats import File
from codelm.languages import language_of
from codelm.publish import checksum
from experiments.evals import text_scores
from experiments.evals.benchmarks import Rows, read_path
from experiments.evals.catalogue import Data
from experiments.evals.suite import Metric, Outcome, PostProcessing, Prompt, Suite, Task, Tools
from experiments.evals.syntax_shape import shape

_METRICS: dict[str, Metric] = dict.fromkeys(text_scores.NAMES, "mean")
_MOST_TOKENS = {"crosscodeeval": 50, "repobench": 128}  # as their makers have it


# ---- CrossCodeEval (arXiv 2310.11248) ----


def crosscodeeval(data: Data) -> Suite:
    """A file such as python/line_completion_rg1_bm25.jsonl; one without retrieved pieces has no files beside."""
    path = _given(data, "crosscodeeval")
    read = read_path(path, ("prompt", "groundtruth", "right_context", "metadata"))
    about = "statements that use what other files define, with what was retrieved of those"
    return _suite("crosscodeeval", about, path, read, _of_crosscodeeval, STATEMENT, _attempt_statement)


def _of_crosscodeeval(row: Mapping[str, Any], number: int) -> Task:
    about = row["metadata"]
    retrieved = (row.get("crossfile_context") or {"list": []})["list"]
    files = [File(piece["filename"], piece["retrieved_chunk"]) for piece in retrieved[::-1]]  # the best come first
    slices = {"language": _language(about["file"]), "has_context": "yes" if files else "no"}
    prompt = Prompt(row["prompt"], row["right_context"], about["file"], files, about["repository"])
    return Task(about["task_id"], prompt, row["groundtruth"], slices)


def _attempt_statement(task: Task, tools: Tools) -> Outcome:
    """Comments, blank lines and white space at the ends of lines do not count, as its makers have it."""
    written = STATEMENT.apply(task, tools.ask(task.prompt))
    found, wanted = _code_lines(written), _code_lines(task.reference)
    scores = text_scores.scores("\n".join(found), "\n".join(wanted), task.slices["language"])
    return Outcome(written, scores)


def _code_lines(text: str) -> list[str]:
    lines = re.sub(r"(?:#|//).*", "", text).split("\n")
    return [line.strip() for line in lines if line.strip()]


def _statement(task: Task, written: str) -> str:
    language = task.slices["language"]
    if language != "Python":
        end = re.search(r"[;{}]", written)
        return written[: end.end()] if end else written
    for newline in re.finditer("\n", written):
        before = written[: newline.start()]
        if before and shape(task.prompt.prefix + before, language) is not None:
            return before.rstrip()
    return written


STATEMENT = PostProcessing(
    "first-statement",
    1,
    "in Python cut after the first line with which the file so far parses, elsewhere after the first ; { or }",
    _statement,
)


# ---- RepoBench (arXiv 2306.03091) ----


def repobench(data: Data) -> Suite:
    """Rows of RepoBench v1.1, as Parquet or as JSON lines. Nothing of what follows the line is shown."""
    path = _given(data, "repobench")
    fields = ("repo_name", "file_path", "context", "import_statement", "cropped_code", "next_line")
    read = _parquet(path, fields) if path.suffix == ".parquet" else read_path(path, fields)
    about = "the next line, with pieces of the files that a file imports"
    return _suite("repobench", about, path, read, _of_repobench, NEXT_LINE, _attempt_line)


def _of_repobench(row: Mapping[str, Any], number: int) -> Task:
    files = [File(piece["path"], piece["snippet"]) for piece in row["context"]]
    prefix = f"{row['import_statement']}\n{row['cropped_code']}\n"
    slices = {"language": _language(row["file_path"]), "level": str(row.get("level", ""))}
    prompt = Prompt(prefix, None, row["file_path"], files, row["repo_name"])
    return Task(f"{number} {row['repo_name']}/{row['file_path']}", prompt, row["next_line"], slices)


def _attempt_line(task: Task, tools: Tools) -> Outcome:
    """White space does not count where the whole is compared, as its makers have it."""
    written = NEXT_LINE.apply(task, tools.ask(task.prompt))
    scores = text_scores.scores(written, task.reference, task.slices["language"])
    return Outcome(written, scores | {"exact": float(written.split() == task.reference.split())})


def _next_line(task: Task, written: str) -> str:
    """The first that is neither blank nor a comment; the first of all where there is none such."""
    quotes = ('"""', "'''")
    opening, closing, mark = (quotes, quotes, "#") if task.slices["language"] == "Python" else ("/*", "*/", "//")
    inside = False
    lines = written.lstrip("\n").split("\n")
    for line in lines:
        text = line.strip()
        if inside:
            inside = not text.endswith(closing)
        elif text.startswith(opening):
            inside = True
        elif text and not text.startswith(mark):
            return line
    return lines[0]


NEXT_LINE = PostProcessing("next-line", 1, "the first line that is neither blank nor a comment", _next_line)


# ---- files ----


def _suite(
    name: str,
    about: str,
    path: Path,
    read: Rows,
    task_of: Callable[[Mapping[str, Any], int], Task],
    how: PostProcessing,
    attempt: Callable[[Task, Tools], Outcome],
) -> Suite:
    tasks = []
    for number, row in enumerate(read.rows, start=1):
        try:
            tasks.append(task_of(row, number))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, task {number}: not as those of {name} are ({error!r})") from error
    return Suite(name, 1, about, tasks, attempt, _METRICS, read.sha256, how, _MOST_TOKENS[name])


def _given(data: Data, name: str) -> Path:
    if not data.given:
        raise UserError(f"which file? {name}:FILE, as its makers publish it")
    return Path(data.given)


def _language(path: str) -> str:
    return language_of(path) or ""


def _parquet(path: Path, fields: Sequence[str]) -> Rows:
    if not path.is_file():
        raise UserError(f"no file of tasks at {path}")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError('reading Parquet needs pyarrow: make install EXTRAS="data"') from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
    if missing := [field for field in fields if field not in (rows or [{}])[0]]:
        raise UserError(f"{path} has no {missing[0]!r}: not the file that this suite reads")
    return Rows(rows, checksum(path))
