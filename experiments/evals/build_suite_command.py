"""`codelm eval build-suite`: a suite of holes out of repositories."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from codelm import __version__
from codelm.commandline import parse
from codelm.errors import UserError, nearest
from codelm.languages import LANGUAGES, known_language
from codelm.publish import check_writable
from codelm.sandbox import Pool
from experiments.evals import build_suite as builder
from experiments.evals import repository_documents, repository_rows
from experiments.evals.build_suite import Settings
from experiments.evals.repository_documents import Documents
from experiments.evals.repository_rows import Row

Languages = Annotated[tuple[str, ...], tyro.conf.arg(metavar="LANGUAGE…")]


@dataclass(frozen=True)
class BuildSuiteOptions:
    """Make a suite out of repositories: hidden lines, blocks, function bodies and uses of APIs, with files beside them.

    codelm eval RUN --suite repository:OUT measures by it, repository-nocontext:OUT without the files beside.

    Of a corpus that `codelm data build` made only what it holds out is taken, so that no model trained on it has seen
    any of the suite.
    """

    repositories: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPO_DIR")]
    """A repository, a folder of repositories, or a corpus."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The suite goes here, a folder that does not exist yet."""
    languages: Languages = ()
    """Only these; by default all that have a grammar."""
    per_kind: int = 50
    """The most holes of each kind in each language."""
    files: int = 20
    """The most files of each repository that get holes."""
    seed: int = 0
    unseen_by: Path | None = None
    """A corpus: leave out repositories and files that it trains on."""
    execution: bool = True
    """Run the examples in docstrings and the unit tests, so that what fills a hole that they cover is scored by them
    too."""
    unsafe_sandbox: bool = False
    """Run them without bubblewrap: they can then read your files and use the network."""


def build_suite(argv: Sequence[str], prog: str) -> None:
    options = parse(BuildSuiteOptions, argv, prog)
    for name, least in (("per_kind", 1), ("files", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(options, name)}")
    repository_rows.check_free(options.out)
    check_writable(options.out / repository_rows.ROWS)
    languages = tuple(_language(name) for name in options.languages)
    settings = Settings(languages, options.per_kind, options.files, options.seed)
    documents = repository_documents.read(options.repositories, options.unseen_by)
    with ExitStack() as stack:
        pool = stack.enter_context(Pool(unsafe=options.unsafe_sandbox)) if options.execution else None
        rows = builder.build(documents, settings, pool)
    if not rows:
        raise UserError(f"no place for a hole in the files under {options.repositories}; --languages names others")
    manifest = repository_rows.write(options.out, rows, _about(documents, settings, rows))
    print(_summary(manifest))
    print(f"{options.out}: made of {documents.about}", file=sys.stderr)


def _language(name: str) -> str:
    known = known_language(name)
    if known is None:
        raise UserError(f"no language {name!r}; nearest: {nearest(name, list(LANGUAGES))}")
    return known


def _about(documents: Documents, settings: Settings, rows: Sequence[Row]) -> dict[str, Any]:
    """What a manifest says besides counts."""
    tasks = {name: sum(row.repository == name for row in rows) for name in documents.by_repository}
    return {
        "codelm": __version__,
        "about": documents.about,
        "origin": dict(documents.origin),
        "seed": settings.seed,
        "per_kind": settings.per_kind,
        "files": settings.files,
        "repositories": [
            {"name": name, "provenance": files[0].provenance, "licence": files[0].licence, "tasks": tasks[name]}
            for name, files in documents.by_repository.items()
            if tasks[name]
        ],
    }


def _summary(manifest: dict[str, Any]) -> str:
    lines = [
        f"{language:16}" + "".join(f"{count:>8,} {kind}" for kind, count in kinds.items())
        for language, kinds in manifest["counts"].items()
    ]
    return "\n".join([*lines, f"{manifest['tasks']:,} tasks, {manifest['executed']:,} of them scored by execution"])
