"""`codelm complete` and `codelm generate`: text from a model, as it is written."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from codelm import lm
from codelm.caches import keep_compiled
from codelm.commandline import parse
from codelm.errors import UserError
from infer.completing import engine_of, infill
from infer.prompts import text_ends, tokenizer_of
from infer.request import Request, Timing
from infer.sampling import Sampling
from infer.stats import Stats

Model = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are chosen."""

    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Choose among so many of the likeliest; 0 = all."""
    top_p: float = 1.0
    """Choose among the likeliest that make up this share."""
    min_p: float = 0.0
    """Leave out what is less likely than this times the likeliest."""
    repetition_penalty: float = 1.0
    """Makes tokens that were there before less likely; 1 = not."""
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Those of `infer.sampling.Sampling`."""
        return {name: value for name, value in asdict(self).items() if name != "seed"}


@dataclass(frozen=True)
class CompleteOptions:
    """Write what belongs at the cursor of a file."""

    run: Model
    """A run, a checkpoint or a Hugging Face folder."""
    file: Path
    """The file; - reads standard input."""
    cursor: str
    """LINE:COL, both from 1: the text goes before that character."""
    n: int = 1
    """Completions to write; from 2 on by sampling, at temperature 0.4 if none is given."""
    max_new_tokens: int = 64
    mode: Literal["", "psm", "spm"] = ""
    """Which comes first, prefix or suffix; empty = as the model's makers do."""
    format: str = ""
    """The prompt format; empty = the model's own, or the one its tokenizer has the tokens of."""
    heal: Literal["none", "prefix", "both"] = "prefix"
    """Where to take back tokens that the cursor may have cut, and write them again whole."""
    stop: tuple[str, ...] = ()
    """Texts to stop before."""
    stats: bool = False
    """Show where the time went."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)


def complete(argv: Sequence[str], prog: str) -> None:
    options = parse(CompleteOptions, argv, prog)
    prefix, suffix = at_cursor(_read(options.file), options.cursor)
    keep_compiled()
    model = lm.load(options.run)
    sampling = options.sampling
    if options.n > 1 and sampling.temperature == 0:
        sampling = replace(sampling, temperature=0.4)
    [completions] = infill(
        model,
        [(prefix, suffix)],
        options.max_new_tokens,
        n=options.n,
        mode=options.mode or None,
        sampling=sampling.settings(),
        seed=sampling.seed,
        stop=options.stop,
        heal="" if options.heal == "none" else options.heal,
        family=options.format,
    )
    for i, completion in enumerate(completions):
        if options.n > 1:
            print(f"── {i + 1} of {options.n}, mean log-probability {completion.mean_logprob:.2f} ──")
        print(completion.text)
    if options.stats:
        _show(completions[0].timing, engine_of(model).stats())


@dataclass(frozen=True)
class GenerateOptions:
    """Write what follows a text."""

    run: Model
    """A run, a checkpoint or a Hugging Face folder."""
    prompt: str
    """The text; - reads standard input."""
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    """Texts to stop before."""
    stats: bool = False
    """Show where the time went."""
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(default_factory=SamplingOptions)


def generate(argv: Sequence[str], prog: str) -> None:
    options = parse(GenerateOptions, argv, prog)
    prompt = _read(Path("-")) if options.prompt == "-" else options.prompt
    keep_compiled()
    model = lm.load(options.run)
    engine = engine_of(model)
    tokenizer = tokenizer_of(model)
    request = Request(
        tokenizer.encode_document(prompt),
        options.max_new_tokens,
        Sampling(**options.sampling.settings()),
        options.sampling.seed,
        stop_ids=text_ends(tokenizer),
        stop=options.stop,
    )
    stream = engine.submit(request)
    print(prompt, end="", flush=True)
    for event in stream:
        print(event.text, end="", flush=True)
        if event.finish == "error":
            raise UserError(event.error)
    print()
    if options.stats:
        _show(stream.timing, engine.stats())


def at_cursor(text: str, cursor: str) -> tuple[str, str]:
    """The text before and after LINE:COL."""
    try:
        line, column = (int(part) for part in cursor.split(":"))
    except ValueError:
        raise UserError(f"cursor {cursor!r} is not LINE:COL, such as 12:5") from None
    lines = text.splitlines(keepends=True) or [""]
    if text.endswith(("\n", "\r")):
        lines.append("")  # a cursor may stand after the last line's end
    if not 1 <= line <= len(lines):
        raise UserError(f"cursor {cursor}: the file has {len(lines)} lines")
    width = len(lines[line - 1].rstrip("\r\n"))
    if not 1 <= column <= width + 1:
        raise UserError(f"cursor {cursor}: line {line} has {width} characters, so columns 1 to {width + 1}")
    at = sum(len(before) for before in lines[: line - 1]) + column - 1
    return text[:at], text[at:]


def _read(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _show(timing: Timing, stats: Stats) -> None:
    """On stderr, so that what was written can be piped."""
    table = Table(box=None, show_header=False)
    tokens = max(timing.new_tokens - 1, 0)
    for name, value in (
        ("prompt", f"{timing.prompt_tokens:,} tokens, {timing.cached_tokens:,} of them cached"),
        ("queue", f"{1e3 * timing.queue:.1f} ms"),
        ("prefill", f"{1e3 * timing.prefill:.1f} ms"),
        ("first token", f"{1e3 * timing.to_first_token:.1f} ms after arrival"),
        ("decode", f"{timing.new_tokens:,} tokens, {tokens / max(timing.decode, 1e-9):,.1f} a second"),
        *([("drafts", f"{timing.accepted:,} of {timing.drafted:,} tokens were right")] if timing.drafted else []),
        (
            "pages",
            ", ".join(f"{count.free:,} free, {count.cached:,} cached, {count.held:,} held" for count in stats.pages),
        ),
        ("programs", f"{stats.compilations:,} compiled or loaded meanwhile: the times above have that in them"),
    ):
        table.add_row(name, value)
    Console(stderr=True).print(table)
