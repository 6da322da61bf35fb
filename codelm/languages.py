"""The language of a file: by its name, by what it says where the name leaves a choice, by its first line without one.

Languages have the names that GitHub's linguist gives them. SQL's dialects are one language unless the name says more.
"""

import re
from pathlib import PurePath

from codelm.language_content import told_apart

# Extensions without the first dot. The first language of an extension that several claim is the one assumed where
# there is no text to look at; codelm/language_content.py tells them apart where there is.
_EXTENSIONS: dict[str, str] = {
    "ABAP": "abap",
    "ActionScript": "as",
    "Ada": "adb ads ada",
    "Agda": "agda",
    "AIDL": "aidl",
    "Alloy": "als",
    "AngelScript": "angelscript",
    "ANTLR": "g4",
    "Apex": "cls trigger apex",
    "AppleScript": "applescript",
    "AsciiDoc": "adoc asciidoc",
    "AspectJ": "aj",
    "ASP.NET": "aspx ascx ashx asmx",
    "Assembly": "asm s nasm",
    "Astro": "astro",
    "AutoHotkey": "ahk",
    "AutoIt": "au3",
    "Awk": "awk gawk mawk",
    "Ballerina": "bal",
    "BASIC": "bas",
    "Batchfile": "bat cmd",
    "BibTeX": "bib",
    "Bicep": "bicep",
    "BitBake": "bb bbappend bbclass",
    "Blade": "blade.php",
    "Bluespec": "bsv",
    "C": "c h h.in c.in",
    "C#": "cs csx cake",
    "C++": "cc cpp cxx c++ hh hpp hxx h++ ipp tpp txx inl inc cppm ixx ino",
    "Cairo": "cairo",
    "Cap'n Proto": "capnp",
    "Ceylon": "ceylon",
    "Chapel": "chpl",
    "CMake": "cmake cmake.in",
    "Clojure": "clj cljs cljc edn",
    "COBOL": "cob cbl cobol cpy",
    "CoffeeScript": "coffee cson litcoffee",
    "Common Lisp": "lisp lsp asd cl",
    "Coq": "coq",
    "Crystal": "cr",
    "CSS": "css",
    "Cuda": "cu cuh",
    "CUE": "cue",
    "Cypher": "cypher cyp",
    "Cython": "pyx pxd pxi",
    "D": "d di",
    "Dafny": "dfy",
    "Dart": "dart",
    "Dhall": "dhall",
    "Diff": "diff patch",
    "Dockerfile": "dockerfile containerfile",
    "Eiffel": "e",
    "EJS": "ejs",
    "Elixir": "ex exs",
    "Elm": "elm",
    "Emacs Lisp": "el",
    "Erlang": "erl hrl escript",
    "F#": "fs fsi fsx",
    "F*": "fst fsti",
    "Factor": "factor",
    "Fish": "fish",
    "FlatBuffers": "fbs",
    "Fluent": "ftl",
    "Forth": "fth 4th forth",
    "Fortran": "f f77 for fpp",
    "Fortran Free Form": "f90 f95 f03 f08",
    "GAP": "gap gi",
    "GDScript": "gd",
    "Gherkin": "feature",
    "Gleam": "gleam",
    "GLSL": "glsl vert frag geom comp tesc tese vsh fsh",
    "Gnuplot": "gp gnuplot plt",
    "Go": "go",
    "Gradle": "gradle",
    "GraphQL": "graphql gql graphqls",
    "Graphviz (DOT)": "dot gv",
    "Groovy": "groovy gvy gsh",
    "Hack": "hack hhi",
    "Haml": "haml",
    "Handlebars": "hbs handlebars",
    "Haskell": "hs lhs hsc",
    "Haxe": "hx",
    "HCL": "hcl tf tfvars nomad",
    "HLSL": "hlsl hlsli fx",
    "HTML": "html htm xhtml html.hl",
    "HTML+Django": "jinja jinja2 j2",
    "HTML+ERB": "erb html.erb rhtml",
    "HTML+EEX": "eex heex html.eex html.heex leex",
    "HTML+Razor": "cshtml razor",
    "Hy": "hy",
    "Idris": "idr lidr",
    "INI": "ini cfg conf editorconfig",
    "Isabelle": "thy",
    "Java": "java jav jsh",
    "Java Properties": "properties",
    "Java Server Pages": "jsp jspx tag",
    "JavaScript": "js jsx mjs cjs es6 jsm",
    "JSON": "json webmanifest",
    "JSON with Comments": "jsonc code-workspace",
    "JSON5": "json5",
    "Jsonnet": "jsonnet libsonnet",
    "Julia": "jl",
    "Jupyter Notebook": "ipynb",
    "Just": "just",
    "Kotlin": "kt kts",
    "LabVIEW": "lvproj",
    "Lean": "lean",
    "Less": "less",
    "Lex": "l lex ll",
    "Linker Script": "ld lds",
    "Liquid": "liquid",
    "LiveScript": "ls",
    "LLVM": "llvm",
    "Lua": "lua luau rockspec nse",
    "M4": "m4",
    "M4Sugar": "ac",
    "Makefile": "mk mak make",
    "Markdown": "md markdown mdown mkd ronn",
    "Mathematica": "wl wls mathematica mt",
    "MATLAB": "matlab",
    "MDX": "mdx",
    "Mercury": "mercury moo",
    "Meson": "wrap",
    "Metal": "metal",
    "MLIR": "mlir",
    "Modula-2": "mod",
    "Modula-3": "i3 m3 ig mg",
    "Mojo": "mojo",
    "MoonScript": "moon",
    "Mustache": "mustache",
    "Nim": "nim nims nimble",
    "Ninja": "ninja",
    "Nix": "nix",
    "NSIS": "nsi nsh",
    "Nunjucks": "njk",
    "Objective-C": "m",
    "Objective-C++": "mm",
    "OCaml": "ml mli mll mly eliom",
    "Odin": "odin",
    "OpenCL": "opencl clh",
    "OpenEdge ABL": "abl",
    "OpenSCAD": "scad",
    "Org": "org",
    "Pascal": "pas dpr lpr dfm",
    "Perl": "pl pm t perl plx psgi",
    "PHP": "php php3 php4 php5 phps phtml ctp",
    "PLpgSQL": "pgsql",
    "PLSQL": "pls pks pkb plsql plb",
    "Pod": "pod",
    "Pony": "pony",
    "PostCSS": "pcss postcss",
    "PostScript": "ps eps",
    "PowerShell": "ps1 psm1 psd1",
    "Processing": "pde",
    "Prolog": "prolog yap",
    "Protocol Buffer": "proto",
    "Pug": "pug jade",
    "Puppet": "pp",
    "PureScript": "purs",
    "Python": "py pyi pyw py3 pyt wsgi gyp gypi py.in",
    "Q#": "qs",
    "QMake": "pro pri prf",
    "QML": "qml qbs",
    "Qt Script": "qtscript",
    "R": "r rsx",
    "Racket": "rkt rktl rktd scrbl",
    "Raku": "raku rakumod rakutest p6 pm6 pl6",
    "ReasonML": "re rei",
    "Rebol": "reb rebol r3",
    "ReScript": "res resi",
    "reStructuredText": "rst rest",
    "RMarkdown": "rmd qmd",
    "Roff": "roff man mdoc",
    "RPM Spec": "spec",
    "Ruby": "rb rake gemspec ru rbw podspec thor jbuilder rabl builder",
    "Rust": "rs rs.in",
    "SAS": "sas",
    "Sass": "sass",
    "Scala": "scala sbt sc kojo",
    "Scheme": "scm ss sld sps",
    "Scilab": "sci sce",
    "SCSS": "scss",
    "Shell": "sh bash zsh ksh bats command sh.in ebuild eclass",
    "Slim": "slim",
    "Smali": "smali",
    "Smalltalk": "st",
    "Smarty": "tpl",
    "SMT": "smt2 smt",
    "Solidity": "sol",
    "SourcePawn": "sp",
    "SPARQL": "sparql rq",
    "SQL": "sql ddl dml prc tab udf viw",
    "Stan": "stan",
    "Standard ML": "sml sig fun",
    "Starlark": "bzl star bazel",
    "Stata": "do ado doh mata",
    "Stylus": "styl",
    "SuperCollider": "scd",
    "Svelte": "svelte",
    "Swift": "swift",
    "SWIG": "swg i",
    "SystemVerilog": "sv svh vh",
    "Tcl": "tcl adp tm itk",
    "Templ": "templ",
    "TeX": "tex sty ltx dtx ins bbx cbx lbx",
    "Texinfo": "texi texinfo txinfo",
    "Text": "txt",
    "Thrift": "thrift",
    "TLA": "tla",
    "TOML": "toml",
    "TSX": "tsx",
    "Turtle": "ttl",
    "Twig": "twig html.twig",
    "TypeScript": "ts mts cts d.ts",
    "TypeSpec": "tsp",
    "Typst": "typ",
    "V": "vv",
    "Vala": "vala vapi",
    "VBA": "vba frm",
    "VBScript": "vbs",
    "Verilog": "v veo",
    "VHDL": "vhd vhdl",
    "Vim Script": "vim vimrc nvimrc",
    "Visual Basic .NET": "vb vbhtml",
    "Vue": "vue",
    "Vyper": "vy",
    "WebAssembly": "wat wast",
    "WebIDL": "webidl",
    "WGSL": "wgsl",
    "Wren": "wren",
    "X10": "x10",
    "XML": "xml xsd wsdl plist csproj fsproj vbproj vcxproj props targets resx xaml axml nuspec ui qrc rss pom xmi tmx",
    "XQuery": "xquery xq xqy",
    "XSLT": "xsl xslt",
    "Xtend": "xtend",
    "Yacc": "y yacc yy",
    "YAML": "yaml yml syntax sublime-syntax",
    "YANG": "yang",
    "YARA": "yar yara",
    "Zig": "zig zon",
}

