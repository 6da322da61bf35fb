"""What no interruption can spoil: going on, damage on the way, publishing, builds beside each other."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from codelm import publish
from data import build, dataset, manifest, runners, sources, write_range
from tests.data.building import (
    Interrupted,
    corpus_config,
    interrupted_after,
    manifest_of,
    refused,
    run,
    settings,
    shards,
)
from tests.data.made_corpus import module, repositories


def test_an_interrupted_build_goes_on_where_it_stopped(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = sources.read

    def counted(unit: sources.Unit, max_bytes: int) -> Any:
        read.append(unit.name)
        return real(unit, max_bytes)

    monkeypatch.setattr(sources, "read", counted)
    config = corpus_config(f"repositories:{clean}")
    build.build(config, settings(tmp_path / "whole", shard_bytes=8000))
    units = len(read)
    read.clear()
    for stop in (2, 5, units + 1):  # while units are cleaned, again, and while shards are written
        with pytest.raises(Interrupted):
            build.build(config, settings(tmp_path / "c", runner=interrupted_after(stop), shard_bytes=8000))
        assert not (tmp_path / "c").exists()
    build.build(config, settings(tmp_path / "c", shard_bytes=8000))
    assert sorted(read) == sorted(set(read)), "no unit was read twice"
    assert len(read) == units
    assert shards(tmp_path / "c") == shards(tmp_path / "whole")
    assert not (tmp_path / "c.building").exists()


def test_an_interrupt_says_how_to_go_on(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(function: Any, tasks: Any) -> Any:
        function(next(iter(tasks)))
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        build.build(corpus_config(f"repositories:{clean}"), settings(tmp_path / "c", runner=interrupt))
    assert f"stays in {tmp_path / 'c.building'}: run the same command again" in capsys.readouterr().err


def test_going_on_with_other_shards_mixes_nothing(clean: Path, tmp_path: Path) -> None:
    """Shards of other sizes may have the same names as those that were finished before."""
    config = corpus_config(f"repositories:{clean}", validation=0.0)
    sizes = (8000, 8200)
    for name, size in zip("ab", sizes, strict=True):
        build.build(config, settings(tmp_path / name, shard_bytes=size))
    assert shards(tmp_path / "a").keys() == shards(tmp_path / "b").keys()
    assert shards(tmp_path / "a") != shards(tmp_path / "b")
    with pytest.raises(Interrupted):
        build.build(config, settings(tmp_path / "c", runner=interrupted_after(6 + 2), shard_bytes=sizes[0]))
    build.build(config, settings(tmp_path / "c", shard_bytes=sizes[1]))
    assert shards(tmp_path / "c") == shards(tmp_path / "b")
    assert {file.name for file in (tmp_path / "c").iterdir()} == {file.name for file in (tmp_path / "b").iterdir()}


def test_a_killed_build_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    folder = repositories(tmp_path / "r", count=40, files=6)
    argv = [sys.executable, "-m", "codelm", "data", "build", "--source", f"repositories:{folder}", "--workers", "2"]
    argv += ["--out", str(tmp_path / "c")]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    parts = tmp_path / "c.building" / "parts"
    while not (parts.exists() and len(list(parts.glob("*.part.json"))) >= 3):
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.wait()
    assert not (tmp_path / "c").exists()
    with pytest.raises(dataset.UserError, match="no corpus"):
        dataset.load(tmp_path / "c")
    config = corpus_config(f"repositories:{folder}")
    build.build(config, settings(tmp_path / "c"))
    build.build(config, settings(tmp_path / "whole"))
    assert shards(tmp_path / "c") == shards(tmp_path / "whole")


def test_a_part_that_was_damaged_is_made_again(clean: Path, tmp_path: Path) -> None:
    config = corpus_config(f"repositories:{clean}")
    with pytest.raises(Interrupted):
        build.build(config, settings(tmp_path / "c", runner=interrupted_after(3)))
    damaged = sorted((tmp_path / "c.building" / "parts").glob("*.documents"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    build.build(config, settings(tmp_path / "c"))
    build.build(config, settings(tmp_path / "whole"))
    assert shards(tmp_path / "c") == shards(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["array_record", "drops"])
def test_what_was_damaged_of_a_range_is_written_again(kind: str, planted: Path, tmp_path: Path) -> None:
    config, finished = corpus_config(f"repositories:{planted}"), []
    for tasks in range(9, 99):  # nine units, then ranges
        with pytest.raises(Interrupted):
            build.build(config, settings(tmp_path / "c", runner=interrupted_after(tasks), shard_bytes=8000))
        if finished := list((tmp_path / "c.building" / "dataset").glob("*/range-00000.json")):
            break
    damaged = sorted(file for file in finished[0].parent.iterdir() if kind in file.name)[0]
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    build.build(config, settings(tmp_path / "c", shard_bytes=8000)).verify()
    build.build(config, settings(tmp_path / "whole", shard_bytes=8000))
    assert manifest_of(tmp_path / "c")["checksums"] == manifest_of(tmp_path / "whole")["checksums"]


def test_a_shard_is_read_once_after_it_was_written(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be terabytes of them."""
    hashed: list[str] = []

    def counted(path: Any) -> str:
        hashed.append(path.name)
        return publish.checksum(path)

    for room in (dataset, manifest, write_range):
        monkeypatch.setattr(room, "checksum", counted, raising=False)
    build.build(corpus_config(f"repositories:{clean}"), settings(tmp_path / "c", shard_bytes=8000))
    assert sorted(name for name in hashed if "array_record" in name) == sorted(shards(tmp_path / "c"))


