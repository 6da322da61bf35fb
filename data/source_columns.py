"""Rows of datasets as documents: the column names of The Stack (v1, v2), of GitHub dumps and of plain `text`."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from codelm.errors import UserError
from codelm.languages import known_language, language_of
from data.document import Raw, TooLarge, Unreadable

# For each thing a document has: the columns it may be in, best first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("content", "text", "code"),
    "path": ("path", "max_stars_repo_path", "file_path", "filename", "file_name"),
    "repository": ("repo_name", "max_stars_repo_name", "repository", "repo", "repository_name"),
    "language": ("language", "lang", "programming_language"),
    "extension": ("extension", "ext"),
    "licences": (
        "detected_licenses",
        "max_stars_repo_licenses",
        "licenses",
        "licences",
        "license",
        "licence",
    ),
    "stars": ("star_events_count", "max_stars_count", "stars", "stargazers_count"),
    "commit": ("revision_id", "max_stars_repo_head_hexsha", "commit", "commit_id"),
    "provenance": ("provenance", "url", "source_url"),
    "date": (
        "committer_date",
        "revision_date",
        "visit_date",
        "max_stars_repo_stars_event_max_datetime",
        "date",
        "timestamp",
    ),
}
NESTED = ("meta", "metadata")
KNOWN = frozenset(name for names in COLUMNS.values() for name in names) | set(NESTED)


def text_column(columns: Iterable[str]) -> str | None:
    columns = set(columns)
    return next((name for name in COLUMNS["text"] if name in columns), None)


def no_text(where: str, columns: Iterable[str]) -> UserError:
    """What to tell the user of a file whose columns hold no text."""
    listed = ", ".join(sorted(columns)[:30]) or "none"
    return UserError(
        f"{where} has no text column: it has {listed}; understood are {', '.join(COLUMNS['text'])} "
        "(The Stack v2 as published holds no content, only identifiers: fetch the content first)"
    )


def to_item(row: Mapping[str, Any], file: str, position: int, max_bytes: int) -> Raw | TooLarge | Unreadable:
    """A document of a row; `file` and `position` name it where the row has no path of its own."""
    where = f"{file}:{position}"
    row = {**_nested(row), **row}
    text = _first(row, "text")
    if not isinstance(text, str | bytes):
        return Unreadable(where, f"no text in {' or '.join(COLUMNS['text'])}")
    repository, commit = _word(row, "repository"), _word(row, "commit")
    path, language = _path(row, where)
    if (size := _size(text, max_bytes)) > max_bytes:
        return TooLarge(path, repository, size)
    found = f"{repository}@{commit}" if repository and commit else repository or where
    return Raw(
        text,
        path,
        repository,
        language=language,
        licences=_licences(_first(row, "licences")),
        provenance=_word(row, "provenance") or found,
        stars=_number(_first(row, "stars")),
        date=_time(_first(row, "date")),
    )


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    inside: dict[str, Any] = {}
    for name in NESTED:
        if isinstance(row.get(name), Mapping):
            inside |= row[name]
    return inside


def _first(row: Mapping[str, Any], what: str) -> Any:
    """The first of the columns for it that says anything."""
    return next((row[name] for name in COLUMNS[what] if row.get(name) is not None), None)


def _word(row: Mapping[str, Any], what: str) -> str:
    value = _first(row, what)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _size(text: str | bytes, max_bytes: int) -> int:
    """Bytes of the text; counted only where the characters leave it open whether they are too many."""
    if isinstance(text, bytes) or not len(text) <= max_bytes < 4 * len(text):
        return len(text)
    return len(text.encode(errors="surrogatepass"))


def _path(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Path and language. A row of which nothing is known is prose."""
    path, extension = _word(row, "path"), _word(row, "extension").lstrip(".")
    language = known_language(_word(row, "language")) or ""
    if path:
        return path.replace("\\", "/").lstrip("/"), language
    path = f"{where}.{extension}" if extension else where
    return path, language or ("" if extension and language_of(path) else "Text")


def _licences(value: Any) -> tuple[str, ...]:
    from data.licences import normalise

    if isinstance(value, str | bytes):
        value = [value]
    if not isinstance(value, Iterable):
        return ()
    names = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in value]
    return tuple(dict.fromkeys(normalise(name) or name for name in names if isinstance(name, str) and name.strip()))


def _number(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError, OverflowError):  # a NaN among them
        return 0


def _time(value: Any) -> int:
    """Unix time of a date: a `datetime`, ISO text, or a number of seconds or one of its thousandths."""
    try:
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        number = int(value or 0)
        while number > 10**11:  # seconds until the year 5138
            number //= 1000
        return max(number, 0)
    except (TypeError, ValueError, OverflowError):
        return 0
