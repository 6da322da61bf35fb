"""Which files import which: small repositories with their edges written by hand, and large ones in little time."""

import subprocess
import sys

import pytest

from codelm.languages import language_of
from data.import_graph import dependencies
from data.imports import imports
from tests.conftest import ROOT


def edges(files: dict[str, str]) -> dict[str, list[str]]:
    """Of each file that imports others the paths of those, from texts."""
    paths = list(files)
    languages = [language_of(path, text) or "" for path, text in files.items()]
    found = dependencies(
        paths, languages, [imports(files[path], lang) for path, lang in zip(paths, languages, strict=True)]
    )
    for number, row in enumerate(found):
        assert row == sorted(set(row) - {number})
    return {paths[number]: [paths[one] for one in row] for number, row in enumerate(found) if row}


def test_python_packages() -> None:
    assert edges(
        {
            "pkg/__init__.py": "from .core import run\n",
            "pkg/core.py": "import os\nfrom . import util\nfrom .sub import deep, name\nfrom ..outside import x\n",
            "pkg/util.py": "import typing\nfrom pkg import VERSION\n",
            "pkg/typing.py": "",
            "pkg/sub/__init__.py": "",
            "pkg/sub/deep.py": "from ..util import f\nfrom .. import *\nimport pkg.core as c, requests, pkg.sub.x.y\n",
            "pkg/sub/requests.py": "",
            "tests/test_core.py": "from pkg.core import run\nimport pkg.sub.deep, helpers\nimport requests\n",
            "tests/helpers.py": "import helpers\n",
            "other/helpers.py": "",
            "setup.py": "from pkg import VERSION\n",
        }
    ) == {
        "pkg/__init__.py": ["pkg/core.py"],
        "pkg/core.py": ["pkg/util.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"],
        "pkg/util.py": ["pkg/__init__.py"],
        "pkg/sub/deep.py": ["pkg/__init__.py", "pkg/core.py", "pkg/util.py"],
        "tests/test_core.py": ["pkg/core.py", "pkg/sub/deep.py", "tests/helpers.py"],
        "setup.py": ["pkg/__init__.py"],
    }


def test_python_roots() -> None:
    """src/, several packages of a name, scripts beside modules, folders on sys.path, what the standard library has."""
    assert edges(
        {
            "src/a/__init__.py": "",
            "src/a/b.py": "",
            "copy/a/__init__.py": "",
            "copy/a/b.py": "",
            "bench/run.py": "import a.b\nfrom lib import f\nimport json, json.decoder\nfrom test.support import x\n",
            "bench/lib.py": "",
            "one/vendor/lib.py": "",
            "bench/json.py": "",
            "one/vendor/json/decoder.py": "",
            "two/vendor/user.py": "import shared\n",
            "two/deep/shared.py": "",
            "one/other/shared.py": "",
            "test/support.py": "",
            "model/__init__.py": "",
            "model/train.py": "from net import Net\nimport conf\n",
            "model/net.py": "",
            "model/conf.py": "",
            "conf.py": "",
        }
    ) == {
        "bench/run.py": ["src/a/b.py", "bench/lib.py", "test/support.py"],
        "two/vendor/user.py": ["two/deep/shared.py"],
        "model/train.py": ["model/net.py", "conf.py"],
    }


def test_javascript_and_typescript() -> None:
    assert edges(
        {
            "src/app.ts": "import { a } from './a';\nimport b from './b.js';\nimport './style.css';\nimport 'react';\n",
            "src/a.ts": "export * from './deep';\nexport { x } from '..';\n",
            "src/a.js": "",
            "src/b.ts": "import c from '@/c';\nimport type { D } from 'src/d';\n",
            "src/c.vue": "<script>\nimport A from './a'\nimport p from '../package.json'\n</script>\n",
            "src/d.d.ts": "",
            "src/style.css": "",
            "src/deep/index.tsx": "import x from '../../../outside';\nconst lazy = import('../c.vue');\n",
            "lib/old.js": "const a = require('../src/a'), b = require('./other?raw');\nrequire('lodash/map');\n",
            "lib/other.mjs": "import '@/a'\n",
            "index.js": "module.exports = require('./lib/old')\n",
            "package.json": "{}",
        }
    ) == {
        "src/app.ts": ["src/a.ts", "src/b.ts", "src/style.css"],
        "src/a.ts": ["src/deep/index.tsx", "index.js"],
        "src/b.ts": ["src/c.vue", "src/d.d.ts"],
        "src/c.vue": ["src/a.ts", "package.json"],
        "src/deep/index.tsx": ["src/c.vue"],
        "lib/old.js": ["src/a.js", "lib/other.mjs"],
        "lib/other.mjs": ["src/a.js"],
        "index.js": ["lib/old.js"],
    }