def test_the_work_may_lie_on_another_disk(clean: Path, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one disk")
    work = Path(tempfile.mkdtemp(dir=other))
    out = tmp_path / "not there yet" / "c"
    argv = ["--source", f"repositories:{clean}", "--out", str(out), "--work", str(work)]
    try:
        assert run(*argv) == 0
        assert run(*argv, "--corpus.validation", "0.5", "--overwrite") == 0
    finally:
        shutil.rmtree(work, ignore_errors=True)
    assert manifest_of(out)["config"]["validation"] == 0.5
    dataset.load(out).verify()
    assert [file.name for file in out.parent.iterdir()] == ["c"], "nothing lies about"


def test_a_publication_that_failed_is_made_again(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(staged: Any, out: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = corpus_config(f"repositories:{clean}")
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "publish", full)
        with pytest.raises(dataset.UserError, match="No space left"):
            build.build(config, settings(tmp_path / "c"))
    build.build(config, settings(tmp_path / "whole"))
    build.build(config, settings(tmp_path / "c")).verify()
    assert manifest_of(tmp_path / "c")["checksums"] == manifest_of(tmp_path / "whole")["checksums"]


def test_a_corpus_that_is_there_is_not_built_again(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--source", f"repositories:{clean}", "--out", str(tmp_path / "c")]
    assert run(*argv) == 0
    before = (tmp_path / "c" / "manifest.json").stat().st_mtime_ns
    assert run(*argv) == 0
    assert "already built" in capsys.readouterr().err
    assert (tmp_path / "c" / "manifest.json").stat().st_mtime_ns == before
    changed = [*argv, "--corpus.dedup.threshold", "0.9"]
    assert "another corpus" in refused(capsys, *changed)
    assert run(*changed, "--overwrite") == 0
    assert manifest_of(tmp_path / "c")["config"]["dedup"]["threshold"] == 0.9


def test_new_files_make_another_corpus_and_only_they_are_read(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(clean, tmp_path / "r")
    config = corpus_config(f"repositories:{folder}")
    with pytest.raises(Interrupted):
        build.build(config, settings(tmp_path / "c", runner=interrupted_after(6)))
    (folder / "repo03" / "new.py").write_text(module(9999))
    read: list[str] = []
    real = sources.read
    monkeypatch.setattr(sources, "read", lambda unit, n: read.append(unit.name) or real(unit, n))
    build.build(config, settings(tmp_path / "c"))
    assert len(read) == 1
    assert "repo03" in read[0]


def test_two_builds_do_not_share_a_folder(clean: Path, tmp_path: Path) -> None:
    config = corpus_config(f"repositories:{clean}")

    def meanwhile(function: Any, tasks: Any) -> Any:
        with pytest.raises(dataset.UserError, match="another build is writing"):
            build.build(config, settings(tmp_path / "c"))
        yield from runners.local(1)(function, tasks)

    build.build(config, settings(tmp_path / "c", runner=meanwhile))


def limited(argv: list[str], limit: int, size: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codelm", "data", "build", *argv],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
    )


def test_a_full_disk_is_one_line_and_the_build_goes_on_later(tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    folder = repositories(tmp_path / "r", count=2, files=60)
    argv = ["--source", f"repositories:{folder}", "--out", str(tmp_path / "c"), "--workers", "1"]
    done = limited(argv, resource.RLIMIT_FSIZE, 20_000)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("codelm: error: cannot write")
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "c").exists()
    assert run(*argv[:-2]) == 0