_NAMES: dict[str, str] = {
    "Dockerfile": "Dockerfile Containerfile",
    "CMake": "CMakeLists.txt",
    "Elixir": "mix.lock",
    "Emacs Lisp": ".emacs .spacemacs Cask",
    "Erlang": "Emakefile rebar.config rebar.config.lock rebar.lock",
    "Git Attributes": ".gitattributes",
    "Git Config": ".gitconfig .gitmodules",
    "Go Module": "go.mod",
    "Go Workspace": "go.work",
    "Gradle": "build.gradle settings.gradle",
    "Groovy": "Jenkinsfile",
    "Ignore List": ".gitignore .dockerignore .npmignore .eslintignore .prettierignore",
    "INI": ".editorconfig .flake8 .pylintrc .coveragerc .npmrc setup.cfg tox.ini",
    "JavaScript": "Jakefile",
    "JSON": ".all-contributorsrc .htmlhintrc Pipfile.lock composer.lock .watchmanconfig flake.lock",
    "JSON with Comments": "tsconfig.json jsconfig.json .babelrc .eslintrc.json .jshintrc .eslintrc devcontainer.json",
    "Just": "justfile Justfile .justfile",
    "Kconfig": "Kconfig Kconfig.debug",
    "Lua": ".luacheckrc",
    "M4Sugar": "configure.ac",
    "Makefile": "Makefile makefile GNUmakefile BSDmakefile Kbuild Makefile.am Makefile.in Makefile.inc Makefile.win",
    "Meson": "meson.build meson_options.txt",
    "Nginx": "nginx.conf",
    "Perl": "Makefile.PL Build.PL cpanfile Rexfile",
    "Procfile": "Procfile",
    "Python": "SConstruct SConscript wscript DEPS Snakefile",
    "QMake": "qmake.conf",
    "R": ".Rprofile",
    "Ruby": "Gemfile Rakefile Vagrantfile Podfile Guardfile Brewfile Fastfile Appfile Capfile Dangerfile Berksfile "
    "Thorfile Puppetfile Deliverfile Snapfile Steepfile .irbrc .pryrc",
    "Shell": ".bashrc .bash_profile .bash_login .bash_logout .bash_aliases .profile .zshrc .zshenv .zprofile .zlogin "
    ".kshrc .envrc PKGBUILD APKBUILD .xinitrc .xprofile gradlew mvnw bashrc zshrc",
    "SSH Config": "ssh_config sshd_config",
    "Starlark": "BUILD WORKSPACE BUILD.bazel WORKSPACE.bazel MODULE.bazel Tiltfile BUCK",
    "Text": "README CHANGELOG requirements.txt",
    "TOML": "Cargo.lock Pipfile poetry.lock uv.lock Gopkg.lock",
    "Vim Script": ".vimrc .gvimrc _vimrc .nvimrc",
    "XML": "pom.xml .classpath .project",
    "YAML": ".clang-format .clang-tidy .gemrc CITATION.cff .travis.yml pixi.lock",
    "Earthly": "Earthfile",
    "Singularity": "Singularity",
    "Caddyfile": "Caddyfile",
}

