"""JSON lines and Parquet: the layouts of known datasets, ranges, limits, broken files, memory; and all of it on gs://."""

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from codelm.errors import UserError
from data import sources
from data.document import Raw, TooLarge, Unreadable
from tests.data.test_sources import everything, raws

STACK_V2 = {
    "blob_id": "b1",
    "path": "/src/a.py",
    "content": "x = 1\n",
    "detected_licenses": ["MIT", "Apache-2.0"],
    "license_type": "permissive",
    "repo_name": "ann/tool",
    "revision_id": "c0ffee",
    "visit_date": "2020-01-01T00:00:00",
    "committer_date": "2019-06-01T12:00:00Z",
    "star_events_count": 12,
    "language": "Python",
    "extension": "py",
    "src_encoding": "UTF-8",
}
STACK_V1 = {
    "hexsha": "h",
    "ext": "kt",
    "lang": "Kotlin",
    "content": "fun main() {}\n",
    "max_stars_repo_path": "m/A.kt",
    "max_stars_repo_name": "bob/app",
    "max_stars_repo_head_hexsha": "d00d",
    "max_stars_repo_licenses": ["MIT"],
    "max_stars_count": 3.0,
    "max_stars_repo_stars_event_max_datetime": "2021-03-01T00:00:00.000Z",
}
GITHUB = {"code": "int x;", "repo_name": "c/d", "path": "a.c", "language": "C", "license": "mit", "size": 6}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Far from Greenwich, where a date without a zone must still be UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def unix(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp())  # type: ignore[arg-type]


EXPECTED = {
    "v2": Raw(
        "x = 1\n", "src/a.py", "ann/tool", "Python", ("MIT", "Apache-2.0"), "ann/tool@c0ffee", 12, unix(2019, 6, 1, 12)
    ),
    "v1": Raw("fun main() {}\n", "m/A.kt", "bob/app", "Kotlin", ("MIT",), "bob/app@d00d", 3, unix(2021, 3, 1)),
    "github": Raw("int x;", "a.c", "c/d", "C", ("MIT",), "c/d"),
}
ROWS = {"v2": STACK_V2, "v1": STACK_V1, "github": GITHUB}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_text(raw: sources.Item) -> Raw:
    """Parquet gives bytes and JSON text; this compares them."""
    assert isinstance(raw, Raw)
    content = raw.content.decode() if isinstance(raw.content, bytes) else raw.content
    return Raw(content, raw.path, raw.repository, raw.language, raw.licences, raw.provenance, raw.stars, raw.date)


# ---- layouts ----


@pytest.mark.parametrize("layout", ROWS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS[layout]))
    pq.write_table(pa.Table.from_pylist([ROWS[layout]]), tmp_path / "b.parquet")
    assert raws(f"files:{tmp_path}/a.jsonl") == [EXPECTED[layout]]
    assert [as_text(raw) for raw in raws(f"files:{tmp_path}/b.parquet")] == [EXPECTED[layout]]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "Hello"}, Raw("Hello", "a.jsonl:0", language="Text", provenance="a.jsonl:0")),
        ({"text": "x", "path": "b.go"}, Raw("x", "b.go", provenance="a.jsonl:0")),
        ({"text": "x", "language": "en", "path": "b"}, Raw("x", "b", provenance="a.jsonl:0")),
        ({"text": "x", "lang": "c-sharp"}, Raw("x", "a.jsonl:0", language="C#", provenance="a.jsonl:0")),
        ({"text": "x", "ext": "rs"}, Raw("x", "a.jsonl:0.rs", provenance="a.jsonl:0")),
        (
            {"text": "x", "meta": {"path": "c.rb", "licence": "Apache 2.0", "stars": "7", "date": 1600000000000}},
            Raw("x", "c.rb", "", "", ("Apache-2.0",), "a.jsonl:0", 7, 1600000000),
        ),
        (
            {"text": "x", "path": "a\\b.c", "metadata": {"path": "no"}, "license": "Weird", "stars": None, "date": "?"},
            Raw("x", "a/b.c", "", "", ("Weird",), "a.jsonl:0"),
        ),
        (
            {"text": "x", "path": 3, "repo": 4, "licenses": 5, "stars": "a", "url": "u"},
            Raw("x", "a.jsonl:0", language="Text", provenance="u"),
        ),
        (
            {"text": "x", "path": "p.py", "stars": float("nan"), "date": float("inf")},
            Raw("x", "p.py", provenance="a.jsonl:0"),
        ),
        ({"content": None, "text": "x", "path": "p.py"}, Raw("x", "p.py", provenance="a.jsonl:0")),
        ({"text": "\ud800", "path": "p.py"}, Raw("\ud800", "p.py", provenance="a.jsonl:0")),
    ],
)
def test_plain_text_with_whatever_is_beside_it(row: dict[str, Any], expected: Raw, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(row))
    assert raws(f"files:{tmp_path}/a.jsonl") == [expected]


