"""The house is what the README says: rooms, import rule, dependencies, nothing tied to one machine."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ROOMS = ["codelm", "configs", "data", "experiments", "infer", "tests", "train"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked() -> list[Path]:
    """Files git tracks, or would: the working tree without what is ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_top_level_is_the_designs() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    files = {"LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
    assert {name for name in names if not name.startswith(".")} == files | set(ROOMS)


def test_licence_is_apache_2() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert PROJECT["license"] == "Apache-2.0"


def test_readme_tree_is_true() -> None:
    """Every name in the README's tree exists, and every module of every room is in it."""
    readme = (ROOT / "README.md").read_text()
    block = readme.split("```tree\n")[1].split("```")[0]
    names = re.findall(r"^( *)([\w./-]+)", block, re.M)
    shown, folder = set(), ""
    for indent, name in names:
        folder = folder if indent else name
        shown.add(folder + name if indent else name)
    assert [name for name in shown if not (ROOT / name).exists()] == []
    modules = {str(path.relative_to(ROOT)) for path in tracked() if path.suffix == ".py"}
    inside = {name for name in modules if name.split("/")[0] != "tests" and not name.endswith("__init__.py")}
    assert sorted(inside - shown) == []


def test_readme_commands_exist() -> None:
    from codelm import cli

    readme = (ROOT / "README.md").read_text()
    for verb in re.findall(r"codelm ((?:config|tokenizer|data) [a-z]+)", readme):
        assert verb in cli.VERBS
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"`make ([a-z]+)", readme):
        assert target in targets
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", readme, re.M))


def test_no_registry_address_and_no_machine_path() -> None:
    # Spelled in halves, so that this file does not hold what it forbids.
    registries = [
        "pypi" + ".org",
        "python" + "hosted",
        "index" + "-url",
        "npm" + "js",
        "extra-" + "index",
        "find-" + "links",
    ]
    machine = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/"]
    for path in tracked():
        if path.suffix in (".py", ".toml", ".txt", ".md", "", ".json", ".sh"):
            text = path.read_text(errors="ignore").lower()
            assert [word for word in registries + machine if word in text] == [], path


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line)] == []
    versions = {re.sub(r"[._-]+", "-", name).lower(): version for name, version in (line.split("==") for line in pins)}
    wanted = [
        *PROJECT["dependencies"],
        *(
            need
            for extra in PROJECT["optional-dependencies"].values()
            for need in extra
            if not need.startswith("codelm[")
        ),
    ]
    for need in map(Requirement, wanted):
        assert versions[re.sub(r"[._-]+", "-", need.name).lower()] in need.specifier, need


def test_core_brings_no_cuda_tensorflow_or_torch() -> None:
    """Everything the core pulls in, followed through the metadata of what is installed."""
    from importlib.metadata import PackageNotFoundError, requires

    seen: set[str] = set()
    todo = [Requirement(need).name for need in PROJECT["dependencies"]]
    while todo:
        name = re.sub(r"[._-]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = [Requirement(need) for need in requires(name) or []]
        except PackageNotFoundError:
            continue  # for another platform
        todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    assert len(seen) > 30
    assert [name for name in seen if re.search(r"cuda|nvidia|^torch|^tensorflow$|^tensorflow-cpu|libtpu", name)] == []


@pytest.mark.parametrize(
    ("room", "line", "kept"),
    [
        ("codelm", "import train", False),
        ("codelm", "import data.dataset", False),
        ("data", "import infer", False),
        ("infer", "import data", False),
        ("train", "import experiments", False),
        ("configs", "import experiments.run", False),
        ("train", "import infer", True),
        ("experiments", "import train", True),
    ],
)
def test_import_rule_is_enforced(room: str, line: str, kept: bool, tmp_path: Path) -> None:
    for path in tracked():
        if path.suffix == ".py" or path.name == "pyproject.toml":
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (tmp_path / room / "planted.py").write_text(line + "\n")
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == kept, done.stdout
    assert kept or "planted" in done.stdout
