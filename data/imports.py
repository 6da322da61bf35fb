"""What a file imports, as it says it: strings that data/import_graph.py finds the files of, with nothing but paths.

What the strings are, by language:

- Python, Cython: dotted names. `from a import b` is `a.b` (b may be a module or a name in a: whoever has the paths can
  tell), `from a import *` is `a`; relative ones keep their dots: `.x.y`, `..y`, `.`.
- JavaScript, TypeScript and what embeds them: what stands between the quotes.
- Java, Kotlin, Scala, Groovy: `package:a.b` for the package that the file is in, first; then `a.b.C`, `a.b.*`.
- Go: paths of packages; of go.mod, `module:` and the name of the module.
- Rust: `mod x`, and paths without their braces: `crate::a::b`, `super::x`, `a::*`. What is indented is mostly inside a
  `mod tests { … }` of the same file, so there one `super` is `self`.
- C and its kin: `x.h`, or `<x.h>` with its brackets.
- PHP: `A\\B` that is used, paths that are included.
- All others: paths, relative to the file or to some folder; `A.B` and `A::B` that name files are written `A/B`.
  What is surely relative to the file starts with `./` or `../`.

It is regular expressions, of which none takes more than linear time on any text: whatever can be long is possessive,
and what begins a match never fails after something long (its end is optional).
"""

import re
from collections.abc import Callable, Iterator

from data import import_statements

_LONGEST = 255
"""Characters of a target; no file has a longer name, and a text could claim megabytes."""

Find = Callable[[str], Iterator[str]]
"""Targets in a text that starts with a line break; names may come twice."""


def imports(text: str, language: str) -> list[str]:
    """What a text in that language imports, in its order, each once; nothing for languages whose imports name no files.

    >>> imports("from .x import y\\nimport os.path as p, re", "Python")
    ['.x.y', 'os.path', 're']
    """
    find = _FIND.get(language)
    if find is None:
        return []
    found = find("\n" + text.removeprefix("\ufeff"))
    return list(dict.fromkeys(target for target in found if 0 < len(target) <= _LONGEST))


def _each(pattern: str, write: Callable[[str], str] = str) -> Find:
    """Whatever groups of the pattern took part in a match."""
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[str]:
        for found in compiled.finditer(text):
            yield from (write(group) for group in found.groups() if group)

    return find


def _beside(path: str) -> str:
    """Relative to the file's own folder, whether or not it says so."""
    return path if path.startswith(("./", "../")) else "./" + path


def _dots(name: str) -> str:
    return name.replace(".", "/")


def _colons(name: str) -> str:
    return name.replace("::", "/") + ".pm"


def _windows(path: str) -> str:
    return path.replace("\\", "/")


def _label(label: str) -> str:
    """Bazel's `//a/b:c.bzl` and `:c.bzl`."""
    return "./" + label[1:] if label.startswith(":") else label.lstrip("/").replace(":", "/")


def _ruby(text: str) -> Iterator[str]:
    for found in _REQUIRE.finditer(text):
        yield _beside(found[2]) if found[1] else found[2]


_REQUIRE = re.compile(r"""\n[ \t]*+(?:require(_relative)?|load)[ \t(]++["']([^"'\n]++)["']""")
_INCLUDE = _each(r'\n[ \t]*+#[ \t]*+(?:include(?:_next)?|import)[ \t]*+(?:"([^"\n]++)"|(<[^>\n]++>))')
_STYLE = _each(r"""@(?:import|use|forward|require)[ \t]++(?:\([^()\n]*+\)[ \t]*+)?(?:url\()?["']([^"'\n]++)["']""")
_MODULE = r"([A-Z][\w']*+(?:\.[A-Z][\w']*+)*+)"
_HASKELL = _each(
    rf'\n(?:open[ \t]++)?import[ \t]++(?:safe[ \t]++)?(?:qualified[ \t]++)?(?:"[^"\n]*+"[ \t]*+)?{_MODULE}', _dots
)
_LUA = _each(
    r"""(?:require|dofile|loadfile)[ \t]*+\(?[ \t]*+(?:"([\w./-]++)"|'([\w./-]++)')""",
    lambda name: name if "/" in name or name.endswith(".lua") else _dots(name),
)
# The folder of the script is written in many ways (`$DIR/x`, `${0%/*}/x`, `"$(dirname "$0")"/x`): all are cut off.
_SHELL = _each(
    r"""\n[ \t]*+(?:source|\.)[ \t]++["']?(?:\$(?:\{[^}\n]*+\}|\([^()\n]*+\)|\w++)["']?/)?+([\w.+-][\w./+-]*+)"""
)
_POWERSHELL = _each(
    r"""(?i)\n[ \t]*+(?:\.|import-module|using[ \t]++module)[ \t]++["']?(?:\$PSScriptRoot[\\/])?([\w.\\/-]++)""",
    _windows,
)
_QUOTED = r"""["']([^"'\n]++)["']"""