def test_parquet_dates_dictionaries_and_bytes(tmp_path: Path) -> None:
    table = pa.table(
        {
            "content": pa.array([b"a\xff", b"b"], pa.binary()),
            "path": pa.array(["x.py", "x.py"]).dictionary_encode(),
            "visit_date": pa.array([datetime(2020, 1, 1), None], pa.timestamp("ns")),
            "unknown": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = raws(f"files:{tmp_path}")
    assert (first.content, first.path, first.date) == (b"a\xff", "x.py", unix(2020, 1, 1))
    assert (second.content, second.date) == (b"b", 0)
    pq.write_table(pa.table({"text": pa.array(["y", "y"]).dictionary_encode()}), tmp_path / "a.parquet")
    assert [raw.content for raw in raws(f"files:{tmp_path}")] == [b"y", b"y"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_no_text_column_is_said_with_the_columns(name: str, tmp_path: Path) -> None:
    row = {"blob_id": "b", "src_encoding": "UTF-8"}
    write(tmp_path / name, [row])
    with pytest.raises(
        UserError, match=r"a\..* has no text column: it has blob_id, src_encoding; understood are content"
    ):
        list(sources.units([f"files:{tmp_path}"]))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(*rows)))
    elif path.name.endswith(".zst"):
        half = len(rows) // 2  # two frames, as parallel compressors write
        path.write_bytes(zstandard.compress(lines(*rows[:half])) + zstandard.compress(lines(*rows[half:])))
    else:
        path.write_bytes(lines(*rows))


# ---- ranges and files ----

MANY = [{"text": f"{i} " * (i % 13), "path": f"{i}.py", "repo": f"r/{i % 3}"} for i in range(100)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson.gz", "a.json.zst", "a.parquet"])
@pytest.mark.parametrize("unit_bytes", [1, 7, 50, 333, 1 << 20])
def test_every_row_once_whatever_the_units(name: str, unit_bytes: int, tmp_path: Path) -> None:
    write(tmp_path / name, MANY)
    units = list(sources.units([f"files:{tmp_path}"], unit_bytes))
    assert units == list(sources.units([f"files:{tmp_path}"], unit_bytes))
    assert len({unit.name for unit in units}) == len(units)
    found = [as_text(item) for unit in units for item in sources.read(unit, 1000)]
    assert [(raw.content, raw.path, raw.repository) for raw in found] == [
        (row["text"], row["path"], row["repo"]) for row in MANY
    ]
    if unit_bytes <= 50 and not name.endswith(("gz", "zst")):
        assert len(units) > 10


def test_ranges_of_awkward_ends(tmp_path: Path) -> None:
    rows = [{"text": t, "path": "p"} for t in ("a", "", "\u00e9\u4e16" * 5, "b")]
    content = b"\n\n" + lines(*rows).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    (tmp_path / "a.jsonl").write_bytes(content)
    for size in range(1, len(content) + 2):
        assert [raw.content for raw in raws(f"files:{tmp_path}", size)] == [row["text"] for row in rows]


def test_which_files(tmp_path: Path) -> None:
    for name in ("b/z.jsonl", "b/y.parquet", "a.jsonl.gz", "c/d/x.jsonl.zst"):
        write(tmp_path / name, [{"text": name}])
    (tmp_path / "README.md").write_text("x")

    def texts(spec: str) -> list[str]:
        return [as_text(raw).content for raw in raws(spec)]  # type: ignore[misc]

    assert texts(f"files:{tmp_path}") == ["a.jsonl.gz", "b/y.parquet", "b/z.jsonl", "c/d/x.jsonl.zst"]
    assert texts(f"files:{tmp_path}/b/*") == ["b/y.parquet", "b/z.jsonl"]
    assert texts(f"files:{tmp_path}/**/*.zst") == ["c/d/x.jsonl.zst"]
    assert texts(f"files:{tmp_path}/b/[xyz].jsonl") == ["b/z.jsonl"]
    assert texts(f"files:{tmp_path}/b/z.jsonl") == ["b/z.jsonl"]
    names = [unit.name for unit in sources.units([f"files:{tmp_path}"])]
    assert names == ["a.jsonl.gz#0", "b/y.parquet#0", "b/z.jsonl#0", "c/d/x.jsonl.zst#0"]


def test_a_changed_file_is_another_version(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"text": "a"}])
    write(tmp_path / "b.jsonl", [{"text": "b"}])
    before = [unit.version for unit in sources.units([f"files:{tmp_path}"])]
    write(tmp_path / "b.jsonl", [{"text": "bb"}])
    after = [unit.version for unit in sources.units([f"files:{tmp_path}"])]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


