"""One unit of a source through every per-document step, into a part: what runs on each worker, local or Beam."""

import dataclasses
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from etils import epath
from jaxtyping import UInt8, UInt32

from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from codelm.languages import language_of
from data import (
    benchmarks,
    cleaning,
    decoding,
    licences,
    minhash,
    notebooks,
    parts,
    personal,
    secrets,
    shingles,
    sources,
)
from data.document import Document, Drop, Raw, Step, TooLarge, Unreadable
from data.tally import Tally

VERSION = 1  # of what the steps do: raise it when a step gives another result for the same config


@dataclass(frozen=True)
class Recipe:
    """All that cleaning depends on."""

    corpus: CorpusConfig
    benchmarks: str = ""
    """The folder of benchmarks, resolved; empty = none."""

    def fingerprint(self) -> str:
        """Over what cleaning reads of the config, and the content of the files it names."""
        config = dataclasses.asdict(self.corpus)
        wanted = {name: config[name] for name in ("languages", "skip", "cut_copyright", "quality", "licences")}
        signature = [self.corpus.dedup.level, self.corpus.dedup.permutations, self.corpus.dedup.shingle]
        named = [_digest(path) for path in (self.corpus.opt_out, self.corpus.quality.tokenizer)]
        files = list(map(str, benchmarks.find(epath.Path(self.benchmarks)))) if self.benchmarks else []
        content = [VERSION, parts.VERSION, wanted, signature, named, [_digest(path) for path in files]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    unit: sources.Unit
    recipe: Recipe
    folder: str
    """Where parts go."""
    key: str
    """Names the part."""


def task(unit: sources.Unit, recipe: Recipe, fingerprint: str, folder: str) -> Task:
    content = json.dumps([fingerprint, dataclasses.astuple(unit)])
    return Task(unit, recipe, folder, hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16])


def run(task: Task) -> None:
    """Clean the unit, unless its part is there and intact."""
    folder = epath.Path(task.folder)
    part = parts.find(folder, task.key)
    if part and part.intact():
        return
    process = _processor(task.recipe)
    with parts.Writer(folder, task.key) as writer:
        for item in sources.read(task.unit, task.recipe.corpus.quality.max_bytes):
            process(item, writer)


@cache
def _processor(recipe: Recipe) -> Callable[[Raw | Unreadable | TooLarge, parts.Writer], None]:
    """Steps are prepared once a process."""
    steps = cleaning.steps(recipe.corpus)
    if recipe.benchmarks and "decontaminate" not in recipe.corpus.skip:
        from data import decontamination

        index = decontamination.build(benchmarks.load(recipe.benchmarks))
        steps.append(("decontaminate", decontamination.step(index)))
    wanted = frozenset(recipe.corpus.languages)

    def process(item: Raw | Unreadable | TooLarge, writer: parts.Writer) -> None:
        match item:
            case Unreadable(path, why):
                _drop(writer, Document("", path, "", "", "", ""), Drop("unreadable", why), 0)
            case TooLarge(path, repository, size):
                document = Document("", path, repository, language_of(path) or "", "", "")
                _drop(writer, document, Drop("too_large", f"{size:,} bytes"), size)
            case Raw():
                _process_raw(item, writer, steps, wanted, recipe.corpus)

    return process


def _process_raw(
    raw: Raw, writer: parts.Writer, steps: list[tuple[str, Step]], wanted: frozenset[str], corpus: CorpusConfig
) -> None:
    size = len(raw.content if isinstance(raw.content, bytes) else raw.content.encode(errors="surrogatepass"))
    document = Document("", raw.path, raw.repository, raw.language, _licence(raw), raw.provenance, raw.stars, raw.date)
    try:
        outcome = _read(raw, document, wanted, writer.tally)
        if isinstance(outcome, Document):
            document = outcome
            outcome = cleaning.clean(outcome, steps, writer.tally)
        description = describe(outcome, corpus, writer.tally) if isinstance(outcome, Document) else None
    except (UserError, OSError):
        raise
    except Exception as error:  # a step that fails on one file in a billion must not end the build; it is listed
        outcome, description = Drop("error", f"{type(error).__name__}: {error}"), None
    if isinstance(outcome, Document) and description:
        writer.keep(outcome, *description)
    elif isinstance(outcome, Drop):
        _drop(writer, document, outcome, size)


