"""What a batch is made of, as part of an experiment's config: rows, the mixture, fill-in-the-middle, repositories."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class SpansConfig:
    """How a middle is chosen: each chooser's share, relative to the others."""

    characters: float = 1.0
    """Between two random characters."""
    lines: float = 0.0
    """Whole lines."""
    tokens: float = 0.0
    """Between two random tokens."""
    syntax: float = 0.0
    """A whole node of the syntax tree, larger ones more often; needs a tree-sitter grammar of the language."""
    causal: float = 0.0
    """Language Causal Masking: from where a completion would be offered to the end of the line."""
    several: float = 0.0
    """Several holes in one document, filled one after the other: a Poisson number of mean one, and at least one."""


@dataclass(frozen=True)
class FimConfig:
    """Fill-in-the-middle: documents with a hole, and what fills it at their end."""

    rate: float = 0.5
    """Share of the documents that get a hole."""
    spm: float = 0.5
    """Share of those that are written suffix first; the rest prefix first."""
    spans: SpansConfig = field(default_factory=SpansConfig)
    empty: float = 0.0
    """Share of the holes that nothing fills: where a model learns to add nothing."""
    repository: Literal["last", "each"] = "last"
    """Files of a repository document with a hole: the last one of the row, or each with probability `rate`."""
    causal_context: int = 0
    """Tokens around a hole that spans.causal chose, 70 % before and 30 % after; 0 = all there is. The rest of the
    text stays in the row as documents of its own."""


@dataclass(frozen=True)
class RepositoryConfig:
    """Documents made of the files of one repository, for sources of level repository."""

    order: Literal["random", "path", "imports"] = "random"
    """Order of the files; imports: what a file imports comes before it."""
    tests_beside: bool = False
    """A test follows the file it tests."""


@dataclass(frozen=True)
class SourceConfig:
    """One source of the mixture."""

    corpus: str = ""
    """A folder made by `codelm data build`, or a JSONL file of chats; empty = the experiment's own corpus."""
    level: Literal["file", "repository", "chat"] = "file"
    """A document is a file, the files of a repository joined, or a conversation of which replies are learnt."""
    weight: tuple[float, ...] = (1.0,)
    """Share of the rows, relative to the other sources; several: one for each part that data.boundaries cuts."""
    languages: tuple[str, ...] = ()
    """Languages to take; empty = all."""


@dataclass(frozen=True)
class DataConfig:
    """What one batch is made of."""

    seq_len: int = 2048
    """Tokens in a row."""
    batch_size: int = 32
    """Rows in a global batch, over all hosts."""
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    """What is mixed."""
    boundaries: tuple[int, ...] = ()
    """Steps from which the next of every source's weights holds."""
    temperature: float = 1.0
    """Evens out the languages of a source: shares go with tokens to the power of 1 / temperature."""
    long_tokens: int = 0
    """Documents of so many tokens are long; 0 = none is."""
    long_weight: float = 1.0
    """How much oftener than others long documents are drawn."""
    packing: Literal["best_fit", "concatenate"] = "best_fit"
    """best_fit: documents are cut only if longer than a row. concatenate: one after the other, cut where a row ends."""
    metadata: float = 0.5
    """Share of the documents that begin with their path, and their repository's name."""
    fim: FimConfig = field(default_factory=FimConfig)
    repository: RepositoryConfig = field(default_factory=RepositoryConfig)
