"""Which files of a repository a file of it imports: what data/imports.py found, and the paths there are.

Dictionaries of paths, of what paths end with, of packages: nothing goes through all pairs of files. A package of many
files that many import is many edges, though.
"""

from collections.abc import Callable, Sequence

from data import import_modules, import_paths
from data.repository_files import Files, folder_of

Find = Callable[[int, str], Sequence[int]]
"""The files that the importing file (its number) means by a target."""


def dependencies(paths: Sequence[str], languages: Sequence[str], imports: Sequence[Sequence[str]]) -> list[list[int]]:
    """For each file of one repository the numbers of those it imports, in order, itself never among them.

    >>> dependencies(["a.py", "b.py"], ["Python", "Python"], [["b.f", "os"], []])
    [[1], []]
    """
    files = Files(paths, languages, imports)
    finders: dict[Callable[[Files], Find], Find] = {}  # as they are needed: each makes its own dictionaries
    # In most languages all files of a folder mean the same by the same words.
    known: dict[tuple[Callable[[Files], Find], str, str, str], Sequence[int]] = {}
    found: list[list[int]] = []
    for number, (path, language, targets) in enumerate(zip(paths, languages, imports, strict=True)):
        make = _FINDERS.get(language, _paths)
        place = path if make is import_modules.Rust else folder_of(path)
        own: set[int] = set()
        for target in targets:
            key = (make, place, language, target)
            if key not in known:
                if make not in finders:
                    finders[make] = make(files)
                known[key] = finders[make](number, target)
            own.update(known[key])
        found.append(sorted(own - {number}))
    return found


def _paths(files: Files) -> Find:
    return lambda number, target: import_paths.path(files, number, target)


def _javascript(files: Files) -> Find:
    return lambda number, target: import_paths.javascript(files, number, target)


def _php(files: Files) -> Find:
    return lambda number, target: import_paths.php(files, number, target)


_FINDERS: dict[str, Callable[[Files], Find]] = {
    **dict.fromkeys(("Python", "Cython"), import_modules.Python),
    **dict.fromkeys(("Java", "Kotlin", "Scala", "Groovy"), import_modules.Jvm),
    **dict.fromkeys(("JavaScript", "TypeScript", "TSX", "Vue", "Svelte", "Astro", "MDX"), _javascript),
    **dict.fromkeys(("PHP", "Hack"), _php),
    **dict.fromkeys(("CoffeeScript", "LiveScript"), _javascript),
    "Go": import_modules.Go,
    "Rust": import_modules.Rust,
}