_INTERPRETERS: dict[str, str] = {
    "Awk": "awk gawk mawk nawk",
    "Clojure": "bb clojure",
    "CoffeeScript": "coffee",
    "Common Lisp": "sbcl clisp ecl",
    "Crystal": "crystal",
    "Dart": "dart",
    "Elixir": "elixir",
    "Erlang": "escript",
    "Fish": "fish",
    "Gnuplot": "gnuplot",
    "Groovy": "groovy",
    "Haskell": "runhaskell runghc stack",
    "JavaScript": "node nodejs bun qjs rhino",
    "Julia": "julia",
    "Kotlin": "kotlin",
    "Just": "just",
    "Lua": "lua luajit",
    "Makefile": "make gmake",
    "Nim": "nim",
    "OCaml": "ocaml ocamlrun",
    "Perl": "perl",
    "PHP": "php",
    "PowerShell": "pwsh powershell",
    "Prolog": "swipl yap",
    "Python": "python pypy",
    "R": "Rscript",
    "Racket": "racket",
    "Raku": "raku rakudo",
    "Ruby": "ruby jruby macruby rbx",
    "Scala": "scala",
    "Scheme": "guile gosh csi",
    "Shell": "sh bash zsh dash ash ksh mksh rc bats",
    "Swift": "swift",
    "Tcl": "tclsh wish expect",
    "TypeScript": "deno ts-node tsx",
    "V": "v",
}


