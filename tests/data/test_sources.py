"""What every source promises, and the two that need nothing on disk: the standard library and installed packages."""

import ast
import os
import pickle
import sys
import sysconfig
from importlib.metadata import Distribution, distribution, version
from pathlib import Path

import pytest

from codelm.errors import UserError
from data import source_packages, sources
from data.document import Raw, TooLarge, Unreadable

MAX = 1 << 20


def everything(spec: str, unit_bytes: int = 32 << 20, max_bytes: int = MAX) -> list[sources.Item]:
    return [item for unit in sources.units([spec], unit_bytes) for item in sources.read(unit, max_bytes)]


def raws(spec: str, unit_bytes: int = 32 << 20) -> list[Raw]:
    found = everything(spec, unit_bytes)
    assert [item for item in found if not isinstance(item, Raw)] == []
    return [item for item in found if isinstance(item, Raw)]


# ---- specs ----


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("repositorys:/x", "did you mean repositories:FOLDER"),
        ("", "no kind of source"),
        ("file:/x", "did you mean files:PATH-or-GLOB"),
        ("stdlib:3", "takes nothing after it"),
        ("files:", "write files:PATH-or-GLOB"),
        ("repositories", "write repositories:FOLDER"),
        ("tfds", "write tfds:NAME"),
        ("packages:numpi", "did you mean numpy"),
        ("repositories:/not/there", "no folder at /not/there"),
        ("repositories:{file}", "give the folder it is in"),
        ("repositories:{empty}", "no file of a known language under"),
        ("files:/not/there/*.jsonl", "no file matches"),
        ("files:/not/there.jsonl", "no file matches"),
        ("files:{empty}", "no file matches"),
        ("files:{file}", "understood are files that end in .jsonl"),
        ("files:{folder}/*.txt", "understood are files that end in .jsonl"),
        ("files:{folder}", "no file under"),
        ("hf:a/b", "pip install datasets"),
        ("tfds:there_is_no_such_dataset", "no TFDS dataset"),
        ("tfds:/not/there", "no TFDS dataset"),
    ],
)
def test_mistakes_are_one_line(spec: str, said: str, tmp_path: Path) -> None:
    if spec.startswith("hf:") and "datasets" in sys.modules:
        pytest.skip("the library is there")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("x")
    places = {"empty": tmp_path / "empty", "folder": tmp_path / "folder", "file": tmp_path / "folder" / "a.txt"}
    with pytest.raises(UserError, match=said) as error:
        list(sources.units([spec.format(**places)]))
    assert "\n" not in str(error.value)


def test_a_mistake_is_said_before_anything_is_read() -> None:
    with pytest.raises(UserError, match="no kind of source"):
        next(sources.units(["stdlib", "nonsense:x"]))


# ---- the standard library ----


def test_stdlib_is_all_of_it_but_tests_and_packages() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
    paths = {path.relative_to(root) for path in root.rglob("*.py") if not path.is_symlink()}
    wanted = {path.as_posix() for path in paths if not left_out & set(path.parts)}
    found = raws("stdlib")
    assert {raw.path for raw in found} == wanted
    assert len(found) == len(wanted) > 400
    by_path = {raw.path: raw for raw in found}
    assert by_path["json/decoder.py"].repository == "python/json"
    assert by_path["argparse.py"].repository == "python/argparse"
    running = ".".join(map(str, sys.version_info[:3]))
    assert by_path["argparse.py"].provenance.startswith(f"stdlib@{running}")
    assert by_path["argparse.py"].content == (root / "argparse.py").read_bytes()
    assert {raw.licences for raw in found} == {("PSF-2.0",)}
    assert by_path["json/decoder.py"].provenance.endswith("/json/decoder.py")
    assert "def " in ast.unparse(ast.parse(by_path["json/decoder.py"].content))


def test_units_do_not_change_what_is_read_nor_differ_between_runs() -> None:
    whole = raws("stdlib")
    for size in (1, 300_000):
        units = list(sources.units(["stdlib"], size))
        assert units == list(sources.units(["stdlib"], size))
        assert len({unit.name for unit in units}) == len(units)
        assert [raw for unit in units for raw in sources.read(unit, MAX)] == whole
        assert all(unit.size <= size or len(unit.items) == 1 for unit in units)
        assert all(unit.items for unit in units)
        assert sum(unit.size for unit in units) == sum(len(raw.content) for raw in whole)
    assert len(units) > 20
    assert pickle.loads(pickle.dumps(units)) == units


