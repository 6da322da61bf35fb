"""A corpus as a page: what is in it, where the rest went, examples of every reason, the speed of every step."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from data.dataset import Corpus

_ROWS = 30  # of a table; the rest is summed up

# Of tables that end in bars.
BARS = """
:root { --kept: #2b7a78; --read: #b9d8d6; --drop: #c8553d }
@media (prefers-color-scheme: dark) { :root { --kept: #4db6ac; --read: #2a4d4b; --drop: #e07a5f } }
td.bar { width: 45% }
.track { position: relative; height: .8rem } .track i { position: absolute; inset: 0 auto 0 0; border-radius: 2px }
.read { background: var(--read) } .kept { background: var(--kept) } .drop { background: var(--drop) }
"""
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #667; --line: #dde2ea; --back: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa3b2; --line: #333b48; --back: #14181f } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 66rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem }
.sub, .note { color: var(--soft) } .tiles { display: flex; flex-wrap: wrap; gap: 2rem; margin: 1.2rem 0 }
.tile b { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% } td, th { padding: .15rem .6rem .15rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line) }
summary { cursor: pointer } details { border-bottom: 1px solid var(--line); padding: .3rem 0 }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .6rem; overflow: auto; max-height: 14rem;
  font-size: 12px; margin: .3rem 0 1rem } code { font-size: 13px; overflow-wrap: anywhere }
"""


def render(corpus: Corpus) -> str:
    """One HTML file that needs no other."""
    manifest = corpus.manifest
    title = f"Corpus {corpus.folder.name}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=sub>from {escape(', '.join(manifest['config']['sources']))} · codelm {manifest['codelm']} · "
        f"config {manifest['fingerprint']} · Python {manifest['python']} · {manifest['timing']['seconds']:,.0f} s</p>",
        _tiles(manifest),
        _section("What became of the documents", reasons(manifest)),
        _section("Languages", read_and_kept(manifest["languages"]), "read (light) and kept (dark), by bytes"),
        _section("Licences", read_and_kept(manifest["licences"]), "as known where a document was dropped or kept"),
        _section("Replaced in the text", _replaced(manifest["replaced"])),
        _section("Drops to look at", _samples(manifest["samples"]), "up to 20 of each reason, chosen by hash"),
        _section("Speed", _steps(manifest["timing"]["steps"]), "of one core, over the text that each step saw"),
        _section("Config", f"<pre>{escape(_fields(manifest['config']))}</pre>"),
    ]
    body = "\n".join(sections)
    return f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}{BARS}</style>\n{body}\n"


def _section(title: str, body: str, note: str = "") -> str:
    return f"<h2>{escape(title)}</h2>{f'<p class=note>{escape(note)}</p>' if note else ''}{body or '<p>none</p>'}"


def _tiles(manifest: Mapping[str, Any]) -> str:
    dropped = sum(row["documents"] for row in manifest["dropped"].values())
    total = dropped + manifest["kept"]["documents"]
    tiles = [
        (f"{manifest['kept']['documents']:,}", f"documents kept of {total:,}"),
        (size_text(manifest["kept"]["bytes"]), "of text kept"),
        *(
            (f"{split['documents']:,}", f"{name}, in {_shards(len(split['shards']))}")
            for name, split in manifest["splits"].items()
        ),
        (
            f"{manifest['clusters']['clusters']:,}",
            f"clusters of duplicates, at most {manifest['clusters']['largest']:,} in one",
        ),
        (escape(manifest["benchmarks"] or "none"), "benchmarks decontaminated against"),
    ]
    return (
        "<div class=tiles>" + "".join(f"<div class=tile><b>{n}</b>{escape(what)}</div>" for n, what in tiles) + "</div>"
    )


def reasons(manifest: Mapping[str, Any]) -> str:
    rows = [("kept", manifest["kept"], "kept")]
    rows += [(reason, row, "drop") for reason, row in manifest["dropped"].items()]
    most = max(row["documents"] for _, row, _ in rows)
    return _table(
        ("reason", "documents", "size", ""),
        (
            (reason, f"{row['documents']:,}", size_text(row["bytes"]), _bar((row["documents"] / most, kind)))
            for reason, row, kind in rows
        ),
    )


def read_and_kept(rows: Mapping[str, Any]) -> str:
    most = max((row["read"]["bytes"] for row in rows.values()), default=1) or 1
    shown = [
        (
            name,
            f"{row['kept']['documents']:,} of {row['read']['documents']:,}",
            f"{size_text(row['kept']['bytes'])} of {size_text(row['read']['bytes'])}",
            _bar((row["read"]["bytes"] / most, "read"), (row["kept"]["bytes"] / most, "kept")),
        )
        for name, row in list(rows.items())[:_ROWS]
    ]
    more = f"<p class=note>and {len(rows) - _ROWS:,} more in manifest.json</p>" if len(rows) > _ROWS else ""
    return _table(("", "documents", "size", ""), shown) + more


def _replaced(counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    most = max(counts.values())
    order = sorted(counts.items(), key=lambda item: -item[1])
    return _table(("", "times", ""), ((what, f"{n:,}", _bar((n / most, "drop"))) for what, n in order))


def _steps(steps: Mapping[str, Any]) -> str:
    order = sorted(steps.items(), key=lambda item: -item[1]["seconds"])
    most = max(step["seconds"] for _, step in order)
    return _table(
        ("step", "seconds", "MB/s", ""),
        (
            (name, f"{step['seconds']:,.1f}", f"{step['mb_per_second']:,.0f}", _bar((step["seconds"] / most, "kept")))
            for name, step in order
        ),
    )


def _samples(samples: Mapping[str, list[Mapping[str, str]]]) -> str:
    blocks = []
    for reason, found in samples.items():
        shown = "".join(
            f"<p><code>{escape(s['repository'])}: {escape(s['path'])}</code> "
            f"<span class=sub>{escape(s['detail'])}</span>"
            + (f"<pre>{escape(s['excerpt'])}</pre>" if s["excerpt"] else "")
            for s in found
        )
        blocks.append(f"<details><summary>{escape(reason)} ({len(found)})</summary>{shown}</details>")
    return "".join(blocks)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """The first column is a name, the last a bar, the ones between are numbers."""

    def cells(row: tuple[str, ...], tag: str) -> str:
        kinds = ["", *["class=n"] * (len(row) - 2), "class=bar"]
        plain = [escape(row[0]), *row[1:]]
        return "".join(f"<{tag} {kind}>{cell}</{tag}>" for kind, cell in zip(kinds, plain, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{body}</table>"


def _bar(*parts: tuple[float, str]) -> str:
    return (
        "<div class=track>"
        + "".join(f"<i class={kind} style='width:{share:.2%}'></i>" for share, kind in parts)
        + "</div>"
    )


def _shards(count: int) -> str:
    return f"{count:,} shard{'s' if count > 1 else ''}"


def size_text(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"


def _fields(config: Mapping[str, Any], prefix: str = "corpus.") -> str:
    lines = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            lines.append(_fields(value, f"{prefix}{name}."))
        else:
            lines.append(f"{prefix}{name} = {value!r}")
    return "\n".join(lines)
