"""`codelm tokenizer train | inspect | extend`."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from codelm import text_files, tokenizer, tokenizer_training
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.publish import check_writable, write_atomically
from codelm.sentencepiece_tokenizer import from_proto
from codelm.text_files import TextFile
from codelm.tokenizer import Tokenizer

Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH…")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class TrainOptions:
    """Train a SentencePiece BPE tokenizer for code on files and folders."""

    out: Path
    """Where the tokenizer.model goes."""
    paths: Paths
    """Files, and folders whose source files are read."""
    vocab_size: int = 32_768
    """Pieces, special tokens and bytes included: 4096 to 262144 (from 512 for experiments)."""
    max_bytes: int = tokenizer_training.DEFAULT_MAX_BYTES
    """Text to learn from; a larger corpus is sampled evenly by line. Memory is about 12 times this."""
    seed: int = 0
    """Seed of the sample."""
    threads: int = 2
    """Threads of the learner."""


def train(argv: list[str], prog: str) -> None:
    options = parse(TrainOptions, argv, prog)
    check_writable(options.out)
    files = text_files.find(list(options.paths))
    total = sum(file.size for file in files)
    print(f"{len(files):,} files, {total / 1e6:,.1f} MB", file=sys.stderr)
    start = time.monotonic()
    lines = tokenizer_training.sample(_with_progress(files, total), total, options.max_bytes, options.seed)
    # The learner is C++ and would not see Ctrl-C before its end. Nothing is written until then, so let it kill.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        proto = tokenizer_training.train(lines, options.vocab_size, options.threads)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    write_atomically(options.out, proto)
    print(f"wrote {options.out} ({options.vocab_size:,} pieces) in {time.monotonic() - start:.0f} s")


def _with_progress(files: list[TextFile], total: int) -> Iterator[str]:
    """Lines of all files, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=total)
        for file in files:
            yield from text_files.lines(file)
            progress.advance(task, file.size)
    print("learning the pieces …", file=sys.stderr)


@dataclass(frozen=True)
class InspectOptions:
    """Show what a tokenizer holds and, given text, how well it fits: bytes/token, fertility, exactness."""

    file: File
    """A tokenizer.model, a tokenizer.json, or a folder with one of them."""
    paths: Paths = ()
    """Files and folders to measure it on."""


def inspect(argv: list[str], prog: str) -> None:
    options = parse(InspectOptions, argv, prog)
    tokens = tokenizer.load(options.file)
    _print_vocabulary(options.file, tokens)
    if options.paths:
        _print_fit(tokens, text_files.find(list(options.paths)))


def _print_vocabulary(file: Path, tokens: Tokenizer) -> None:
    whitespace = [piece.decode() for piece in tokens.pieces if piece and not piece.strip()]
    longest = sorted((piece for piece in tokens.pieces if piece.strip()), key=len, reverse=True)[:8]
    spare = [name for name in tokens.special if name.startswith("<|spare_")]
    named = [name for name in tokens.special if name not in spare]
    print(f"{file}: {tokens.vocab_size:,} pieces, {256 - tokens.byte_ids.count(None)} of 256 bytes")
    print(f"special     {len(tokens.special)}: {' '.join(named)}{f' and {len(spare)} spare' if spare else ''}")
    print(f"white space {len(whitespace)}: {' '.join(_visible(piece) for piece in whitespace)}")
    print(f"longest     {' '.join(repr(piece.decode(errors='replace')) for piece in longest)}")


def _visible(whitespace: str) -> str:
    """Runs as their length and kind: 4s is four spaces."""
    if len(set(whitespace)) == 1 and len(whitespace) > 1:
        return f"{len(whitespace)}{_visible(whitespace[0])}"
    return {" ": "s", "\t": "t"}.get(whitespace, repr(whitespace)[1:-1])


def _print_fit(tokens: Tokenizer, files: list[TextFile]) -> None:
    """Per language: bytes/token (more is shorter sequences) and fertility, tokens per word (less is better)."""
    size, count, words, read = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    inexact: list[Path] = []
    skipped = 0
    start = time.monotonic()
    for file in files:
        text = "".join(text_files.lines(file))
        if not text:
            skipped += 1
            continue
        ids = tokens.encode(text)
        if tokens.decode(ids) != text:
            inexact.append(file.path)
        size[file.language] += len(text.encode(errors="surrogatepass"))
        count[file.language] += len(ids)
        words[file.language] += len(text.split())
        read[file.language] += 1
    if not count:
        raise UserError("nothing to measure on: every file is empty or binary")
    rate = count.total() / (time.monotonic() - start)
    print(f"\n{'language':18}{'files':>8}{'MB':>10}{'bytes/token':>13}{'fertility':>11}")
    rows = [(name, read[name], size[name], count[name], words[name]) for name, _ in size.most_common()]
    rows.append(("all", read.total(), size.total(), count.total(), words.total()))
    for name, files_read, total, ids, split in rows:
        print(f"{name:18}{files_read:>8,}{total / 1e6:>10,.2f}{total / ids:>13.2f}{ids / max(split, 1):>11.2f}")
    print(f"\n{rate / 1e6:.2f}M tokens/s{f'; skipped {skipped:,} empty or binary files' if skipped else ''}")
    if inexact:
        print(f"NOT exact (decode(encode(text)) != text) on {len(inexact):,} files, for example {inexact[0]}")
    else:
        print("exact on every file: decode(encode(text)) == text")


@dataclass(frozen=True)
class ExtendOptions:
    """Add pieces to the end of a SentencePiece tokenizer.

    The model's new embedding rows: codelm.tokenizer_training.extend_embedding."""

    file: File
    """The tokenizer.model to extend."""
    out: Path
    """Where the extended one goes."""
    pieces: tuple[str, ...] = ()
    """Texts that become one piece each, always cut out whole."""
    specials: tuple[str, ...] = ()
    """Names of special tokens, which text never becomes."""


def extend(argv: list[str], prog: str) -> None:
    options = parse(ExtendOptions, argv, prog)
    if not options.pieces and not options.specials:
        raise UserError("nothing to add: give --pieces or --specials")
    if not options.file.is_file() or options.file.suffix == ".json":
        raise UserError(f"{options.file} is not a tokenizer.model; only SentencePiece models can be extended")
    proto = tokenizer_training.extend(options.file.read_bytes(), options.pieces, options.specials)
    write_atomically(options.out, proto)
    print(f"wrote {options.out} ({from_proto(proto).vocab_size:,} pieces)")
