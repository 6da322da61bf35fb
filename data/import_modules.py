"""Imports that name modules, packages and classes, as files of the repository."""

import sys
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from data.repository_files import Files, ancestors, folder_of, join, stem_of, suffixes

_PYTHON = (".py", ".pyx", ".pyi", ".pxd")
_STANDARD = sys.stdlib_module_names


class Python:
    """Modules, looked for where Python would find them, then anywhere: sys.path is set up in many ways."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __call__(self, number: int, target: str) -> Sequence[int]:
        folder = folder_of(self.files.paths[number])
        if target.startswith("."):
            found = self._relative(folder, target)
        elif target.partition(".")[0] not in self._tops:
            return ()
        else:
            found = self._absolute(folder, target)
        return () if found is None else (found,)

    def _relative(self, folder: str, target: str) -> int | None:
        name = target.lstrip(".")
        for _ in range(len(target) - len(name) - 1):
            if not folder:
                return None
            folder = folder_of(folder)
        path = name.replace(".", "/")
        if name and (found := self._module(join(folder, path))) is not None:
            return found
        return self._module(folder_of(join(folder, path)) if name else folder)

    def _absolute(self, folder: str, target: str) -> int | None:
        """The last part may be a name in a module. What the standard library has is the repository's own only if
        there is more than its first part, right where Python looks."""
        path = target.replace(".", "/")
        standard = target.partition(".")[0] in _STANDARD
        names = [path, folder_of(path)] if "/" in path else [path]
        if standard:
            names = [name for name in names if "/" in name]
        for root in ancestors(folder):
            for place in (root, join(root, "src")) if root not in self._packages else ():
                for name in names:
                    if (found := self._module(join(place, name))) is not None:
                        return found
        if standard:
            return None
        for name in names:
            if candidates := self._anywhere.get(name):
                return self.files.nearest(candidates, folder)
        if folder_of(folder) in self._packages:
            return None  # jax/_src/numpy is not what jax/_src/api.py imports as numpy
        # Scripts in a folder that is a package as well, and are run from it.
        return next((found for name in names if (found := self._module(join(folder, name))) is not None), None)

    def _module(self, path: str) -> int | None:
        """The package or the module of that path."""
        number = self.files.number
        for ending in _PYTHON:
            if (found := number.get(join(path, "__init__" + ending))) is not None:
                return found
        return next((number[path + ending] for ending in _PYTHON if path + ending in number), None)

    @cached_property
    def _packages(self) -> set[str]:
        return {folder_of(path) for path in self.files.paths if stem_of(path) == "__init__"}

    @cached_property
    def _tops(self) -> set[str]:
        """All that the first part of a name can be."""
        paths = [path for path in self.files.paths if path.endswith(_PYTHON)]
        return {part for path in paths for part in (*folder_of(path).split("/"), stem_of(path))}

    @cached_property
    def _anywhere(self) -> dict[str, list[int]]:
        """Modules in path order by all paths that begin where no package is: those can be on sys.path."""
        found: dict[str, list[int]] = {}
        for number in self.files.in_order:
            path = self.files.paths[number]
            if not path.endswith(_PYTHON):
                continue
            module = folder_of(path) if stem_of(path) == "__init__" else path.rpartition(".")[0]
            for suffix in suffixes(module):
                if module[: len(module) - len(suffix)].rstrip("/") not in self._packages and suffix:
                    found.setdefault(suffix, []).append(number)
        return found


_SOURCE_ROOTS = {"java", "kotlin", "scala", "groovy", "src"}


class Jvm:
    """Classes by the package that their file says it is in, or else by its path."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.packages: dict[str, list[int]] = {}
        self.classes: dict[str, list[int]] = {}
        for number in files.in_order:
            if files.languages[number] in ("Java", "Kotlin", "Scala", "Groovy"):
                package = self._package(number)
                self.packages.setdefault(package, []).append(number)
                self.classes.setdefault(f"{package}.{stem_of(files.paths[number])}", []).append(number)

    def __call__(self, number: int, target: str) -> Sequence[int]:
        folder = folder_of(self.files.paths[number])
        wildcard = target.endswith(".*")
        name = target.removesuffix(".*")
        if wildcard and name in self.packages:
            return self.packages[name]
        while "." in name:  # an inner class, a method
            if found := self.classes.get(name):
                return (self.files.nearest(found, folder),)
            name = name.rpartition(".")[0]
        return ()

    def _package(self, number: int) -> str:
        said = next((target for target in self.files.imports[number][:1] if target.startswith("package:")), None)
        if said is not None:
            return said.removeprefix("package:")
        folders = self.files.parts[number][:-1]
        roots = [place + 1 for place, folder in enumerate(folders) if folder in _SOURCE_ROOTS]
        return ".".join(folders[roots[-1] if roots else 0 :])