_BY_LANGUAGES: dict[str, Find] = {
    "Python, Cython": import_statements.python,
    "JavaScript, TypeScript, TSX, Vue, Svelte, Astro, MDX, Solidity": import_statements.javascript,
    "CoffeeScript, LiveScript": _each(rf"require[ \t(]++{_QUOTED}"),
    "Java, Kotlin, Scala, Groovy": import_statements.jvm,
    "Go": import_statements.go,
    "Go Module": _each(r"\nmodule[ \t]++(\S++)", "module:{}".format),
    "Rust": import_statements.rust,
    "PHP, Hack": import_statements.php,
    "C, C++, Objective-C, Objective-C++, Cuda, OpenCL, GLSL, HLSL, Metal": _INCLUDE,
    "Assembly": _each(rf"""\n[ \t]*+[#%.]?include[ \t]++{_QUOTED}"""),
    "Verilog, SystemVerilog": _each(r'\n[ \t]*+`include[ \t]++"([^"\n]++)"'),
    "Fortran, Fortran Free Form": _each(rf"(?i)\n[ \t]*+#?include[ \t]++{_QUOTED}"),
    "Ruby, Crystal": _ruby,
    "Lua, MoonScript": _LUA,
    "Shell, Fish": _SHELL,
    "PowerShell": _POWERSHELL,
    "Perl": _each(r"\n[ \t]*+(?:use|require)[ \t]++([A-Z]\w*+(?:::\w++)*+)", _colons),
    "Haskell, Agda, Idris, PureScript, Elm": _HASKELL,
    "D": _each(r"\n[ \t]*+(?:public[ \t]++|static[ \t]++)?import[ \t]++(?:\w++[ \t]*+=[ \t]*+)?([\w.]++)", _dots),
    "Julia": _each(r'\binclude\([ \t]*+"([^"\n]++)"', _beside),
    "R": _each(rf"\bsource\([ \t]*+{_QUOTED}"),
    "Dart": _each(rf"\n[ \t]*+(?:import|export|part)[ \t]++{_QUOTED}"),
    "Erlang": _each(r'\n-include(?:_lib)?\([ \t]*+"([^"\n]++)"'),
    "Zig": _each(r'@(?:import|embedFile)\("([^"\n]++)"\)'),
    "Protocol Buffer": _each(rf"\n[ \t]*+import[ \t]++(?:public[ \t]++|weak[ \t]++)?{_QUOTED}"),
    "Thrift, FlatBuffers": _each(rf"\n[ \t]*+include[ \t]++{_QUOTED}"),
    "Jsonnet": _each(rf"\bimport(?:str)?[ \t]++{_QUOTED}", _beside),
    "Nix": _each(r"\b(?:import|callPackage)[ \t]++(\.\.?/[\w./+-]++)"),
    "Starlark": _each(r'\nload\([ \t\n]*+"([^"\n@]++)"', _label),
    "CSS, SCSS, Sass, Less, Stylus, PostCSS": _STYLE,
    "TeX": _each(r"\\(?:input|include|subfile)[ \t]*+\{([^}\n\\#]++)\}"),
    "CMake": _each(r"(?i)\n[ \t]*+include[ \t]*+\([ \t]*+\"?(?:\$\{CMAKE_CURRENT_(?:SOURCE|LIST)_DIR\}/)?([\w./+-]++)"),
    "Makefile": _each(r"\n-?include[ \t]++(?:\$[({]\w++[)}]/?)?([\w./+-]++)"),
}
_FIND: dict[str, Find] = {name: find for names, find in _BY_LANGUAGES.items() for name in names.split(", ")}