def _read(raw: Raw, document: Document, wanted: frozenset[str], tally: Tally) -> Document | Drop:
    """Bytes to text, and text to its language: what the document, so far without text, was still missing."""
    start = time.perf_counter_ns()
    text, language = decoding.decode(raw), ""
    if isinstance(text, str):
        language = raw.language or language_of(raw.path, text) or ""
        if language == "Jupyter Notebook":
            text = notebooks.to_text(text) or Drop("broken_notebook")
    tally.nanoseconds["read"] += time.perf_counter_ns() - start
    tally.read["read"] += len(raw.content)
    if isinstance(text, Drop):
        return text
    if not language:
        return Drop("unknown_language")
    if wanted and language not in wanted:
        return Drop("language_not_wanted", language)
    return dataclasses.replace(document, text=text, language=language)


def _licence(raw: Raw) -> str:
    """What the source says of the licence, in one SPDX expression; names that SPDX does not know stay as they are."""
    return licences.joined(tuple(licences.normalise(name) or name for name in raw.licences))


def describe(
    document: Document, corpus: CorpusConfig, tally: Tally
) -> tuple[np.ndarray, UInt8[np.ndarray, " P"] | UInt32[np.ndarray, " P"]]:
    """What deduplication needs to know: a record of `parts.INDEX`, and the signature."""
    start = time.perf_counter_ns()
    exact = hashlib.blake2b(" ".join(document.text.split()).encode(), digest_size=16).digest()
    index = np.zeros((), parts.INDEX)
    index["exact"] = np.frombuffer(exact, "<u8")
    index["repository"] = repository_hash(document.repository)
    index["stars"], index["date"] = document.stars, document.date
    index["plainness"] = plainness(document.path)
    index["size"] = len(document.text.encode())
    middle = time.perf_counter_ns()
    signature = np.empty(0, np.uint8)
    if "near_duplicates" not in corpus.skip:
        whole = minhash.signature(shingles.words(document.text), corpus.dedup)
        # Whole values can be combined into the signature of a repository; single bytes are enough to compare.
        signature = whole if corpus.dedup.level == "repository" else minhash.sketch(whole)
    for name, begin, end in (("exact hash", start, middle), ("signature", middle, time.perf_counter_ns())):
        tally.nanoseconds[name] += end - begin
        tally.read[name] += len(document.text)
    return index, signature


def repository_hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), "little")


_VENDORED = re.compile(r"(^|/)(vendor|vendored|_vendor|third_party|thirdparty|external|node_modules|site-packages)/")
_COPY = re.compile(r"(copy|backup|\bold\b|\bbak\b|\(\d+\)|~)", re.IGNORECASE)


def plainness(path: str) -> int:
    """Which of two copies to keep by its path: not vendored, not called a copy, not deep, short."""
    vendored, copied = bool(_VENDORED.search(path)), bool(_COPY.search(path))
    return -(vendored << 40 | copied << 39 | path.count("/") << 20 | min(len(path), 0xFFFFF))


def _drop(writer: parts.Writer, document: Document, drop: Drop, size: int) -> None:
    writer.tally.add(drop.reason, document.language, drop.licence or document.licence, size)
    writer.tally.sample(drop.reason, document.repository, document.path, drop.detail, lambda: excerpt(document))
    writer.drop(document.repository, document.path, drop.reason, drop.detail)


def excerpt(document: Document) -> str:
    """The head of a text to show to people: without secrets and names, whatever steps it went through."""
    head = secrets.redact(document.text[:4096], document.path, document.language, Counter())
    return personal.redact(head, Counter())


def _digest(path: str) -> str:
    return hashlib.sha256(epath.Path(path).read_bytes()).hexdigest() if path and epath.Path(path).is_file() else ""