class Go:
    """Packages are folders: all files of one, without its tests."""

    def __init__(self, files: Files) -> None:
        self.folders: dict[str, list[int]] = {}
        for number in files.in_order:
            path = files.paths[number]
            if path.endswith(".go") and not path.endswith("_test.go"):
                self.folders.setdefault(folder_of(path), []).append(number)
        self.modules: dict[str, str] = {}
        for number in files.in_order:
            for target in files.imports[number][:1] if files.languages[number] == "Go Module" else ():
                self.modules.setdefault(target.removeprefix("module:"), folder_of(files.paths[number]))
        if not self.modules and (guess := self._guess(files)):
            self.modules[guess] = ""

    def __call__(self, number: int, target: str) -> Sequence[int]:
        for module in reversed(list(accumulate(target.split("/"), lambda module, part: f"{module}/{part}"))):
            if module in self.modules:
                rest = target[len(module) + 1 :]
                folder = self.modules[module]
                return self.folders.get(join(folder, rest) if rest else folder, ())
        return next((self.folders[at] for root in ("vendor", "src") if (at := join(root, target)) in self.folders), ())

    def _guess(self, files: Files) -> str | None:
        """Without go.mod: what most imports that end with a folder of the repository begin with."""
        said = {
            target
            for number, language in enumerate(files.languages)
            if language == "Go"
            for target in files.imports[number]
        }
        votes = Counter[str]()
        for target in said:
            for rest in list(suffixes(target))[1:]:
                if rest in self.folders:
                    votes[target.removesuffix("/" + rest)] += 1
                    break
        # `net` of net/http is no module, though a repository may have a folder http.
        modules = [(count, name) for name, count in votes.items() if "." in name.partition("/")[0] or count > 1]
        return max(modules, key=lambda module: (module[0], -len(module[1]), module[1]))[1] if modules else None


_CRATE_ROOTS = ("lib.rs", "main.rs")
_FOLDER_ITSELF = ("mod.rs", *_CRATE_ROOTS)


class Rust:
    """Modules by path: those inside a/b.rs, a/b/mod.rs are in a/b/."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.roots = {folder_of(path) for path in files.paths if path.rpartition("/")[2] in _CRATE_ROOTS}
        # Of a workspace; named by their folders, as they mostly are.
        self.crates = {
            root.split("/")[-2].replace("-", "_"): root for root in sorted(self.roots) if root.endswith("/src")
        }

    def __call__(self, number: int, target: str) -> Sequence[int]:
        path = self.files.paths[number]
        folder = folder_of(path)
        inside = folder if path[len(folder) :].strip("/") in _FOLDER_ITSELF else join(folder, stem_of(path))
        if target.startswith("mod "):
            found = next(
                (one for at in (inside, folder) if (one := self._file(join(at, target[4:]))) is not None), None
            )
        else:
            found = self._path(folder, inside, target.split("::"))
        return () if found is None else (found,)

    def _path(self, folder: str, inside: str, names: list[str]) -> int | None:
        root = next((at for at in ancestors(folder) if at in self.roots), folder)
        match names[0]:
            case "std" | "core" | "alloc":
                return None
            case "crate":
                return self._longest(root, names[1:], itself=True)
            case "self" | "super":
                return self._relative(inside, names)
        found = self._longest(inside, names, itself=False)
        if found is None and names[0] in self.crates:
            return self._longest(self.crates[names[0]], names[1:], itself=True)
        return found if found is not None else self._longest(root, names, itself=False)  # the edition of 2015

    def _relative(self, inside: str, names: list[str]) -> int | None:
        while names and names[0] in ("self", "super"):
            if names[0] == "super":
                if not inside:
                    return None
                inside = folder_of(inside)
            names = names[1:]
        return self._longest(inside, names, itself=True)

    def _longest(self, inside: str, names: list[str], itself: bool) -> int | None:
        """The file of the longest path of modules; what follows is a name in it. With none, the module it is in."""
        for path in reversed(list(accumulate(names, lambda path, name: f"{path}/{name}"))):
            if (found := self._file(join(inside, path))) is not None:
                return found
        return self._file(inside) if itself else None

    def _file(self, module: str) -> int | None:
        names = (module + ".rs", *(join(module, name) for name in _FOLDER_ITSELF))
        return next((self.files.number[name] for name in names if name in self.files.number), None)
