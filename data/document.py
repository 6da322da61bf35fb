"""What the corpus is made of: a file as a source found it, a document, and why one was dropped."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Raw:
    """One file as a source found it, not yet looked at."""

    content: bytes | str
    path: str
    """Within the repository, with slashes."""
    repository: str = ""
    language: str = ""
    """What the source says it is; empty = to be told from the path and the text."""
    licences: tuple[str, ...] = ()
    """SPDX identifiers that the source knows for the file or its repository."""
    provenance: str = ""
    """Where it came from, for a person to find it again: a URL or name, `@` a commit or version."""
    stars: int = 0
    date: int = 0
    """Unix time of the newest change that the source knows of."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that a source could not read: counted and listed, never fatal."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A file, or a row of one, above the size limit: never read into memory."""

    path: str
    repository: str
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Document:
    text: str
    path: str
    repository: str
    language: str
    licence: str
    """SPDX identifiers joined by ` AND `; empty = none known."""
    provenance: str
    stars: int = 0
    date: int = 0


@dataclass(frozen=True, slots=True)
class Drop:
    """A document left out: the step's name, and what it saw."""

    reason: str
    detail: str = ""
    licence: str = ""
    """What the document's licence turned out to be, where the step found out."""


# One cleaning step: the document, changed or not, or why it is dropped. What a step counts besides (secrets replaced,
# by kind) it adds to the counter.
Step = Callable[[Document, Counter[str]], Document | Drop]