def _table(languages: dict[str, str]) -> dict[str, str]:
    return {word: language for language, words in languages.items() for word in words.split()}


BY_EXTENSION = _table(_EXTENSIONS)
BY_NAME = _table(_NAMES)
BY_INTERPRETER = _table(_INTERPRETERS)

_CASED = {"C": "C++", "H": "C++"}  # as compilers read them
_SHEBANG = re.compile(r"#![ \t]*([^ \t\r\n]+)((?:[ \t]+[^ \t\r\n]+)*)")
_VERSION = re.compile(r"[\d.]+$|[-_][\d.]+$")


def language_of(path: str | PurePath, text: str | None = None) -> str | None:
    """The language of a file, or None where neither its name nor (given its text) its first line says."""
    name = re.split(r"[/\\]", str(path))[-1]
    if language := BY_NAME.get(name):
        return language
    extension = extension_of(name)
    if extension is None:
        start, dot, _ = name.partition(".")  # Dockerfile.dev, Makefile.linux
        if dot and start in ("Dockerfile", "Containerfile", "Makefile", "GNUmakefile", "Jenkinsfile", "Kconfig"):
            return BY_NAME[start]
        return shebang_language(text) if text else None
    if name.rpartition(".")[2] in _CASED and extension in ("c", "h"):
        return _CASED[name.rpartition(".")[2]]
    language = BY_EXTENSION[extension]
    return told_apart(extension, text, language) if text else language


def extension_of(name: str) -> str | None:
    """The longest known extension of a file name, lower case: `blade.php` rather than `php`."""
    rest = name.lower()
    while "." in rest:
        rest = rest.partition(".")[2]
        if rest in BY_EXTENSION:
            return rest
    return None


def shebang_language(text: str) -> str | None:
    """The language of the interpreter that a first line `#!…` names."""
    found = _SHEBANG.match(text.removeprefix("\ufeff"))
    if not found:
        return None
    words = [found[1], *found[2].split()]
    if words[0].rpartition("/")[2] == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    interpreter = words[0].rpartition("/")[2].removesuffix(".exe") if words else ""
    return BY_INTERPRETER.get(interpreter) or BY_INTERPRETER.get(_VERSION.sub("", interpreter))


def known_language(name: str) -> str | None:
    """The table's spelling of a language that a data set names in its own (`python`, `c-sharp`, `Jupyter-Notebook`)."""
    return _SPELLINGS.get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())


LANGUAGES: tuple[str, ...] = tuple(sorted({*_EXTENSIONS, *_NAMES, *_INTERPRETERS}))
_SPELLINGS = {_plain(name): name for name in LANGUAGES} | {
    "csharp": "C#",
    "cpp": "C++",
    "fsharp": "F#",
    "js": "JavaScript",
    "ts": "TypeScript",
    "golang": "Go",
    "bash": "Shell",
    "objectivec++": "Objective-C++",
    "rocqprover": "Coq",
    "wolframlanguage": "Mathematica",
    "viml": "Vim Script",
    "visualbasic": "Visual Basic .NET",
    "jupyter": "Jupyter Notebook",
    "restructuredtext": "reStructuredText",
    "rst": "reStructuredText",
    "latex": "TeX",
    "delphi": "Pascal",
    "protobuf": "Protocol Buffer",
}
