"""What files import: in Python all that `ast` finds and nothing else, elsewhere by example; always in linear time."""

import ast
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codelm.languages import LANGUAGES
from data import imports as module
from data.imports import imports
from tests.data import standard_library

PARTS = [
    "import ",
    "from ",
    "export ",
    "require",
    "use ",
    "mod ",
    "package ",
    "#include ",
    "source ",
    "@",
    "a.b",
    "::x",
]
MARKS = [
    *"\n\n\n  ;:,*{}()<>[]\"'`\\/#.$_é\0\ud800\r\t",
    "//",
    "/*",
    "*/",
    '"""',
    "'''",
    "./x",
    " as y",
    "self",
    "super",
]
TEXTS = st.lists(st.sampled_from([*PARTS, *MARKS]), max_size=40).map("".join)


def by_ast(text: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            dot = "" if package.endswith(".") else "."
            found |= {package if alias.name == "*" else package + dot + alias.name for alias in node.names}
    return found


def test_python_agrees_with_ast_on_the_standard_library() -> None:
    """None missed, none made up, though docstrings are full of them (in all 610 files 4,060; here in every second)."""
    compared = 0
    for path, text in list(standard_library.texts().items())[::2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = by_ast(text)
        compared += len(expected)
        assert (path, set(imports(text, "Python"))) == (path, expected)
    assert compared > 1000


@pytest.mark.parametrize(
    "text",
    [
        "import a.b as c, d\n",
        "from .x import y, z as w\nfrom . import q\nfrom .. import r\nfrom ...s.t import u\n",
        "from a import (  # why (really)\n    b,  # one, two\n    c as d,\n)\nimport e\n",
        "from a import b, \\\n    c\nimport d, \\\n  e\nfrom \\\n  f import g\n",
        "try: import a\nexcept ImportError: import b\nif x:\n\timport c; import d\n",
        "x = '''\nimport a\n'''\nimport b\n# import c\ny = '\"\"\"'\nimport d\nz = '# '; import e\n",
        "# '''\nimport a  # it's\nimport b\n",
        "def f():\n    '''Doc.\n\n    import a\n    '''\n    from b import *\n    return 'it\\'s'\nimport c",
        "from .import a\nfrom a import(b)\nimportlib = 1\nfrom_x = 2\nimport\tc\n",
        "x = {'import': 1}\ndef f(a: 'from b import c', d=\":import e\"): pass\nraise x from y\n",
    ],
)
def test_python_agrees_with_ast_on(text: str) -> None:
    assert set(imports(text, "Python")) == by_ast(text)
    assert set(imports(text.replace("\n", "\r\n"), "Python")) == by_ast(text)


EXAMPLES: list[tuple[str, str, list[str]]] = [
    ("Python", "\ufeffimport b\nimport a, b\nfrom a.c import *\n", ["b", "a", "a.c"]),
    ("Cython", "cimport numpy as np\nfrom a cimport b\n", ["numpy", "a.b"]),
    ("JavaScript", "import a, { b as c } from './x';import './y.css'\n", ["./x", "./y.css"]),
    (
        "JavaScript",
        "import{a}from\"./x\";export*from'./y'\nexport {\n  d, // don't\n} from '../z'\n",
        ["./x", "./y", "../z"],
    ),
    ("JavaScript", "const a = require('./a'), b = require( \"b\" )\nimport c from 'c'\n", ["./a", "b", "c"]),
    (
        "JavaScript",
        "// import x from './no'\nexport default 'no'\nexport const y = 'no'\nlet f = () => import('./f')\n",
        ["./f"],
    ),
    (
        "TypeScript",
        "import type { A } from './a'\nimport e = require('./e')\nexport class C {}\nimport './c'\n",
        ["./a", "./e", "./c"],
    ),
    ("Vue", "<template/>\n<script>\n  import A from '@/a.vue'\n</script>\n", ["@/a.vue"]),
    ("Solidity", 'import {A} from "./A.sol";\nimport "./B.sol";\n', ["./A.sol", "./B.sol"]),
    (
        "Java",
        "/* import no.X; */\npackage a.b;\nimport a.b.C;\nimport static a.D.f;\nimport a.e.*;\n",
        ["package:a.b", "a.b.C", "a.D.f", "a.e.*"],
    ),
    ("Kotlin", "package a.`in`\n\nimport a.B as C\nimport a.`object`.D\n", ["package:a.in", "a.B", "a.object.D"]),
    (
        "Scala",
        "package a\npackage b\n\nimport c.{D, E => F, _}\nobject x {\n  import g._\n}\npackage object no {}\n",
        ["package:a.b", "c.D", "c.E", "c.*", "g.*"],
    ),
    ("Go", 'package x\n\nimport "fmt"\nimport m "a.b/m"\n', ["fmt", "a.b/m"]),
    ("Go", 'import (\n\t"a"\n\t. "b/c" // (no "d")\n\t// "e"\n\t_ `f`\n)\nvar x = "g"\n', ["a", "b/c", "f"]),
    ("Go Module", "module a.b/c\n\ngo 1.22\n", ["module:a.b/c"]),
    ("C", '#include "a/b.h"\n  #  include <stdio.h> // "no"\n// #include "no.h"\n', ["a/b.h", "<stdio.h>"]),
    ("Objective-C", '#import "A.h"\n@import UIKit;\n', ["A.h"]),
    ("Rust", "mod a;\npub(crate) mod b;\n#[cfg(test)] mod t;\nmod inline {}\n", ["mod a", "mod b", "mod t"]),
    (
        "Rust",
        "use crate::a::b as c;\npub use super::x::*;\nuse d::{self, e::{f, g as h}, // i, j\n  k::*};\nuse r#in::l;\n",
        ["crate::a::b", "super::x::*", "d", "d::e::f", "d::e::g", "d::k::*", "in::l"],
    ),
    ("Rust", "mod tests {\n    use super::*;\n    use super::super::a;\n}\n", ["self::*", "self::super::a"]),
    (
        "Ruby",
        "require_relative 'a'\nrequire_relative '../b'\nrequire \"c/d\"\n# require 'no'\n",
        ["./a", "../b", "c/d"],
    ),
    (
        "PHP",
        "use A\\B\\C as D;\nuse E\\{F, G as H};\nrequire_once __DIR__ . '/x.php';\ninclude(\"y.php\");\nuse Trait_;\n",
        ["A\\B\\C", "E\\F", "E\\G", "x.php", "y.php"],
    ),
    ("Dart", "import 'package:a/b.dart';\npart 'c.g.dart';\npart of 'no.dart';\n", ["package:a/b.dart", "c.g.dart"]),
    ("Lua", 'local a = require "a.b"\nlocal c = require(\'c\')\ndofile("d.lua")\n', ["a/b", "c", "d.lua"]),
    (
        "Shell",
        'source a.sh\n. ./b\n. "$DIR/c.sh"\nsource "${0%/*}/d.sh"\n. "$(dirname $0)/e.sh"\n./no.sh\n',
        ["a.sh", "./b", "c.sh", "d.sh", "e.sh"],
    ),
    ("Julia", 'include("a.jl")\n', ["./a.jl"]),
    ("R", "source('a.R')\n", ["a.R"]),
    ("Perl", "use strict;\nuse A::B qw(c);\n", ["A/B.pm"]),
    ("Haskell", "import qualified Data.Map as M\nimport A (b)\n", ["Data/Map", "A"]),
    ("D", "import a.b : c;\n", ["a/b"]),
    ("Zig", 'const a = @import("a.zig");\n', ["a.zig"]),
    ("Protocol Buffer", 'import public "a/b.proto";\n', ["a/b.proto"]),
    ("SCSS", "@use 'a';\n@import \"b/c\";\n@import url('d.css');\n", ["a", "b/c", "d.css"]),
    ("TeX", "\\input{a}\n\\include{b/c}\n", ["a", "b/c"]),
    ("Starlark", 'load("//a/b:c.bzl", "d")\nload(":e.bzl", "f")\nload("@g//h:i.bzl", "j")\n', ["a/b/c.bzl", "./e.bzl"]),
    ("PowerShell", ". $PSScriptRoot\\a\\b.ps1\nImport-Module ./c.psm1\n", ["a/b.ps1", "./c.psm1"]),
    ("Erlang", '-include("a.hrl").\n', ["a.hrl"]),
    ("Nix", "import ./a.nix { }\n  callPackage ../b { }\n", ["./a.nix", "../b"]),
    ("Verilog", '`include "a.vh"\n', ["a.vh"]),
    ("CMake", "include(${CMAKE_CURRENT_SOURCE_DIR}/a.cmake)\n", ["a.cmake"]),
    ("Makefile", "-include a.mk\ninclude $(TOP)/b.mk\n", ["a.mk", "b.mk"]),
    ("C#", "using A.B;\n", []),
    ("no such language", "import a\n", []),
]


@pytest.mark.parametrize(("language", "text", "expected"), EXAMPLES)
def test_imports_of(language: str, text: str, expected: list[str]) -> None:
    assert imports(text, language) == expected
    assert imports(text.replace("\n", "\r\n"), language) == expected


def test_languages_are_named_as_everywhere() -> None:
    assert set(module._FIND) <= {*LANGUAGES}


@given(TEXTS)
def test_any_text_has_some_imports_or_none(text: str) -> None:
    for language in module._FIND:
        found = imports(text, language)
        assert len(found) == len(set(found))
        assert all(0 < len(target) <= 255 for target in found)


# What a pattern could go through again and again: things that open and never close, and lists of what has a long name.
REPEATED = [
    *("import ", "\nimport", "\nimport (", "\nimport {", "\nimport /*", "\nfrom a import (", "\n;import a,", "\\\n"),
    *(
        "\nuse a::{",
        "\nuse a::{b::",
        "\nuse A\\{",
        "{",
        "(",
        '"',
        "'",
        "`",
        '"""',
        "/*",
        "\nimport a.{b,",
        "\npackage a.",
    ),
    *(
        'require("',
        "require( ",
        "require_once ",
        "\nrequire '",
        '\n#include "',
        "\n. $(",
        "@import (",
        "@use ",
        "\\input{",
    ),
    *(
        "\n#[",
        "\nload(",
        "include (",
        " ",
        "\n",
        "a.",
        "}import",
        "\nexport *",
        f"\nfrom {'a.' * 200} import b,",
        "a,b,",
    ),
]


@pytest.mark.parametrize("unit", REPEATED)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    for language in module._FIND:
        start = time.perf_counter()
        imports(text, language)
        assert time.perf_counter() - start < 1, language  # 0.03 s; where a pattern was quadratic it took 5


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("Python", f"from {'a' * 300_000} import {'b,' * 300_000}"),
        ("Rust", f"use {'a' * 300_000}::{{{'b,' * 300_000}}}"),
        ("Scala", f"import {'a' * 300_000}.{{{'b,' * 300_000}}}"),
        ("PHP", f"use {'a' * 300_000}\\{{{'b,' * 300_000}}}"),
    ],
)
def test_a_long_name_is_not_repeated_for_each_of_a_long_list(language: str, text: str) -> None:
    start = time.perf_counter()
    assert imports(text, language) == []
    assert time.perf_counter() - start < 2  # 0.2 s; ninety gigabytes would take ten and more


def test_what_is_too_long_for_a_path_is_none() -> None:
    assert imports(f"import {'a' * 255}, {'b' * 256}", "Python") == ["a" * 255]