# ---- limits ----


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_large_rows_are_not_given(name: str, tmp_path: Path) -> None:
    sizes = [10, 999, 1000, 1001, 70_000, 200_000, 5]
    rows = [{"text": "\u00e9" * (n // 2) + "x" * (n % 2), "path": f"{n}.py", "repo": "r"} for n in sizes]
    write(tmp_path / name, rows)
    found = everything(f"files:{tmp_path}", max_bytes=1000)
    good = [as_text(item) for item in found if isinstance(item, Raw)]
    assert [raw.path for raw in good] == ["10.py", "999.py", "1000.py", "5.py"]
    large = [item for item in found if isinstance(item, TooLarge)]
    assert len(large) == 3
    assert (large[0].path, large[0].repository, large[0].size) == ("1001.py", "r", 1001)
    assert large[2].size >= 200_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_huge_line_is_never_in_memory(name: str, tmp_path: Path) -> None:
    huge = b'{"text": "' + b"x" * 60_000_000 + b'"}\n'
    content = lines({"text": "before"}) + huge + lines({"text": "after"})
    pack = {"gz": lambda c: gzip.compress(c, 1), "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
    (tmp_path / name).write_bytes(pack(content))
    del huge, content
    units = list(sources.units([f"files:{tmp_path}"]))
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    found, peak_arrow = [], 0
    for unit in units:
        for item in sources.read(unit, 100_000):
            found.append(item)
            peak_arrow = max(peak_arrow, pa.total_allocated_bytes() - arrow)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [item.content if isinstance(item, Raw) else type(item) for item in found] == ["before", TooLarge, "after"]
    assert isinstance(found[1], TooLarge)
    assert found[1].size == 60_000_013
    assert peak < 3_000_000, peak
    assert peak_arrow < 3_000_000, peak_arrow


def test_a_large_row_group_is_read_in_batches(tmp_path: Path) -> None:
    rows = [{"text": f"{i:04}" * 5000, "path": f"{i}"} for i in range(2500)]  # 50 MB in one group
    pq.write_table(
        pa.Table.from_pylist(rows),
        tmp_path / "a.parquet",
        compression="none",
        use_dictionary=False,
        write_batch_size=16,
        data_page_size=1 << 18,
    )
    del rows
    (unit,) = sources.units([f"files:{tmp_path}"], 64 << 20)
    assert 50_000_000 < unit.size < 51_000_000
    pool = pa.default_memory_pool()
    start, peak = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    for i, item in enumerate(sources.read(unit, 100_000)):
        assert isinstance(item, Raw)
        assert item.content == b"%04d" % i * 5000
        peak = max(peak, pa.total_allocated_bytes() - start)
    assert i == 2499
    peak_python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_python < 5_000_000, peak_python
    assert peak < 16_000_000, (peak, pool.max_memory())


# ---- broken files ----


def outcome(folder: Path) -> list[str]:
    """The rows read, and the files or lines that could not be."""
    return [
        as_text(item).content if isinstance(item, Raw) else f"!{item.path}" for item in everything(f"files:{folder}")
    ]  # type: ignore[return-value]


def test_broken_lines_cost_only_themselves(tmp_path: Path) -> None:
    good = lines({"text": "good"})
    bad = [b"{", b"[1, 2]", b"\xff\xfe", b"null", b'{"other": 1}', b'{"text": 3}', b"[" * 100_000, b'{"text": "\xff"}']
    (tmp_path / "a.jsonl").write_bytes(good + b"".join(line + b"\n" + good for line in bad))
    found = outcome(tmp_path)
    assert found[::2] == ["good"] * 9
    offset, expected = len(good), []
    for line in bad:
        expected.append(f"!a.jsonl:{offset}")
        offset += len(line) + 1 + len(good)
    assert found[1::2] == expected


@pytest.mark.parametrize("end", ["gz", "zst"])
def test_a_cut_or_damaged_stream_gives_what_came_before(end: str, tmp_path: Path) -> None:
    import random

    numbers = random.Random(0)
    rows = [{"text": "".join(numbers.choices("abcdefghijklmnop", k=1000))} for _ in range(1000)]
    write(tmp_path / f"a.jsonl.{end}", rows)
    whole = (tmp_path / f"a.jsonl.{end}").read_bytes()
    half = len(whole) * 3 // 4
    for broken in (whole[:half], whole[:half] + b"\0" * 2000 + whole[half + 2000 :], whole + b"garbage"):
        (tmp_path / f"a.jsonl.{end}").write_bytes(broken)
        found = outcome(tmp_path)
        texts, last = found[:-1], found[-1]
        assert last == f"!a.jsonl.{end}"
        assert texts == [row["text"] for row in rows[: len(texts)]] or broken[:half] == whole[:half]
        assert len(texts) > 300
    for broken in (b"", b"nonsense", whole[:3]):
        (tmp_path / f"a.jsonl.{end}").write_bytes(broken)
        write(tmp_path / "b.jsonl", [{"text": "fine"}])
        assert outcome(tmp_path) in ([f"!a.jsonl.{end}", "fine"], ["fine"])
        assert (outcome(tmp_path) == ["fine"]) == (broken == b"")


def test_broken_parquet(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", [{"text": "fine"}])
    write(tmp_path / "a.parquet", [{"text": f"row {i}" * 100} for i in range(50)])
    whole = (tmp_path / "a.parquet").read_bytes()
    for broken in (b"", b"PAR1", whole[:-8], whole[: len(whole) // 2], b"PAR1" + b"\0" * 100 + b"PAR1"):
        (tmp_path / "a.parquet").write_bytes(broken)
        assert outcome(tmp_path) == ["!a.parquet", "fine"]
    (tmp_path / "a.parquet").write_bytes(whole[:200] + b"\xff" * 300 + whole[500:])  # the footer is whole
    assert outcome(tmp_path)[-2:][0].startswith(("!a.parquet", "row"))
    assert any(text.startswith("!a.parquet") for text in outcome(tmp_path))


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.zst", "c.parquet"):
        write(tmp_path / name, [{"text": "x"}])
    units = list(sources.units([f"files:{tmp_path}"]))
    for unit in units:
        (tmp_path / unit.name.removesuffix("#0")).unlink()
        (item,) = sources.read(unit, 1000)
        assert isinstance(item, Unreadable)
        assert item.path == unit.name.removesuffix("#0")


# ---- gs:// ----


@pytest.fixture
def both(tmp_path: Path, gcs: str, request: pytest.FixtureRequest) -> tuple[Path, str]:
    return tmp_path, f"{gcs}/{request.node.name}"


def upload(folder: Path, bucket: str) -> None:
    from etils import epath

    for path in folder.rglob("*"):
        if path.is_file():
            epath.Path(f"{bucket}/{path.relative_to(folder).as_posix()}").write_bytes(path.read_bytes())


def test_files_on_gs_are_read_like_local_ones(both: tuple[Path, str]) -> None:
    folder, bucket = both
    for name in ("x1.jsonl.zst", "x2.jsonl.zst", "y.jsonl", "z/w.parquet", "z/v.jsonl.gz"):
        write(folder / name, [{**row, "text": name + row["text"]} for row in MANY])
    upload(folder, bucket)
    for pattern in ("/x*.jsonl.zst", "/z/w.parquet", "/z/*.parquet", "/y.jsonl", "/**/*.gz", ""):
        local = raws(f"files:{folder}{pattern}", 500)
        assert len(local) >= 100
        assert raws(f"files:{bucket}{pattern}", 500) == local
    for spec, said in ((f"files:{bucket}/q*.jsonl", "no file matches"), ("files:gs://nowhere/a.jsonl", "no")):
        with pytest.raises(UserError, match=said):
            list(sources.units([spec]))


def test_repositories_on_gs_are_read_like_local_ones(both: tuple[Path, str]) -> None:
    folder, bucket = both
    for name in ("one/a.py", "one/b/c.js", "one/.hidden/d.py", "one/e.png", "two/bin/run", "two/data", "loose.py"):
        (folder / "repos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "repos" / name).write_text("#!/bin/sh\n" if name == "two/bin/run" else f"text of {name}\n")
    (folder / "repos" / "one" / "LICENSE").write_text("SPDX-License-Identifier: MIT\n")
    upload(folder, bucket)
    local = raws(f"repositories:{folder}/repos")
    assert [raw.path for raw in local] == ["loose.py", "a.py", "b/c.js", "bin/run"]
    assert local[1].licences == ("MIT",)
    assert raws(f"repositories:{bucket}/repos") == local
    before = [unit.version for unit in sources.units([f"repositories:{bucket}/repos"])]
    (folder / "repos" / "one" / "a.py").write_text("changed, and longer\n")
    upload(folder / "repos" / "one", f"{bucket}/repos/one")
    after = [unit.version for unit in sources.units([f"repositories:{bucket}/repos"])]
    assert (before[0] == after[0], before[1] == after[1], before[2] == after[2]) == (True, False, True)
    with pytest.raises(UserError, match="repos2"):
        list(sources.units([f"repositories:{bucket}/repos2"]))
    import gcsfs

    other = gcsfs.GCSFileSystem(token="anon", skip_instance_cache=True)  # as somebody else's program would
    other.pipe({f"{bucket.removeprefix('gs://')}/repos/{name}": b"x" for name in ("one/new.py", "three/newer.py")})
    assert {"new.py", "newer.py"} < {raw.path for raw in raws(f"repositories:{bucket}/repos")}
    large = everything(f"repositories:{bucket}/repos", max_bytes=15)
    assert [type(item) for item in large] == [TooLarge, TooLarge, TooLarge, Raw, Raw, Raw]


@pytest.mark.parametrize("end", ["gz", "zst"])
def test_packed_files_are_closed(end: str, tmp_path: Path) -> None:
    from data import jsonl

    write(tmp_path / f"a.jsonl.{end}", MANY)
    with jsonl.opened(str(tmp_path / f"a.jsonl.{end}")) as file:
        assert isinstance(file, io.BufferedReader)
        packed = file._packed  # type: ignore[attr-defined]
    assert packed.closed
