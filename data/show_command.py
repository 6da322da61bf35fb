"""codelm data show: one row of a batch, to look at."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from codelm.commandline import parse_with_config
from codelm.errors import UserError
from codelm.formats import Role
from codelm.tokenizer import Tokenizer
from data.loader import Loader, Row
from data.loader_options import LoaderOptions
from data.rows import PADDING
from data.writing import Written

STYLES = {
    Role.SENTINEL: "bold magenta",
    Role.PREFIX: "blue",
    Role.SUFFIX: "green",
    Role.MIDDLE: "black on yellow",
    Role.CONTEXT: "cyan",
    Role.TEXT: "",
    Role.PROMPT: "dim",
    Role.ASSISTANT: "black on yellow",
}
MARKS = "⟦⟧"  # around what is filled in or replied, where there are no colours


@dataclass(frozen=True)
class ShowOptions(LoaderOptions):
    """Print a row of the training data as the model sees it, and where it is from.

    On a terminal in colours: prefix, suffix, middle, sentinels, paths and other files; what is not learnt is struck
    through. Elsewhere middles and replies stand between ⟦ and ⟧. JSON: tokens, targets, loss_weights, positions,
    segment_ids, sources.
    """

    row: int = 0
    """Number of the row among all rows of the run: row r of step s is s * data.batch_size + r."""


def show(argv: list[str], prog: str) -> None:
    options = parse_with_config(ShowOptions, argv, prog)
    if options.row < 0:
        raise UserError(f"--row counts from 0, not {options.row}")
    loader = options.loader()
    row = loader.row(options.row)
    if options.json:
        print(json.dumps(_content(row, loader)))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in _lines(row, loader, marks="" if console.is_terminal else MARKS):
        console.print(line)


def _content(row: Row, loader: Loader) -> dict[str, Any]:
    arrays = {name: np.asarray(values).tolist() for name, values in row.arrays.items()}
    sources = [source_of(row, number, document) for number, document in enumerate(row.documents)]
    step, place = divmod(row.number, loader.batch_size)
    about = {"row": row.number, "step": step, "row_of_step": place, "source": row.source, "epoch": row.epoch}
    return {**arrays, "sources": sources, **about}


def source_of(row: Row, number: int, document: Written) -> dict[str, Any]:
    """Where one segment of the row is from."""
    files = []
    for document_number, start, stop in document.files:
        names = row.writer.store.names(document_number)
        place = {"repository": names.repository, "path": names.path, "language": names.language}
        files.append({**place, "first_token": start, "end_token": stop})
    holes = [asdict(hole) for hole in document.holes]
    return {"segment": number, "positions": document.positions, "files": files, "holes": holes}


def _lines(row: Row, loader: Loader, marks: str) -> Iterator[Text]:
    padding = int((row.arrays["segment_ids"] == PADDING).sum())
    step, place = divmod(row.number, loader.batch_size)
    head = f"row {row.number} (step {step}, row {place}) of {row.source}, epoch {row.epoch}: "
    documents = f"{len(row.documents)} document{'s' * (len(row.documents) != 1)}"
    yield Text(head + f"{documents}, {padding} of {loader.seq_len} positions are padding", "bold")
    if not marks:
        legend = (Text(role.name.lower(), style) for role, style in STYLES.items() if style)
        yield Text("colours: ") + Text("  ").join(legend)
    at = 0
    for number, document in enumerate(row.documents):
        learnt = row.arrays["loss_weights"][at : at + document.positions] > 0
        yield Text(f"\n── segment {number}, positions {at} to {at + document.positions}", "bold") + Text(
            f": {int(learnt.sum())} learnt{_holes(document)}"
        )
        for line in source_of(row, number, document)["files"]:
            where = f"{line['repository']}: {line['path']} ({line['language'] or 'conversation'})"
            yield Text(f"   {where}, tokens {line['first_token']} to {line['end_token']}", "dim")
        yield _coloured(document, [False, *learnt.tolist()], row.writer.tokenizer, marks)
        at += document.positions


def _holes(document: Written) -> str:
    told = []
    for hole in document.holes:
        how = f"{hole.mode} by {hole.chooser}" if hole.mode else "no hole"
        told.append(how + (f" ({hole.fallback})" if hole.fallback else ""))
    return "; hole: " + ", ".join(told) if told else ""


def _coloured(document: Written, learnt: list[bool], tokenizer: Tokenizer, marks: str) -> Text:
    """Runs of tokens of one kind, each decoded as a whole: a character may be several tokens."""
    text, start = Text(), 0
    kinds = list(zip(document.roles, learnt, strict=True))
    for stop in range(1, len(kinds) + 1):
        if stop < len(kinds) and kinds[stop] == kinds[start]:
            continue
        role, counts = kinds[start]
        style = STYLES[Role(role)] + ("" if counts or start == 0 else " strike")
        shown = tokenizer.decode(document.ids[start:stop], show_special=True)
        marked = marks and role in (Role.MIDDLE, Role.ASSISTANT)
        text.append(f"{marks[0]}{shown}{marks[1]}" if marked else shown, style)
        start = stop
    return text
