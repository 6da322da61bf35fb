"""codelm data stats: what the training data of a config is made of, before it is trained on."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from codelm.commandline import parse_with_config
from codelm.config import resolve
from codelm.errors import UserError
from codelm.progress import Bar
from data import arrangement, file_order
from data.loader import Loader, Row
from data.loader_options import LoaderOptions
from data.rows import PADDING

LEVELS = {"file": "files", "repository": "repositories", "chat": "conversations"}
_BAR = 40  # characters of the longest bar


@dataclass(frozen=True)
class StatsOptions(LoaderOptions):
    """Print rows, padding and lengths of each source, and from a sample of rows: holes, fallbacks, dependencies."""

    rows: int = 1000
    """Rows to look at, evenly over the run."""


def stats(argv: list[str], prog: str) -> None:
    options = parse_with_config(StatsOptions, argv, prog)
    if options.rows < 1:
        raise UserError(f"--rows must be at least 1, not {options.rows}")
    loader, steps = options.loader(), resolve(options.config).train.steps
    content = {"strata": _strata(loader, steps), "lengths": _lengths(loader), "sample": _sample(loader, options, steps)}
    if options.json:
        print(json.dumps(content, indent=1))
        return
    _print(content, loader.seq_len)


def _strata(loader: Loader, steps: int) -> list[dict[str, Any]]:
    epochs = loader.epochs(steps)
    return [
        {
            **{name: value for name, value in asdict(rows.stratum).items() if name not in ("name", "first")},
            "source": rows.name,
            "unfilled_share": rows.stratum.unfilled / (rows.stratum.rows * loader.seq_len),
            "epochs": epochs[rows.name],
        }
        for rows in loader.strata
    ]


def _lengths(loader: Loader) -> dict[str, dict[str, int]]:
    """Of each corpus: files, or repositories where those are the documents, by tokens in powers of two."""
    found = {}
    for writer in {(rows.writer.store.folder, rows.writer.level): rows.writer for rows in loader.strata}.values():
        tokens, what = writer.store.documents["tokens"].astype(np.int64), LEVELS[writer.level]
        if writer.level == "repository":
            _, owner = np.unique(writer.store.documents["repository"], return_inverse=True)
            tokens = np.bincount(owner, tokens)
        counts = Counter((np.frexp(np.maximum(tokens, 1).astype(np.float64))[1] - 1).tolist())
        by_size = {str(2**power): counts[power] for power in range(min(counts), max(counts) + 1)}
        found[f"{what} of {writer.store.manifest['corpus']}"] = by_size
    return found


def _sample(loader: Loader, options: StatsOptions, steps: int) -> dict[str, Any]:
    """What a sample of rows holds."""
    total = steps * loader.batch_size
    count = min(options.rows, total)
    holes, padding, documents, linked, joined = Counter[str](), 0, 0, 0, 0
    with Bar("looking at", count, "rows") as bar:
        for number in np.linspace(0, total - 1, count).astype(int).tolist():
            row = loader.row(number)
            holes.update(_holes(row))
            padding += int((row.arrays["segment_ids"] == PADDING).sum())
            documents += len(row.documents)
            windows = list(_windows(row))
            joined += bool(windows)
            linked += any(windows)
            bar.advance(1)
    shares = {"padding_share": padding / (count * loader.seq_len), "documents_per_row": documents / count}
    several = {"rows_with_several_files": joined, "of_them_with_a_dependency_inside": linked}
    return {"rows": count, **shares, "documents": documents, "holes": dict(holes.most_common()), **several}


def _holes(row: Row) -> Iterator[str]:
    for document in row.documents:
        for hole in document.holes:
            yield f"{hole.mode} {hole.chooser}" if hole.mode else "none"
            if hole.fallback:
                yield f"because {hole.fallback}"


def _windows(row: Row) -> Iterator[bool]:
    """For each document of several files, whether one of them is preceded by a file that it imports."""
    for document in row.documents:
        if len(document.files) > 1:
            names = [row.writer.store.names(file) for file, _, _ in document.files]
            yield bool(file_order.satisfied(range(len(names)), arrangement.graph(names)))


def _print(content: dict[str, Any], seq_len: int) -> None:
    console, sample = Console(highlight=False), content["sample"]
    table = Table(
        "source", "documents", "longer than a row", "tokens", "rows", "unfilled", "dropped", "epochs", box=None
    )
    for row in content["strata"]:
        counts = [f"{row[name]:,}" for name in ("documents", "cut", "tokens", "rows")]
        table.add_row(
            row["source"], *counts, f"{row['unfilled_share']:.2%}", f"{row['dropped']:,}", f"{row['epochs']:.2f}"
        )
    console.print(table)
    for corpus, lengths in content["lengths"].items():
        console.print(f"\n{corpus} by tokens (a row has {seq_len:,})")
        most = max(lengths.values())
        for power, count in lengths.items():
            console.print(f"  from {int(power):>9,} {count:>10,}  {'█' * round(_BAR * count / most)}")
    console.print(f"\nin {sample['rows']:,} rows of the run: {sample['padding_share']:.2%} padding, ", end="")
    console.print(f"{sample['documents_per_row']:.2f} documents a row; holes, and how many for a hundred documents:")
    for name, count in sample["holes"].items():
        console.print(f"  {count:>10,}  {count / sample['documents']:>6.1%}  {name}")
    if several := sample["rows_with_several_files"]:
        linked = sample["of_them_with_a_dependency_inside"]
        console.print(f"  {linked:,} of {several:,} rows with files of a repository have a file after one it imports")
