"""Jupyter notebooks as text: code as code and markdown as comments, in cells that `# %%` begins; no outputs."""

import json
import re
from typing import Any

# How a line comment begins in the languages that notebooks are written in, where it is not `#`.
_COMMENTS = {
    word: mark
    for mark, words in {
        "//": "javascript typescript java scala kotlin groovy c c++ c# csharp f# fsharp go rust swift php dart",
        "--": "sql haskell lua",
        "%": "matlab octave prolog erlang",
        ";": "scheme racket clojure common-lisp lisp",
    }.items()
    for word in words.split()
}
_LINE_END = re.compile(r"\r\n|\r|\n")


def to_text(content: str) -> str | None:
    """A notebook (nbformat 3 or 4) in percent format, in its kernel's language; None where it is not a notebook."""
    try:
        notebook = json.loads(content)
        cells = _cells(notebook)
    except (ValueError, RecursionError):
        return None
    if cells is None:
        return None
    mark = _COMMENTS.get(_language(notebook), "#")
    return "\n".join(part for cell in cells if (part := _cell_text(cell, mark)))


def _cells(notebook: Any) -> list[Any] | None:
    """The cells in order; nbformat 3 keeps them in worksheets."""
    if not isinstance(notebook, dict):
        return None
    if isinstance(notebook.get("cells"), list):
        return notebook["cells"]
    sheets = notebook.get("worksheets")
    if not isinstance(sheets, list):
        return None
    return [cell for sheet in sheets if isinstance(sheet, dict) for cell in _list(sheet.get("cells"))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    for place, key in (("kernelspec", "language"), ("language_info", "name")):
        inside = metadata.get(place)
        if isinstance(inside, dict) and isinstance(inside.get(key), str):
            return inside[key].lower()
    return "python"


def _cell_text(cell: Any, mark: str) -> str:
    """One cell, ended by a line end; nothing for empty cells and kinds that are neither code nor prose."""
    if not isinstance(cell, dict):
        return ""
    source = cell.get("source", cell.get("input", ""))
    lines = source if isinstance(source, list) else [source]
    text = "".join(line for line in lines if isinstance(line, str)).rstrip()
    if not text.strip():
        return ""
    match cell.get("cell_type"):
        case "code":
            return f"{mark} %%\n{text}\n"
        case "heading":  # nbformat 3
            level = cell.get("level")
            text = "#" * (level if isinstance(level, int) and 1 <= level <= 6 else 1) + " " + text
        case "markdown" | "html":
            pass
        case _:
            return ""
    prose = "\n".join(f"{mark} {line}".rstrip() for line in _LINE_END.split(text))
    return f"{mark} %% [markdown]\n{prose}\n"
