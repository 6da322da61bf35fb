"""What a corpus says of itself: counts and bytes by reason, language and licence, drops to look at, checksums."""

import dataclasses
import hashlib
import itertools
import json
import platform
import shutil
from collections import Counter
from collections.abc import Iterable
from typing import Any

from etils import epath

import codelm
from codelm.corpus_config import CorpusConfig
from codelm.publish import checksum
from data import dataset, parts, write_range
from data.plan import Found, Plan, Settings
from data.ranges import Ranges
from data.tally import Tally


def write(ranges: Ranges, plan: Plan, corpus: CorpusConfig, settings: Settings, seconds: float) -> None:
    """Everything but the shards: the drops in one file, TFDS's description, the manifest."""
    staged = ranges.staged
    tally, splits = _collect(ranges)
    _name_what_was_kept(tally, ranges.found)
    _join_drops(ranges)
    dataset.describe(staged, splits, f"Code corpus {plan.digest} from {', '.join(corpus.sources)}, built by codelm")
    for task in ranges:
        write_range.result_path(task).unlink()
        write_range.drops_path(task).unlink()
    (staged / dataset.MANIFEST).unlink(missing_ok=True)  # of a publication that failed
    content = {
        "version": dataset.VERSION,
        "codelm": codelm.__version__,
        "python": platform.python_version(),
        "digest": plan.digest,
        "fingerprint": fingerprint(corpus),
        "config": dataclasses.asdict(corpus),
        "benchmarks": settings.benchmarks.rstrip("/").rsplit("/", 1)[-1],
        "splits": {split: _sums(shards) | {"shards": shards} for split, shards in splits.items()},
        **counts(tally),
        "clusters": ranges.clusters(),
        "timing": {"seconds": seconds, "steps": _steps(tally)},
        "checksums": _checksums(staged, splits),
    }
    (staged / dataset.MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _collect(ranges: Ranges) -> tuple[Tally, dict[str, list[dict[str, Any]]]]:
    """All counts, and the shards of each split that has any."""
    tally = _cleaned(ranges.found)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in dataset.SPLITS}
    for task in ranges:
        result = write_range.result(task)
        assert result is not None
        tally.merge(Tally.from_json(result["tally"]))
        for split, shard in result["shards"].items():
            splits[split].append({"name": task.names[split], **shard})
    return tally, {split: shards for split, shards in splits.items() if shards}


def _cleaned(found: Found) -> Tally:
    """What cleaning counted."""
    tally = Tally()
    for part in found:
        tally.merge(part.tally)
    return tally


def _checksums(staged: epath.Path, splits: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Of all files by name; shards were read when they were written, and there may be terabytes of them."""
    known = {shard["name"]: shard["sha256"] for shards in splits.values() for shard in shards}
    return {file.name: known.get(file.name) or checksum(file) for file in sorted(staged.iterdir())}


def fingerprint(corpus: CorpusConfig) -> str:
    """16 hex digits over the config, without where the benchmarks lie."""
    content = dataclasses.asdict(corpus) | {"benchmarks": ""}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def counts(tally: Tally) -> dict[str, Any]:
    """The tally as tables: documents and bytes by reason, and kept and read by language and by licence."""
    reasons = _table((reason, n, size) for (reason, _, _), n, size in _cells(tally))
    kept = reasons.pop("kept", {"documents": 0, "bytes": 0})
    by = {}
    for name, place in (("languages", 1), ("licences", 2)):
        read = _table((key[place] or "unknown", n, size) for key, n, size in _cells(tally))
        left = _table((key[place] or "unknown", n, size) for key, n, size in _cells(tally) if key[0] == "kept")
        by[name] = {
            value: {"read": row, "kept": left.get(value, {"documents": 0, "bytes": 0})} for value, row in read.items()
        }
    samples = {
        reason: [{k: v for k, v in dataclasses.asdict(s).items() if k != "order"} for s in found]
        for reason, found in sorted(tally.samples.items())
    }
    return {"kept": kept, "dropped": reasons, **by, "replaced": dict(sorted(tally.counts.items())), "samples": samples}


def explain_empty(found: Found) -> str:
    """One line for a corpus of which nothing is left."""
    dropped = counts(_cleaned(found))["dropped"]
    total = sum(row["documents"] for row in dropped.values())
    most = sorted(dropped.items(), key=lambda item: -item[1]["documents"])[:3]
    shown = ", ".join(f"{row['documents']:,} {reason}" for reason, row in most)
    if not total:
        return "the corpus is empty: its sources hold no document"
    hint = (
        "; to keep files without a known licence: --corpus.licences.unlicensed keep" if "unlicensed" in dropped else ""
    )
    return f"the corpus is empty after cleaning: all {total:,} documents were dropped ({shown}){hint}"


def _cells(tally: Tally) -> Iterable[tuple[tuple[str, str, str], int, int]]:
    return ((key, n, tally.sizes[key]) for key, n in tally.cells.items())


def _table(rows: Iterable[tuple[str, int, int]]) -> dict[str, dict[str, int]]:
    """Sums by name, the largest first."""
    documents, sizes = Counter[str](), Counter[str]()
    for name, n, size in rows:
        documents[name] += n
        sizes[name] += size
    order = sorted(documents, key=lambda name: (-sizes[name], name))
    return {name: {"documents": documents[name], "bytes": sizes[name]} for name in order}


def _sums(shards: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(shard[name] for shard in shards) for name in ("documents", "text_bytes")}


def _steps(tally: Tally) -> dict[str, dict[str, float]]:
    """Megabytes a second of one core, step by step, over what each step saw."""
    return {
        name: {
            "seconds": seconds,
            "bytes": tally.read[name],
            "mb_per_second": tally.read[name] / max(seconds, 1e-9) / 1e6,
        }
        for name, seconds in ((name, spent / 1e9) for name, spent in tally.nanoseconds.items())
    }


def _join_drops(ranges: Ranges) -> None:
    """Frames of zstd one after another are a zstd file."""
    with (ranges.staged / "drops.jsonl.zst").open("wb") as out:
        for file in itertools.chain(
            (part.checked("drops") for part in ranges.found), (write_range.drops_path(task) for task in ranges)
        ):
            with file.open("rb") as frames:
                shutil.copyfileobj(frames, out)


def _name_what_was_kept(tally: Tally, found: Found) -> None:
    """In the samples of duplicates, the path of what was kept in place of its number."""
    for reason in write_range.REASONS.values():
        named = []
        for sample in tally.samples.get(reason, []):
            ((key, row, _),) = found.between(number := int(sample.detail.split()[-1]), number + 1)
            part = parts.find(found.folder, key)
            assert part is not None
            kept = next(document for n, document in enumerate(part.read_documents()) if n == row)
            named.append(dataclasses.replace(sample, detail=f"of {kept.repository}: {kept.path}"))
        if named:
            tally.samples[reason] = named
