"""Imports that name paths, as files of the repository."""

from collections.abc import Iterator, Sequence

from data.repository_files import Files, ancestors, folder_of, join, resolved, suffixes

_ROOTS = ("", "include", "src", "lib")
"""Below the file's folder and those it is in: where build systems look for what is not beside the file."""

# What a language leaves out of the names of files; the first that there is, after the name as it stands.
_ENDINGS: dict[str, tuple[str, ...]] = {
    "Agda": (".agda",),
    "Crystal": (".cr",),
    "D": (".d", "/package.d"),
    "Elm": (".elm",),
    "Haskell": (".hs", ".lhs", ".hsc"),
    "Idris": (".idr",),
    "Less": (".less", ".css"),
    "Lua": (".lua", "/init.lua", ".luau"),
    "MoonScript": (".moon", ".lua"),
    "Nix": ("/default.nix",),
    "PureScript": (".purs",),
    "Ruby": (".rb",),
    "Sass": (".sass", "_.sass", ".scss", "_.scss", ".css", "/_index.sass", "/index.sass"),
    "SCSS": (".scss", "_.scss", ".sass", "_.sass", ".css", "/_index.scss", "/index.scss"),
    "Stylus": (".styl", "/index.styl"),
    "TeX": (".tex", ".sty"),
}


def path(files: Files, number: int, target: str) -> Sequence[int]:
    """Relative to the file's folder, then to that or one around it or their include/, src/, lib/, then the only one."""
    if target.startswith("package:"):
        return _dart(files, number, target.removeprefix("package:"))
    folder, language = folder_of(files.paths[number]), files.languages[number]
    system = target.startswith("<")
    target = target.strip("<>") if system else target
    endings = ("", *_ENDINGS.get(language, ()))
    if not system and (beside := resolved(folder, target)) is not None:
        for name in _names(beside, endings):
            if name in files.number:
                return (files.number[name],)
    if target.startswith(".") or not target.strip("/"):
        return ()
    for place in _around(folder, _ROOTS if not system or "/" in target else _ROOTS[1:]):
        for name in _names(join(place, target.lstrip("/")), endings):
            if name in files.number:
                return (files.number[name],)
    if system and "/" not in target:
        return ()  # <string.h> is not the only string.h of the repository, wherever that may be
    found = [file for name in _names(target, endings) for file in files.suffixes.get(name, ())]
    return found if len(found) == 1 else ()


def _names(name: str, endings: Sequence[str]) -> Iterator[str]:
    folder, slash, last = name.rpartition("/")
    for ending in endings:
        if ending.startswith("_"):  # Sass's partials: _x.scss
            yield f"{folder}{slash}_{last}{ending[1:]}"
        else:
            yield name + ending


def _around(folder: str, roots: Sequence[str]) -> Iterator[str]:
    for ancestor in ancestors(folder):
        for root in roots:
            yield join(ancestor, root) if root else ancestor


def _dart(files: Files, number: int, target: str) -> Sequence[int]:
    """`foo/x.dart` is lib/x.dart of the package foo, whose folder has its name, or is one around the file."""
    package, _, rest = target.partition("/")
    own = (join(place, f"lib/{rest}") for place in ancestors(folder_of(files.paths[number])))
    named = files.suffixes.get(f"{package}/lib/{rest}", ())
    return next(((files.number[name],) for name in own if name in files.number), ()) if len(named) != 1 else named


def php(files: Files, number: int, target: str) -> Sequence[int]:
    """`App\\Models\\User` is …/Models/User.php at least: what App stands for, a configuration says."""
    if "\\" not in target:
        return path(files, number, target)
    for name in suffixes(target.replace("\\", "/") + ".php"):
        if "/" in name and name in files.suffixes:
            return (files.nearest(files.suffixes[name], folder_of(files.paths[number])),)
    return ()


_TYPESCRIPT = (".ts", ".tsx", ".d.ts", ".mts", ".cts")
_PLAIN = (".js", ".jsx", ".mjs", ".cjs")
_OTHERS = (".vue", ".svelte", ".astro", ".json")
_COMPILED = {".js": (".ts", ".tsx", ".d.ts"), ".jsx": (".tsx",), ".mjs": (".mts",), ".cjs": (".cts",)}


def javascript(files: Files, number: int, target: str) -> Sequence[int]:
    """As bundlers do: `./x`, `/x`, `@/x` for src/x, `a/b` below a folder around the file; never a package."""
    importer = files.paths[number]
    folder = folder_of(importer)
    target = target.rpartition("!")[2].partition("?")[0]  # loaders and their options
    endings = (*_PLAIN, *_TYPESCRIPT) if importer.endswith(_PLAIN) else (*_TYPESCRIPT, *_PLAIN)
    for base in _bases(folder, target):
        if base not in files.folders and folder_of(base) not in files.folders:
            continue
        for name in _spellings(base, (*endings, *_OTHERS)):
            if name in files.number:
                return (files.number[name],)
    return ()


def _bases(folder: str, target: str) -> Iterator[str]:
    if target.startswith("."):
        if (base := resolved(folder, target)) is not None:
            yield base
    elif target.startswith("/"):
        yield target.lstrip("/")
    elif target.startswith(("@/", "~/")):
        yield from (join(place, target[2:]) for place in _around(folder, ("src", "")))
    elif "/" in target:
        yield from (join(place, target) for place in _around(folder, ("", "src")))


def _spellings(base: str, endings: Sequence[str]) -> Iterator[str]:
    yield base
    for compiled, sources in _COMPILED.items():
        if base.endswith(compiled):
            yield from (base.removesuffix(compiled) + source for source in sources)
    yield from (base + ending for ending in endings)
    yield from (join(base, "index" + ending) for ending in endings)
