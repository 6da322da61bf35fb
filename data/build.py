"""From sources to a published corpus, in four stages: plan, clean, find duplicates, write.

Everything on the way lies in a work folder beside the corpus, under names that say what made it, so that a build that
was interrupted goes on where it stopped, and a changed one does again only what changed.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Int64, UInt8

from codelm.corpus_config import CorpusConfig
from codelm.errors import UserError
from codelm.progress import Bar
from data import clean_unit, dataset, duplicates, manifest, parts, splits, write_range
from data import plan as planning
from data.plan import Found, Plan, Settings
from data.ranges import Ranges


def build(corpus: CorpusConfig, settings: Settings) -> dataset.Corpus:
    """The corpus at `settings.out`: the one that is there if it is this one, else made anew."""
    out = epath.Path(settings.out)
    work = epath.Path(settings.work or f"{str(out).rstrip('/')}.building")
    with _scratch(work) as scratch, _told_how_to_go_on(work):
        plan = planning.make(corpus, settings, work / "parts", scratch)
        if not _already_there(out, plan, settings):
            # Shards of another size may have the same names, and those that are there are taken for finished.
            staged = work / "dataset" / f"{plan.digest}-{settings.shard_bytes}"
            _make(plan, corpus, settings, work / "parts", staged, scratch)
            dataset.publish(staged, out)
    with contextlib.suppress(FileNotFoundError):
        work.rmtree()
    return dataset.load(out)


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)


def _make(
    plan: Plan, corpus: CorpusConfig, settings: Settings, cleaned: epath.Path, staged: epath.Path, scratch: Path
) -> None:
    start = time.monotonic()
    _clean(plan, settings)
    found = Found.of(plan, cleaned)
    if not len(found):
        raise UserError(manifest.explain_empty(found))
    files = duplicates.of_documents(found, len(found), corpus.dedup, _near(corpus), scratch / "files")
    fates, kept = _decide(found, files, corpus, settings, scratch)
    ranges = Ranges.of(found, files, fates, kept, settings.shard_bytes, staged)
    _write(ranges, settings)
    manifest.write(ranges, plan, corpus, settings, time.monotonic() - start)


def _already_there(out: epath.Path, plan: Plan, settings: Settings) -> bool:
    if not out.exists():
        return False
    if not (out / dataset.MANIFEST).exists():
        if any(out.iterdir()):
            raise UserError(f"{out} exists and is not a corpus: give another --out, or remove it")
        return False
    if dataset.load(out).manifest["digest"] == plan.digest:
        print(f"{out} is already built from these sources with this config", file=sys.stderr)
        return True
    if settings.overwrite:
        return False
    raise UserError(f"{out} holds another corpus (other sources, files or config): give another --out, or --overwrite")


def _clean(plan: Plan, settings: Settings) -> None:
    with Bar.of_bytes("cleaning", plan.bytes) as bar:
        before = {task.key for task in plan.tasks() if parts.find(epath.Path(task.folder), task.key)}
        if before:
            print(f"going on: {len(before):,} of {plan.units:,} units were cleaned before", file=sys.stderr)
        for task in settings.runner(clean_unit.run, plan.tasks()):
            bar.advance(task.unit.size, worked=task.key not in before)


def _decide(
    found: Found, files: duplicates.Table, corpus: CorpusConfig, settings: Settings, scratch: Path
) -> tuple[UInt8[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """For every document its fate (`write_range.TRAIN` …) and, where it is a duplicate, of which document."""
    print(f"looking for duplicates among {len(files):,} documents", file=sys.stderr)
    fates = files.array("fates", np.uint8, lambda items: np.full(len(items), write_range.TRAIN))
    find_pairs = settings.find_pairs or duplicates.pairs_here(settings.memory)
    what = (corpus.dedup, corpus.skip, settings.memory, find_pairs)
    if corpus.dedup.level == "repository":
        whole, number = duplicates.of_repositories(
            found, len(files), corpus.dedup, _near(corpus), scratch / "repositories"
        )
        verdicts = duplicates.of_their_documents(duplicates.decide(whole, *what), number, files)
    else:
        verdicts = duplicates.decide(files, *what)
    for items in files.chunks():
        why = verdicts.why[items]
        fates[items] = np.select(
            [why == duplicates.EXACT, why == duplicates.NEAR], [write_range.EXACT, write_range.NEAR]
        )
    _split(files, fates, corpus.validation)
    if corpus.dedup.level == "repository" or {"exact_duplicates", "near_duplicates"} & set(corpus.skip):
        # Documents that say the same were left in, on purpose: but not on both sides of the split.
        skip = () if _near(corpus) else ("near_duplicates",)
        _keep_apart(files, fates, verdicts, duplicates.decide(files.apart("same"), corpus.dedup, skip, *what[2:]))
    return fates, verdicts.kept


def _near(corpus: CorpusConfig) -> bool:
    return "near_duplicates" not in corpus.skip


def _split(files: duplicates.Table, fates: UInt8[np.ndarray, " N"], share: float) -> None:
    """Hold out repositories for validation."""
    smallest, largest = 2**64, -1
    for items in files.chunks():
        lots = splits.lot(files.index["repository"][items[fates[items] == write_range.TRAIN]])
        if len(lots):
            smallest, largest = min(smallest, int(lots.min())), max(largest, int(lots.max()))
    for items in files.chunks():
        staying = items[fates[items] == write_range.TRAIN]
        chosen = splits.held_out(files.index["repository"][staying], smallest, largest, share)
        fates[staying[chosen]] = write_range.VALIDATION


def _keep_apart(
    files: duplicates.Table,
    fates: UInt8[np.ndarray, " N"],
    verdicts: duplicates.Verdicts,
    same: duplicates.Verdicts,
) -> None:
    """Drop held-out documents that a training document duplicates: the first such one stands for them."""
    none = len(files)
    trained = files.array("trained", np.int64, lambda items: np.full(len(items), none))
    for items in files.chunks():
        staying = items[fates[items] == write_range.TRAIN]
        np.minimum.at(trained, same.kept[staying], staying)
    for items in files.chunks():
        held_out = items[fates[items] == write_range.VALIDATION]
        lost = held_out[trained[same.kept[held_out]] < none]
        fates[lost] = write_range.STRADDLES
        verdicts.kept[lost] = trained[same.kept[lost]]
    for items in files.chunks():  # what stood for others may have been lost itself
        verdicts.kept[items] = verdicts.kept[verdicts.kept[items]]


def _write(ranges: Ranges, settings: Settings) -> None:
    ranges.staged.mkdir(parents=True, exist_ok=True)
    with Bar("writing", len(ranges.files), "documents") as bar:
        for task in settings.runner(write_range.run, ranges):
            bar.advance(len(task.fates))


@contextlib.contextmanager
def _scratch(work: epath.Path) -> Iterator[Path]:
    """A local folder for files that are mapped into memory, gone afterwards; and the only build in this work folder."""
    local = Path(str(work)) if "://" not in str(work) else Path(tempfile.gettempdir()) / f"codelm-{_name(str(work))}"
    try:
        local.mkdir(parents=True, exist_ok=True)
        lock = (local / "lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write in {local}: {error.strerror}; give another --out or --work") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another build is writing in {work}: wait for it, or give another --out") from error
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=local))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if not (local / "parts").exists() or not any((local / "parts").iterdir()):
                shutil.rmtree(local, ignore_errors=True)  # nothing to go on from


@contextlib.contextmanager
def _told_how_to_go_on(work: epath.Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print(f"what is finished stays in {work}: run the same command again to go on", file=sys.stderr)
        raise
    except OSError as error:
        what = "write" if error.errno in _NO_ROOM else "use"
        raise UserError(
            f"cannot {what} {error.filename or work}: {error.strerror or error}; what is finished stays in {work}, "
            "run the same command again to go on"
        ) from error


def _name(path: str) -> str:
    return f"{hashlib.sha256(path.encode()).hexdigest()[:12]}-{os.getuid()}"