def test_large_files_are_not_read() -> None:
    exactly = len((Path(sysconfig.get_path("stdlib")) / "bisect.py").read_bytes())
    for limit, kind in ((exactly, Raw), (exactly - 1, TooLarge)):
        found = everything("stdlib", max_bytes=limit)
        assert [type(item) for item in found if item.path == "bisect.py"] == [kind]
    found = everything("stdlib", max_bytes=20_000)
    large = [item for item in found if isinstance(item, TooLarge)]
    by_path = {raw.path: len(raw.content) for raw in raws("stdlib")}
    assert {(item.path, item.size) for item in large} == {(p, n) for p, n in by_path.items() if n > 20_000}
    assert next(item for item in large if item.path == "argparse.py").repository == "python/argparse"
    assert len(found) == len(by_path)


# ---- packages ----


def test_packages_named() -> None:
    found = raws("packages: NumPy,etils")
    assert {raw.repository for raw in found} == {"pypi/numpy", "pypi/etils"}
    etils = {raw.path: raw for raw in found if raw.repository == "pypi/etils"}
    root = Path(str(distribution("etils").locate_file("")))
    wanted = {p.relative_to(root).as_posix() for p in (root / "etils").rglob("*.py")}
    assert wanted <= set(etils)
    assert not [path for path in etils if "dist-info" in path or "__pycache__" in path or path.startswith("..")]
    gpath = etils["etils/epath/gpath.py"]
    assert gpath.content == (root / "etils/epath/gpath.py").read_bytes()
    assert gpath.provenance == f"etils=={version('etils')}"
    assert gpath.licences == ("Apache-2.0",)


def test_all_packages_are_there_once() -> None:
    units = list(sources.units(["packages"]))
    names = [unit.name.partition("#")[0] for unit in units]
    assert {"numpy", "etils", "jax", "pytest"} <= set(names)
    assert names == sorted(names)
    paths = {path for unit in units for path in unit.items}
    assert not [path for path in paths if "-info/" in path or ".." in path or "__pycache__" in path]
    assert len({unit.name for unit in units}) == len(units)


class Fake(Distribution):
    """A distribution that is nothing but its metadata."""

    def __init__(self, text: str) -> None:
        self.text = text

    def read_text(self, filename: str) -> str | None:
        return self.text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


OSI = "License :: OSI Approved"


@pytest.mark.parametrize(
    ("fields", "licences"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: GPL"], ("MIT OR Apache-2.0",)),
        (["License: Apache 2.0"], ("Apache-2.0",)),
        (["License: MIT License", "        ", "        Copyright (c) 2024 A"], ("MIT",)),
        (["License: see file", "Classifier: Topic :: X", f"Classifier: {OSI} :: MIT License"], ("MIT",)),
        ([f"Classifier: {x}" for x in (OSI, "License :: DFSG approved", f"{OSI} :: ISC License (ISCL)")], ("ISC",)),
        ([f"Classifier: {OSI} :: Motosoto License"], ("LicenseRef-Motosoto-License",)),
        ([], ()),
    ],
)
def test_licences_of_a_package(fields: list[str], licences: tuple[str, ...]) -> None:
    metadata = "\n".join(["Metadata-Version: 2.4", "Name: x", "Version: 1", *fields, "", "Text"])
    assert source_packages.licences(Fake(metadata)) == licences


def test_a_file_that_went_away_is_listed(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / "r" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "r" / name).write_text("x = 1\n")
    (unit,) = sources.units([f"repositories:{tmp_path}"])
    (tmp_path / "r" / "a.py").unlink()
    gone, there = sources.read(unit, MAX)
    assert isinstance(gone, Unreadable)
    assert (gone.path, "No such file" in gone.why) == ("a.py", True)
    assert isinstance(there, Raw)
    assert there.content == b"x = 1\n"
