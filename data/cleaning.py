"""The cleaning of one document: named steps in order, each of which passes it on, changes it or drops it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter_ns

from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from data import copyright_header, fertility, licences, personal, quality, secrets
from data.document import Document, Drop, Step
from data.tally import Tally


def steps(config: CorpusConfig) -> list[tuple[str, Step]]:
    """The steps of a configuration by name, in order, without those it skips. Made anew in each process."""
    limit = config.quality
    every: list[tuple[str, Callable[[], Step]]] = [
        ("opt_out", lambda: partial(_opt_out, names=_opted_out(config.opt_out))),
        ("licence", lambda: partial(licences.licence, decide=licences.policy(config.licences))),
        ("size", lambda: partial(quality.size, limit=limit)),
        ("generated", lambda: quality.generated),
        ("minified", lambda: quality.minified),
        ("lines", lambda: partial(quality.lines, limit=limit)),
        ("alphabetic", lambda: partial(quality.alphabetic, limit=limit)),
        ("encoded", lambda: partial(quality.encoded, limit=limit)),
        ("near_empty", lambda: partial(quality.near_empty, limit=limit)),
        ("repeated", lambda: partial(quality.repeated, limit=limit)),
        ("fertility", lambda: partial(quality.fertility, limit=limit, tokens=fertility.counter(limit.tokenizer))),
        ("copyright", lambda: _copyright),
        ("secrets", lambda: _secrets),
        ("personal", lambda: _personal),
    ]
    left_out = {*config.skip, *(() if config.cut_copyright else ("copyright",))}
    return [(name, make()) for name, make in every if name not in left_out]


def clean(document: Document, steps: Sequence[tuple[str, Step]], tally: Tally) -> Document | Drop:
    """The document after every step, or the first step's reason to drop it; each step's time and text are added up."""
    for name, step in steps:
        started = perf_counter_ns()
        result = step(document, tally.counts)
        tally.nanoseconds[name] += perf_counter_ns() - started
        tally.read[name] += len(document.text)
        if isinstance(result, Drop):
            return result
        document = result
    return document


def _opted_out(path: str) -> frozenset[str]:
    if not path:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"opt_out: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return frozenset(name for line in lines if (name := _repository(line.partition("#")[0])))


def _repository(name: str) -> str:
    """As names are compared: without the host of a URL, `.git`, or capitals."""
    name = name.strip().lower().rstrip("/").removesuffix(".git")
    return "/".join(name.split("/")[3:]) if name.startswith(("https://", "http://")) else name


def _opt_out(document: Document, counts: Counter[str], names: frozenset[str]) -> Document | Drop:
    return Drop("opt_out", document.repository) if _repository(document.repository) in names else document


def _copyright(document: Document, counts: Counter[str]) -> Document:
    return _with(document, copyright_header.without_header(document.text))


def _secrets(document: Document, counts: Counter[str]) -> Document:
    return _with(document, secrets.redact(document.text, document.path, document.language, counts))


def _personal(document: Document, counts: Counter[str]) -> Document:
    return _with(document, personal.redact(document.text, counts))


def _with(document: Document, text: str) -> Document:
    return document if text is document.text or text == document.text else replace(document, text=text)