def test_java_kotlin_and_scala() -> None:
    """By package, which Kotlin leaves out of its paths in part; the nearest of several modules."""
    assert edges(
        {
            "m/src/main/java/org/x/A.java": "package org.x;\nimport org.x.util.B;\nimport no.X;\nimport org.x.k.K;\n",
            "m/src/main/java/org/x/util/B.java": "package org.x.util;\nimport static org.x.A.Inner.f;\n",
            "m/src/main/java/org/x/util/C.java": "package org.x.util;\n",
            "m/src/main/kotlin/k/K.kt": "package org.x.k\nimport org.x.util.*\n",
            "m/src/test/java/org/x/ATest.java": "package org.x;\nimport org.x.util.B;\nimport org.x.*;\n",
            "n/src/main/java/org/x/util/B.java": "package org.x.util;\n",
            "n/src/main/java/org/x/N.java": "package org.x;\nimport org.x.util.B;\n",
            "n/src/main/scala/S.scala": "package s\nimport org.x.{N, util}\nimport org.x.util.B._\n",
        }
    ) == {
        "m/src/main/java/org/x/A.java": ["m/src/main/java/org/x/util/B.java", "m/src/main/kotlin/k/K.kt"],
        "m/src/main/java/org/x/util/B.java": ["m/src/main/java/org/x/A.java"],
        "m/src/main/kotlin/k/K.kt": [
            "m/src/main/java/org/x/util/B.java",
            "m/src/main/java/org/x/util/C.java",
            "n/src/main/java/org/x/util/B.java",
        ],
        "m/src/test/java/org/x/ATest.java": [
            "m/src/main/java/org/x/A.java",
            "m/src/main/java/org/x/util/B.java",
            "n/src/main/java/org/x/N.java",
        ],
        "n/src/main/java/org/x/N.java": ["n/src/main/java/org/x/util/B.java"],
        "n/src/main/scala/S.scala": ["n/src/main/java/org/x/util/B.java", "n/src/main/java/org/x/N.java"],
    }


def test_java_without_packages_goes_by_paths() -> None:
    paths = ["src/main/java/a/b/C.java", "src/main/java/a/D.java", "x/a/E.java"]
    found = dependencies(paths, ["Java"] * 3, [["a.D"], ["a.b.*"], ["x.a.E", "a.b.C"]])
    assert found == [[1], [0], [0]]


GO = {
    "main.go": 'import (\n\t"fmt"\n\t"errors"\n\tu "github.com/me/proj/pkg/util"\n\t"github.com/you/errors"\n)\n',
    "pkg/util/a.go": 'package util\nimport "github.com/me/proj/internal"\n',
    "pkg/util/b.go": "package util\n",
    "pkg/util/a_test.go": 'package util_test\nimport "github.com/me/proj/pkg/util"\n',
    "pkg/util/README.md": "",
    "internal/i.go": 'package internal\nimport "net/http"\n',
    "errors/e.go": "package errors\n",
    "http/h.go": "package http\n",
    "pkg/root.go": 'package pkg\nimport "github.com/me/proj"\n',
}
GO_EDGES = {
    "main.go": ["pkg/util/a.go", "pkg/util/b.go"],
    "pkg/util/a.go": ["internal/i.go"],
    "pkg/util/a_test.go": ["pkg/util/a.go", "pkg/util/b.go"],
    "pkg/root.go": ["main.go"],
}


@pytest.mark.parametrize("module", [{}, {"go.mod": "module github.com/me/proj\n\ngo 1.22\n"}])
def test_go_with_and_without_the_file_that_names_the_module(module: dict[str, str]) -> None:
    assert edges(GO | module) == GO_EDGES


