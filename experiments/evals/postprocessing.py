"""What is done to completions before they are scored. A change of what one gives is a new version of it."""

from experiments.evals.suite import PostProcessing, Task

_CLOSING = ")]}"


def _body(task: Task, text: str) -> str:
    """Up to the first line after the beginning that is not indented, blank lines and closing brackets aside."""
    lines = text.split("\n")
    outside = (
        n for n, line in enumerate(lines) if n and line.strip() and not line[0].isspace() and line[0] not in _CLOSING
    )
    return "\n".join(lines[: next(outside, len(lines))])


def _first_line(task: Task, text: str) -> str:
    return text.split("\n", 1)[0]


BODY = PostProcessing(
    "function-body", 1, "cut before the first line that is not indented (closing brackets may stand there)", _body
)
FIRST_LINE = PostProcessing("first-line", 1, "cut after the first line", _first_line)
