"""codelm data build | report."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from etils import epath

from codelm import config_io
from codelm.commandline import parse
from codelm.config import Config, resolve
from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from data import beam_pairs, dataset, report_page, runners
from data.build import build as build_corpus
from data.plan import Settings
from data.report_page import size_text

Sources = Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE…")]
BeamOptions = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE…")]


@dataclass(frozen=True)
class BuildOptions:
    """Make a corpus: clean, deduplicated, decontaminated, every drop with its reason.

    codelm data build CONFIG --out DIR: the corpus of an experiment.

    codelm data build --source SOURCE… --out DIR: without a config.

    A source is stdlib | packages[:NAME,…] | repositories:FOLDER | files:PATH-or-GLOB (JSONL, Parquet; .gz, .zst)
    | tfds:NAME[:SPLIT] | hf:NAME[:SPLIT]. Folders and files may be on gs://.
    """

    out: str
    """The corpus goes here, once it is whole: a folder, or gs://…"""
    source: Sources = ()
    """In place of corpus.sources."""
    decontaminate: str = ""
    """Folder of benchmarks (JSONL) that no document may overlap; default: corpus.benchmarks, CODELM_BENCHMARKS."""
    runner: Literal["local", "beam"] = "local"
    """local: processes on this machine. beam: an Apache Beam pipeline."""
    beam: BeamOptions = ()
    """Beam's own options without their dashes: runner=DataflowRunner project=…; none = its runner on this machine."""
    workers: int = 0
    """Processes; 0 = one a core."""
    memory: int = 256
    """Megabytes that finding duplicates may take."""
    shard: int = 256
    """Megabytes of text in one shard."""
    work: str = ""
    """Folder for what lies on the way; Beam's workers must reach it. Default: OUT.building."""
    overwrite: bool = False
    """Replace a corpus that is there, once the new one is whole."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)


def build(argv: list[str], prog: str) -> None:
    if argv and not argv[0].startswith("-"):
        config, rest, prog = config_io.load(argv[0]), argv[1:], f"{prog} {argv[0]}"
    else:
        config, rest = Config(), argv
        if not {"-h", "--help"} & set(argv) and not any(a.startswith(("--source", "--corpus.sources")) for a in argv):
            raise UserError(f"build what? {prog} CONFIG --out DIR, or {prog} --source stdlib --out DIR")
    if _given(rest, "--source") and _given(rest, "--corpus.sources"):
        raise UserError("--source stands for --corpus.sources: give one of them")
    if _given(rest, "--source") > 1:
        raise UserError("--source is given twice, and the last would win: write --source ONE ANOTHER …")
    options = parse(BuildOptions, rest, prog, default=BuildOptions(out="", corpus=config.corpus))
    if not options.out:
        raise UserError(f"where to? give --out DIR. See {prog} --help")
    corpus = replace(options.corpus, sources=options.source or options.corpus.sources)
    corpus = resolve(replace(config, corpus=corpus)).corpus
    _print_summary(build_corpus(corpus, _settings(options, corpus)))


def _given(argv: list[str], option: str) -> int:
    """How often the option is there, as `--option VALUE` or `--option=VALUE`."""
    return sum(argument.partition("=")[0] == option for argument in argv)


def _settings(options: BuildOptions, corpus: CorpusConfig) -> Settings:
    for name in ("workers", "memory", "shard"):
        value = getattr(options, name)
        if value < (0 if name == "workers" else 1):
            raise UserError(f"--{name} must be at least {0 if name == 'workers' else 1}, not {value}")
    workers = options.workers or runners.cores()
    benchmarks = options.decontaminate or corpus.benchmarks or os.environ.get("CODELM_BENCHMARKS", "")
    runner, find_pairs = runners.local(workers), None
    if options.runner == "beam":
        arguments = [f"--{option}" for option in options.beam] or runners.beam_here(workers)
        shared = f"{options.work or f'{options.out.rstrip("/")}.building'}/pairs"
        runner, find_pairs = runners.beam(arguments), beam_pairs.on(arguments, shared)
    return Settings(
        out=options.out,
        runner=runner,
        find_pairs=find_pairs,
        work=options.work,
        benchmarks=benchmarks,
        memory=options.memory << 20,
        shard_bytes=options.shard << 20,
        overwrite=options.overwrite,
    )


def _print_summary(corpus: dataset.Corpus) -> None:
    manifest = corpus.manifest
    for name, split in manifest["splits"].items():
        print(f"{name:12}{split['documents']:>10,} documents  {size_text(split['text_bytes'])}")
    for reason, row in manifest["dropped"].items():
        print(f"  dropped {row['documents']:>12,}  {reason} ({size_text(row['bytes'])})")
    for what, count in manifest["replaced"].items():
        print(f"  replaced {count:>11,}  {what}")
    for note in _notes(manifest, corpus.folder):
        print(f"note: {note}")
    print(f"{corpus.folder}: built in {manifest['timing']['seconds']:.0f} s; see codelm data report {corpus.folder}")


def _notes(manifest: Mapping[str, Any], folder: epath.Path) -> Iterator[str]:
    """What a user may not have meant."""
    asked, sizes = manifest["config"]["validation"], {n: s["text_bytes"] for n, s in manifest["splits"].items()}
    share = sizes.get("validation", 0) / sum(sizes.values())
    if asked and not share:
        yield "nothing is held out: validation takes whole repositories, and there is only one"
    elif asked and not asked / 3 < share < asked * 3:
        yield f"{share:.1%} is held out where {asked:.1%} was asked for: whole repositories, and there are few"
    if unlicensed := manifest["dropped"].get("unlicensed"):
        count = unlicensed["documents"]
        yield f"{count:,} documents have no known licence; --corpus.licences.unlicensed keep takes them in"
    if not manifest["benchmarks"] and "decontaminate" not in manifest["config"]["skip"]:
        yield "nothing was decontaminated; --decontaminate DIR names a folder of benchmarks"
    if failed := manifest["dropped"].get("error"):
        yield f"a step failed on {failed['documents']:,} documents: see `error` in {folder / 'drops.jsonl.zst'}"


@dataclass(frozen=True)
class ReportOptions:
    """Check every file of a corpus and write a page: what is in it, what was dropped and why, with examples."""

    folder: tyro.conf.Positional[str]
    """A corpus that `codelm data build` made."""
    out: Path | None = None
    """The page; default: FOLDER/report.html."""


def report(argv: list[str], prog: str) -> None:
    options = parse(ReportOptions, argv, prog)
    corpus = dataset.load(options.folder)
    corpus.verify()
    path = epath.Path(options.out) if options.out else corpus.folder / "report.html"
    try:
        path.write_text(report_page.render(corpus))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; --out writes it elsewhere") from error
    print(f"every file is as it was written; wrote {path}")