def test_go_modules_in_folders_and_vendored_packages() -> None:
    assert edges(
        {
            "a/go.mod": "module x.y/a\n",
            "a/m.go": 'package a\nimport "x.y/a/b"\nimport "x.y/a/v2/b"\nimport "z.w/lib"\n',
            "a/b/b.go": "package b\n",
            "second/go.mod": "module x.y/a/v2\n",
            "second/b/b.go": "package b\n",
            "vendor/z.w/lib/l.go": "package lib\n",
            "b/b.go": "package b\n",
        }
    ) == {"a/m.go": ["a/b/b.go", "second/b/b.go", "vendor/z.w/lib/l.go"]}


def test_go_packages_of_the_standard_library_are_not_the_repositorys() -> None:
    assert edges({"main.go": 'package main\nimport "net/http"\n', "http/h.go": "package http\n"}) == {}


def test_c_and_its_kin() -> None:
    assert edges(
        {
            "src/main.c": '#include "util.h"\n#include <proj/api.h>\n#include "deep.h"\n#include "../x.h"\n',
            "src/system.c": "#include <string.h>\n#include <util.h>\n",
            "src/util.h": "",
            "include/util.h": "",
            "include/proj/api.h": '#include "types.h"\n#include "nowhere.h"\n#include "../../../out.h"\n',
            "include/proj/types.h": "",
            "lib/a/b/deep.h": '#include "twice.h"\n#include "b/only.h"\n',
            "lib/string.h/string.h": "",
            "lib/a/b/only.h": "",
            "one/twice.h": "",
            "two/twice.h": "",
            "x.h": "",
            "out.h": "",
            "src/kernel.cu": '#include "util.h"\n',
        }
    ) == {
        "src/main.c": ["src/util.h", "include/proj/api.h", "lib/a/b/deep.h", "x.h"],
        "src/system.c": ["include/util.h"],
        "include/proj/api.h": ["include/proj/types.h"],
        "lib/a/b/deep.h": ["lib/a/b/only.h"],
        "src/kernel.cu": ["src/util.h"],
    }


def test_rust() -> None:
    assert edges(
        {
            "Cargo.toml": "",
            "src/lib.rs": "pub mod a;\nmod b;\nuse a::one;\nuse std::fmt;\nuse serde::a;\n",
            "src/a.rs": "mod one;\nmod x {}\nuse crate::b::{B, c::C};\nuse self::one;\nmod t {\n  use super::*;\n}\n",
            "src/a/one.rs": "use super::x;\nuse super::super::b::B;\nuse crate::Error;\n",
            "src/std.rs": "",
            "src/z.rs": "mod one;\n",
            "src/z/one.rs": "",
            "src/b/mod.rs": "pub mod c;\nuse super::a;\nuse crate::a::one::Thing::{Left, Right};\n",
            "src/b/c.rs": "use my_macros::derive;\nuse super::B;\n",
            "my-macros/src/lib.rs": "mod derive;\n",
            "my-macros/src/derive.rs": "use crate::a;\n",
            "tests/it.rs": "mod common;\n",
            "tests/common/mod.rs": "",
        }
    ) == {
        "src/lib.rs": ["src/a.rs", "src/a/one.rs", "src/b/mod.rs"],
        "src/a.rs": ["src/a/one.rs", "src/b/mod.rs", "src/b/c.rs"],
        "src/a/one.rs": ["src/lib.rs", "src/a.rs", "src/b/mod.rs"],
        "src/z.rs": ["src/z/one.rs"],
        "src/b/mod.rs": ["src/a.rs", "src/a/one.rs", "src/b/c.rs"],
        "src/b/c.rs": ["src/b/mod.rs", "my-macros/src/derive.rs"],
        "my-macros/src/lib.rs": ["my-macros/src/derive.rs"],
        "my-macros/src/derive.rs": ["my-macros/src/lib.rs"],
        "tests/it.rs": ["tests/common/mod.rs"],
    }


OTHERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "lib/a/b.rb": (
        {"lib/a/b.rb": "require_relative 'c'\nrequire 'a/d'\n", "lib/a/c.rb": "", "lib/a/d.rb": "", "x/c.rb": ""},
        ["lib/a/c.rb", "lib/a/d.rb"],
    ),
    "app/C.php": (
        {
            "app/C.php": "<?php\nuse App\\Models\\User;\nuse Lib\\Thing\\X;\nrequire 'x.php';\n",
            "app/Models/User.php": "",
            "app/x.php": "",
            "another/Models/User.php": "",
            "X.php": "",
        },
        ["app/Models/User.php", "app/x.php"],
    ),
    "app/lib/a.dart": (
        {
            "app/lib/a.dart": "import 'package:app/b.dart';\nimport 'package:core/c.dart';\nimport 'd.dart';\n",
            "app/lib/b.dart": "",
            "app/lib/d.dart": "",
            "core/lib/c.dart": "",
        },
        ["app/lib/b.dart", "app/lib/d.dart", "core/lib/c.dart"],
    ),
    "a/BUILD": (
        {"a/BUILD": 'load(":b.bzl", "b")\nload("//c:d.bzl", "d")\n', "a/b.bzl": "", "c/d.bzl": ""},
        ["a/b.bzl", "c/d.bzl"],
    ),
    "s/a.scss": (
        {"s/a.scss": "@use 'b';\n@use 'c';\n", "s/_b.scss": "", "s/c/_index.scss": ""},
        ["s/_b.scss", "s/c/_index.scss"],
    ),
    "a/b.lua": ({"a/b.lua": "require('c.d')\n", "c/d/init.lua": "", "d.lua": ""}, ["c/d/init.lua"]),
    "bin/a.sh": ({"bin/a.sh": '. "$DIR/lib/b.sh"\n', "lib/b.sh": ""}, ["lib/b.sh"]),
    "p/a.proto": ({"p/a.proto": 'import "q/b.proto";\n', "proto/q/b.proto": ""}, ["proto/q/b.proto"]),
    "src/A.hs": ({"src/A.hs": "import B.C\n", "src/B/C.hs": ""}, ["src/B/C.hs"]),
    "a.tex": ({"a.tex": "\\input{b/c}\n", "b/c.tex": ""}, ["b/c.tex"]),
}


@pytest.mark.parametrize("path", OTHERS)
def test_other_languages(path: str) -> None:
    files, expected = OTHERS[path]
    assert edges(files) == {path: expected}


def test_a_repository_of_nothing_and_of_what_imports_nothing() -> None:
    assert dependencies([], [], []) == []
    assert dependencies(["a.csv", "a.py"], ["", "Python"], [["x"], ["", ".", "..", "...a", "a"]]) == [[], []]


ALIKE = [
    ("Python", "d{0}/utils.py", ["utils", "d1.utils", "x.utils", ".utils", "d2.missing.name"]),
    ("C", "d{0}/config.h", ["config.h", "<config.h>", "d1/config.h", "../d2/config.h", "missing/config.h"]),
    ("Java", "m{0}/src/a/Main.java", ["package:a", "a.Main", "a.Main.Inner.f", "a.Missing"]),
    ("TypeScript", "packages/p{0}/index.ts", ["./index", "..", "@/index", "p1/index", "packages/p2"]),
    ("Go", "c{0}/main.go", ["x.y/z/c1", "x.y/z/c2", "errors", "z.w/c3"]),
    ("Rust", "c{0}/src/lib.rs", ["mod a", "crate::b::c", "c1::x", "super::super::c2", "std::fmt"]),
    ("PHP", "d{0}/Models/User.php", ["App\\Models\\User", "x.php", "Models\\User"]),
]


@pytest.mark.parametrize(("language", "path", "targets"), ALIKE, ids=[language for language, *_ in ALIKE])
def test_time_grows_with_the_files_not_with_their_pairs(language: str, path: str, targets: list[str]) -> None:
    """Five thousand files of one name, in a process of its own: here every call is checked, which takes longest."""
    code = f"""if True:
        import time
        from data.import_graph import dependencies
        paths = [{path!r}.format(number) for number in range(5000)]
        start = time.perf_counter()
        dependencies(paths, [{language!r}] * 5000, [{targets!r}] * 5000)
        print(time.perf_counter() - start)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT)
    assert float(done.stdout) < 4  # 0.1 to 0.6; each with each, 10 and more
