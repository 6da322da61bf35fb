"""Middles where an editor would ask for a completion: from a trigger to the end of its line.

Language Causal Masking, as CodeCompose (arXiv 2305.12050) describes it: what is hidden in training begins where the
product would be asked, after one of the language's trigger characters, and ends with the line. The paper does not list
them; these tables are ours. Text is not lexed: a trigger in a comment or a string counts.
"""

import re
from functools import cache

import numpy as np

from data.spans import NoSpan, Span

_OPERATOR = "[-=<>!+*/%&|^~:?.]"
# Marks and words of each family. A mark of operators counts only as the whole of a run of them: in `==` and `//` no
# middle begins at the second character.
_MARKS: dict[str, str] = {
    "brace": "( [ { , . : ; = == != === !== <= >= => -> :: += -= *= /= := && || ? ?? ?. !. < + - * / % & |",
    "indent": "( [ { , . : = == != <= >= -> += -= *= /= //= := < > + - * / % | & @",
    "end": "( [ { , . : = == != ~= === <= >= => -> :: += -= *= /= ||= && || | |> & < .. + - * / % ..",
    "shell": "( [ { | || && ; ;; = == != += $ $( ${ ` [[ >",
    "query": "( , . = <> != <= >= < > + - * / || ::",
    "markup": "< </ = =\" =' > {{ {% { ( , . :",
    "data": ": = , ( [ {",
    "arrow": "( [ { , . : :: = == /= <= >= -> <- => | |> <| $ . >>= + - * / ++ <>",
    "default": "( [ { , . : = == != -> =>",
}
_WORDS: dict[str, str] = {
    "brace": "return new import package using include throw case else if while for switch in of as extends implements "
    "class struct enum interface func fn fun def function const let var val mut public private static await yield "
    "typeof go defer from export",
    "indent": "return import from raise yield assert in not and or is if elif while with as def class lambda await "
    "del for except global nonlocal proc var let",
    "end": "return do then if elsif elseif unless while until in and or not def module class local function end "
    "require include raise yield puts when case alias import using use fn",
    "shell": "if then else elif while do in echo export local return source exec set cd sudo RUN COPY FROM ENV ADD CMD",
    "query": "select from where and or on by join set values into as in between like having union with not is case "
    "when then else table update insert delete",
    "markup": "class id href src if for in",
    "data": "import include",
    "arrow": "let in of where then else if case import data type module fun match with return do deriving instance",
    "default": "return import if else in",
}
_FAMILIES: dict[str, str] = {
    "brace": "C|C#|C++|Objective-C|Objective-C++|Cuda|Metal|OpenCL|GLSL|HLSL|WGSL|Java|JavaScript|TypeScript|TSX|Go|"
    "Rust|Kotlin|Swift|Scala|Groovy|Gradle|Dart|PHP|Hack|Perl|D|V|Zig|Odin|Solidity|Protocol Buffer|Thrift|Processing|"
    "ActionScript|AIDL|Apex|AspectJ|Ballerina|Cairo|Chapel|Haxe|Vala|SystemVerilog|Verilog|R|CoffeeScript|Bicep|"
    "Xtend|Awk|TypeSpec|SourcePawn|Pony|QML|Jsonnet|HCL",
    "indent": "Python|Cython|Starlark|GDScript|Mojo|Nim|Vyper|Meson|Just",
    "end": "Ruby|Lua|Elixir|Crystal|Julia|MATLAB|Ada|Pascal|VHDL|MoonScript|Fortran|Fortran Free Form|VBA|VBScript|"
    "Visual Basic .NET|Tcl|Erlang",
    "shell": "Shell|Fish|PowerShell|Batchfile|Makefile|Dockerfile|CMake|Nginx",
    "query": "SQL|PLSQL|PLpgSQL|Cypher|SPARQL|GraphQL|XQuery",
    "markup": "HTML|XML|XSLT|Vue|Svelte|Astro|EJS|Twig|Blade|Handlebars|Mustache|Liquid|Nunjucks|Smarty|HTML+Django|"
    "HTML+ERB|HTML+EEX|HTML+Razor|ASP.NET|Java Server Pages|MDX",
    "data": "JSON|JSON with Comments|JSON5|YAML|TOML|INI|Java Properties|CSS|SCSS|Less|Sass|Stylus|PostCSS",
    "arrow": "Haskell|OCaml|F#|Elm|PureScript|ReScript|ReasonML|Standard ML|Agda|Idris|Lean|Coq|Gleam|Nix|Dhall",
}
_FAMILY = {language: family for family, languages in _FAMILIES.items() for language in languages.split("|")}


def language_causal(text: str, rng: np.random.Generator, language: str | None) -> Span | NoSpan:
    """From a trigger to the end of its line, the newline left out; each trigger as likely as any other.

    >>> language_causal("x = f(1)\\n", np.random.default_rng(0), "Python")  # after `=` or after `(`
    """
    if not text:
        return NoSpan("empty")
    found = candidates(text, language)
    return found[int(rng.integers(len(found)))] if found else NoSpan("no_trigger")


def candidates(text: str, language: str | None) -> list[Span]:
    """Every middle that may be chosen, in order: something is before it on its line, if only indentation."""
    pattern = _pattern(_FAMILY.get(language or "", "default"))
    found: list[Span] = []
    start = 0
    for line in text.split("\n"):
        size = len(line.rstrip())  # beyond it nothing is left to complete
        end = start + len(line.removesuffix("\r"))
        found += [(start + trigger.end(), end) for trigger in pattern.finditer(line) if trigger.end() < size]
        start += len(line) + 1
    return found


@cache
def _pattern(family: str) -> re.Pattern[str]:
    """Matches a line's indentation, a mark, or a word with the blank behind it; the middle begins where it ends."""
    plain, operators = [], []
    for mark in sorted(_MARKS[family].split(), key=len, reverse=True):  # of two that fit, the longer
        (operators if re.fullmatch(f"{_OPERATOR}+", mark) else plain).append(re.escape(mark))
    words = rf"(?<![\w$@.-])(?:{'|'.join(_WORDS[family].split())})[ \t]+"
    return re.compile(
        rf"^[ \t]+(?=\S)|{words}|{'|'.join(plain)}|(?<!{_OPERATOR})(?:{'|'.join(operators)})(?!{_OPERATOR})",
        re.IGNORECASE if family == "query" else re.NOFLAG,
    )
