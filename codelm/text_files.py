"""Text out of files and folders, a line at a time, in memory bounded by the longest line kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codelm.errors import UserError
from codelm.languages import language_of

MAX_LINE = 4096  # characters; longer lines come in several parts


@dataclass(frozen=True)
class TextFile:
    path: Path
    language: str
    size: int


def find(paths: list[Path]) -> list[TextFile]:
    """The text files under the paths, sorted: those named, and in folders those whose name says a language."""
    if not paths:
        raise UserError("which text? give files or folders")
    files: list[TextFile] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if not any(part.startswith(".") for part in p.parts[len(path.parts) :])
            )
            files += [_text_file(p, language) for p in inside if (language := language_of(p)) and p.is_file()]
        elif path.is_file():
            files.append(_text_file(path, language_of(path) or "Text"))
        else:
            raise UserError(f"no file or folder at {path}")
    if not files:
        raise UserError(f"no text files under {', '.join(map(str, paths))}")
    return files


def _text_file(path: Path, language: str) -> TextFile:
    return TextFile(path, language, path.stat().st_size)


def lines(file: TextFile) -> Iterator[str]:
    """Lines, ends kept as they are. A binary file has none; bytes that are not UTF-8 become lone surrogates."""
    with file.path.open("rb") as raw:
        if b"\0" in raw.read(8192):
            return
    with file.path.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        while line := text.readline(MAX_LINE):
            yield line
