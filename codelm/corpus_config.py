"""What a corpus is made of and what is kept out of it, as part of an experiment's config."""

from dataclasses import dataclass, field
from typing import Literal

Step = Literal[
    "opt_out",
    "licence",
    "size",
    "generated",
    "minified",
    "lines",
    "alphabetic",
    "encoded",
    "near_empty",
    "repeated",
    "fertility",
    "secrets",
    "personal",
    "decontaminate",
    "exact_duplicates",
    "near_duplicates",
]


@dataclass(frozen=True)
class QualityConfig:
    """Limits on one file; what is outside them is dropped."""

    max_bytes: int = 1_048_576
    """Largest file, in bytes; larger ones are not read."""
    max_lines: int = 100_000
    """Most lines."""
    max_line_length: int = 1000
    """Longest line, in characters; tenfold in text and data (Markdown, HTML, JSON, SQL, …), as is the mean."""
    max_mean_line_length: float = 100.0
    """Longest mean line, in characters."""
    min_alphabetic: float = 0.25
    """Least share of letters among the characters."""
    max_encoded_run: int = 1024
    """Longest run of base64, hexadecimal or escaped bytes, in characters."""
    min_characters: int = 32
    """Least characters that are not white space."""
    max_repeated_lines: float = 0.5
    """Largest share of the characters in lines that the file already had (lines of 16 characters and more)."""
    min_characters_per_token: float = 1.8
    """Least characters a token; data tables in source form have few. Counted with `tokenizer`, or estimated."""
    tokenizer: str = ""
    """Counts tokens for min_characters_per_token: a tokenizer.model or tokenizer.json; empty = a lexical estimate."""


@dataclass(frozen=True)
class LicenceConfig:
    """Which licences a document may have, as SPDX identifiers; the default is what Blue Oak and OSI call permissive."""

    allow: tuple[str, ...] = ("permissive",)
    """SPDX identifiers, or `permissive` for the permissive ones in data/licences.py, or `any`."""
    deny: tuple[str, ...] = ()
    """SPDX identifiers to refuse even where allowed."""
    unlicensed: Literal["keep", "drop"] = "drop"
    """What to do with documents of which no licence is known."""


@dataclass(frozen=True)
class DedupConfig:
    """Which documents say the same thing, and which of them stays."""

    level: Literal["file", "repository"] = "file"
    """Compare files, or whole repositories by the union of their files."""
    threshold: float = 0.7
    """Jaccard similarity of shingle sets from which two documents are near-duplicates."""
    permutations: int = 256
    """Length of a MinHash signature."""
    shingle: int = 5
    """Words in a shingle."""
    keep: tuple[Literal["stars", "newest", "path"], ...] = ("stars", "newest", "path")
    """Which copy stays: most stars, then newest, then the plainest path (not vendored, not a copy, shortest)."""


@dataclass(frozen=True)
class CorpusConfig:
    """From sources to a clean dataset: `codelm data build`."""

    sources: tuple[str, ...] = ("stdlib",)
    """stdlib | packages[:NAME,…] | repositories:FOLDER | files:PATH-or-GLOB | tfds:NAME[:SPLIT] | hf:NAME[:SPLIT]."""
    languages: tuple[str, ...] = ()
    """Languages to keep; empty = every language the table knows."""
    opt_out: str = ""
    """A file of repository names to leave out, one a line."""
    skip: tuple[Step, ...] = ()
    """Steps not to take."""
    cut_copyright: bool = False
    """Cut the comment with the licence off the head of a file; by default it stays."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    licences: LicenceConfig = field(default_factory=LicenceConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    validation: float = 0.02
    """Share of the repositories held out for validation."""
    benchmarks: str = ""
    """A folder of JSONL benchmarks that no document may overlap; empty = CODELM_BENCHMARKS, or no decontamination."""
