"""Repositories on disk: what git ignores, names, commits, licences, links, and every way they are broken."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from data import git, source_tree, sources
from data.document import Raw, Unreadable
from tests.data.test_sources import everything, raws

WHEN = 1_700_000_000
SIGNATURE = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ\n -----END PGP SIGNATURE-----"


def run(folder: Path, *arguments: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    who = {
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@b.c",
    }
    when = {"GIT_AUTHOR_DATE": f"{WHEN} +0000", "GIT_COMMITTER_DATE": f"{WHEN} +0000", "GIT_CONFIG_GLOBAL": os.devnull}
    command = ["git", "-c", "init.defaultBranch=main", "-C", str(folder), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | who | when
    ).stdout.strip()


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def repository(folder: Path, files: dict[str, str | bytes], origin: str = "") -> str:
    run(folder, "init", "-q")
    write(folder, files)
    run(folder, "add", "-A")
    run(folder, "commit", "-q", "--allow-empty", "-m", "x")
    if origin:
        run(folder, "remote", "add", "origin", origin)
    return run(folder, "rev-parse", "HEAD")


def paths(found: list[Raw]) -> list[str]:
    return sorted(f"{raw.repository}: {raw.path}" for raw in found)


def test_git_says_what_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data import licences

    monkeypatch.setattr(licences, "detect", lambda text: (text.strip(),))
    secret = "https://user:" + "pass" + "word@github.com/ann/tool.git"
    content = {
        ".gitignore": "build/\n*.log.py\n",
        ".github/ci.yml": "a: 1\n",
        "src/a.py": "a = 1\n",
        "LICENSE": "MIT\n",
        "COPYING.txt": "BSD-3-Clause\n",
        "src/LICENSE": "GPL-2.0-only\n",
        "logo.png": b"\x89PNG",
        "bin/run": "#!/bin/sh\n",
        "bin/data": "1 2 3\n",
    }
    commit = repository(tmp_path / "x", content, secret)
    write(tmp_path / "x", {"build/b.py": "ignored", "c.log.py": "ignored", "new.py": "not added yet"})
    found = raws(f"repositories:{tmp_path / 'x'}")
    kept = [".github/ci.yml", ".gitignore", "COPYING.txt", "bin/run", "new.py", "src/a.py"]
    assert [raw.path for raw in found] == kept
    assert {raw.repository for raw in found} == {"ann/tool"}
    assert {raw.provenance for raw in found} == {f"https://github.com/ann/tool@{commit}"}
    assert {raw.date for raw in found} == {WHEN}
    assert {raw.licences for raw in found} == {("BSD-3-Clause", "MIT")}


def test_folders_of_repositories(tmp_path: Path) -> None:
    repository(tmp_path / "one", {"a.py": "1"}, "git@example.org:ann/one.git")
    repository(tmp_path / "bob" / "two", {"b.py": "2"})
    write(tmp_path, {"bob/three/c.py": "3", "plain/d/e.py": "4", "plain/.hidden/f.py": "5", "plain/.g.py": "6"})
    write(tmp_path, {"loose.py": "7", ".h/i.py": "8"})
    expected = ["ann/one: a.py", "bob/three: c.py", "bob/two: b.py", "plain: d/e.py", f"{tmp_path.name}: loose.py"]
    assert paths(raws(f"repositories:{tmp_path}")) == sorted(expected)
    assert [u.name for u in sources.units([f"repositories:{tmp_path}"])] == [
        f"{tmp_path.name}#0",
        "bob/three#0",
        "bob/two#0",
        "ann/one#0",
        "plain#0",
    ]


def test_units_are_cut_by_size_and_change_with_the_content(tmp_path: Path) -> None:
    write(tmp_path, {f"r/{i}.py": "x" * 100 for i in range(10)})
    units = list(sources.units([f"repositories:{tmp_path}"], 250))
    assert [len(unit.items) for unit in units] == [2] * 5
    assert [unit.name for unit in units] == [f"r#{i}" for i in range(5)]
    assert raws(f"repositories:{tmp_path}", 250) == raws(f"repositories:{tmp_path}")
    write(tmp_path, {"r/3.py": "y" * 101})
    again = list(sources.units([f"repositories:{tmp_path}"], 250))
    assert [a.version == b.version for a, b in zip(units, again, strict=False)] == [True, False, *[True] * 3]
    write(tmp_path, {"r/LICENSE": "MIT"})
    assert not {unit.version for unit in again} & {u.version for u in sources.units([f"repositories:{tmp_path}"], 250)}


def test_a_new_commit_is_a_new_version(tmp_path: Path) -> None:
    repository(tmp_path, {"a.py": "1"})
    (before,) = sources.units([f"repositories:{tmp_path}"])
    run(tmp_path, "commit", "-q", "--allow-empty", "-m", "y")
    (after,) = sources.units([f"repositories:{tmp_path}"])
    assert before.version != after.version


def test_two_clones_of_one_have_different_units(tmp_path: Path) -> None:
    for name in ("a", "b"):
        repository(tmp_path / name, {"x.py": name}, "https://example.org/o/n")
    names = [unit.name for unit in sources.units([f"repositories:{tmp_path}"])]
    assert len(set(names)) == 2
    assert {raw.repository for raw in raws(f"repositories:{tmp_path}")} == {"o/n"}


@pytest.mark.parametrize("with_git", [True, False])
def test_links_are_not_followed(tmp_path: Path, with_git: bool) -> None:
    write(tmp_path, {"outside/secret.py": "secret", "r/a.py": "a", "r/gone/b.py": "b"})
    r = tmp_path / "r"
    (r / "file.py").symlink_to(tmp_path / "outside" / "secret.py")
    (r / "folder").symlink_to(tmp_path / "outside")
    (r / "loop").symlink_to(r)
    if with_git:
        repository(r, {})
        shutil.rmtree(r / "gone")  # a tracked file is now reached through a link
        (r / "gone").symlink_to(tmp_path / "outside")
        (tmp_path / "outside" / "b.py").write_text("secret")
    assert all(raw.content != b"secret" for raw in raws(f"repositories:{r}"))
    assert [raw.path for raw in raws(f"repositories:{r}")] == (["a.py"] if with_git else ["a.py", "b.py"])


@pytest.mark.parametrize("with_git", [True, False])
def test_nested_repositories_are_left_out(tmp_path: Path, with_git: bool) -> None:
    repository(tmp_path / "sub", {"inner.py": "1"})
    write(tmp_path / "all" / "r", {"a.py": "2"})
    if with_git:
        repository(tmp_path / "all" / "r", {})
        run(tmp_path / "all" / "r", "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "sub"))
    shutil.copytree(tmp_path / "sub", tmp_path / "all" / "r" / "deep" / "untracked")
    assert [raw.path for raw in raws(f"repositories:{tmp_path / 'all'}") if raw.path.endswith(".py")] == ["a.py"]


def test_broken_git_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = tmp_path / "outer"
    repository(outer, {".gitignore": "*.py\n"})
    for name in ("empty", "corrupt", "fine"):
        write(outer / "all" / name, {"a.py": "1", ".b.py": "2"})
    (outer / "all" / "empty" / ".git").mkdir()
    repository(outer / "all" / "corrupt", {})
    (outer / "all" / "corrupt" / ".git" / "index").write_bytes(b"nonsense")
    repository(outer / "all" / "fine", {})
    expected = ["corrupt: a.py", "empty: a.py", "fine: .b.py", "fine: a.py"]
    assert paths(raws(f"repositories:{outer / 'all'}")) == expected
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert paths(raws(f"repositories:{outer / 'all'}")) == [e for e in expected if ".b" not in e]


def test_an_empty_repository_and_odd_names(tmp_path: Path) -> None:
    run(tmp_path / "new", "init", "-q")
    write(tmp_path / "new", {"a.py": "1", '\u00e9 \n\t".py': "2", "--help.py": "3"})
    found = raws(f"repositories:{tmp_path}")
    assert sorted(raw.path for raw in found) == sorted(["a.py", '\u00e9 \n\t".py', "--help.py"])
    assert {(raw.provenance, raw.date) for raw in found} == {("new", 0)}


def test_nothing_that_a_repository_configures_is_run(tmp_path: Path) -> None:
    repository(tmp_path / "r", {"a.py": "1"})
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "gpg.program", "core.sshCommand", "diff.external"):
        run(tmp_path / "r", "config", key, str(trap))
    run(tmp_path / "r", "config", "log.showSignature", "true")
    signed = run(tmp_path / "r", "cat-file", "commit", "HEAD").replace("\n\n", f"\n{SIGNATURE}\n\n", 1)
    (tmp_path / "signed").write_text(signed + "\n")
    run(tmp_path / "r", "update-ref", "HEAD", run(tmp_path / "r", "hash-object", "-t", "commit", "-w", "../signed"))
    assert paths(raws(f"repositories:{tmp_path / 'r'}")) == ["r: a.py"]
    assert not (tmp_path / "sprung").exists()
    for command in ("status", "log"):
        run(tmp_path / "r", command)
        assert (tmp_path / "sprung").exists(), command  # the trap works
        (tmp_path / "sprung").unlink()
        run(tmp_path / "r", "config", "--unset", "core.fsmonitor") if command == "status" else None


def test_the_callers_git_variables_and_ignores_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path / "other", {"b.py": "1"})
    commit = repository(tmp_path / "r", {})
    write(tmp_path, {"r/a.py": "1", "home/.config/git/ignore": "*.py\n"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    (raw,) = raws(f"repositories:{tmp_path / 'r'}")
    assert (raw.path, raw.provenance) == ("a.py", f"r@{commit}")


def test_somebody_elses_repository_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path / "r", {"a.py": "1", ".gitignore": "b.py"})
    write(tmp_path, {"r/b.py": "2"})
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for path in [tmp_path / "r", *(tmp_path / "r").rglob("*")]:
        os.chown(path, 12345, 12345)
    assert paths(raws(f"repositories:{tmp_path / 'r'}")) == ["r: .gitignore", "r: a.py"]


def test_folders_that_cannot_be_read_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"r/a.py": "1", "r/closed/b.py": "2", "shut/c.py": "3"})
    scandir = os.scandir

    def guarded(path: str):
        if str(path).rstrip("/").endswith(("closed", "shut")):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(source_tree.os, "scandir", guarded)
    found = everything(f"repositories:{tmp_path}")
    assert [item.path for item in found if isinstance(item, Raw)] == ["a.py"]
    bad = [item for item in found if isinstance(item, Unreadable)]
    assert [(item.path, "Permission denied" in item.why) for item in bad] == [
        ("closed", True),
        (str(tmp_path / "shut"), True),
    ]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/a/b.git", ("https://github.com/a/b", "a/b")),
        ("https://github.com/a/b/", ("https://github.com/a/b", "a/b")),
        ("git@github.com:a/b.git", ("https://github.com/a/b", "a/b")),
        ("ssh://git@host.org:2222/a/b", ("https://host.org/a/b", "a/b")),
        ("https://x:" + "y" + "@gitlab.com/g/s/n.git", ("https://gitlab.com/g/s/n", "g/s/n")),
        ("git://host/a/b", ("https://host/a/b", "a/b")),
        ("/srv/git/b.git", ("", "")),
        ("file:///srv/git/b", ("", "")),
        ("../b", ("", "")),
        ("", ("", "")),
        ("nonsense", ("", "")),
    ],
)
def test_origins(address: str, expected: tuple[str, str]) -> None:
    assert git.origin(address) == expected
