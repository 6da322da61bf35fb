"""Imports in languages where a line is not enough: brackets, lists, strings and comments. See data/imports.py."""

import re
from collections.abc import Iterator

_LONGEST_PREFIX = 255
"""Characters of what stands before a list: it is repeated for each name in the list."""

# The whole lexing of Python, as far as telling strings and comments from the rest: docstrings are full of imports.
# A string that is not closed ends with its line, or with the text.
_PYTHON_GAP = r"(?:[ \t\f\r]|\\\r?\n)*+"
_PYTHON = re.compile(
    r'#[^\n]*+|"""[^"\\]*+(?:(?:\\[\s\S]|"(?!""))[^"\\]*+)*+(?:""")?'
    r"|'''[^'\\]*+(?:(?:\\[\s\S]|'(?!''))[^'\\]*+)*+(?:''')?"
    r'|"[^"\\\n]*+(?:\\[\s\S][^"\\\n]*+)*+"?'
    r"|'[^'\\\n]*+(?:\\[\s\S][^'\\\n]*+)*+'?"
    r"|[\n;:][ \t\f]*+(?:c?import(?=[ \t\\])((?:[\w.,* \t\r]|\\\r?\n)++)"
    rf"|from(?=[ \t.\\]){_PYTHON_GAP}((?:\.++[ \t]*+)*+(?:(?!import\b)[\w.]++)?+){_PYTHON_GAP}"
    rf"c?import\b{_PYTHON_GAP}(\((?:[^)#]++|#[^\n]*+)*+|(?:[\w*, \t\r]|\\\r?\n)++))"
)
_COMMENT = re.compile(r"#[^\n]*+")


def python(text: str) -> Iterator[str]:
    if "import" not in text:
        return
    for found in _PYTHON.finditer(text):
        plain, module, names = found.groups()
        if plain:
            for name in plain.replace("\\", " ").split(","):
                yield from name.split()[:1]
        elif module and len(module) <= _LONGEST_PREFIX:
            module = "".join(module.split())
            before = module if module.endswith(".") else module + "."
            for name in _COMMENT.sub("", names).strip("(").replace("\\", " ").split(","):
                for word in name.split()[:1]:
                    yield module if word == "*" else before + word


_QUOTED = r"""(?:"([^"\n]++)"|'([^'\n]++)')"""
_JAVASCRIPT = re.compile(
    r"[\n;}][ \t\r]*+(im|ex)port\b((?:[\w$\s{},*@]++|//[^\n]*+|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?)*+)"
    + _QUOTED
    + "?+"
)
# Apart, because a pattern that begins with letters is found quickly.
_JAVASCRIPT_CALLS = [re.compile(rf"{name}\s*+\(\s*+{_QUOTED}") for name in ("require", "import")]


def javascript(text: str) -> Iterator[str]:
    found: list[tuple[int, str]] = []
    for statement in _JAVASCRIPT.finditer(text):
        which, body, double, single = statement.groups()
        body = body.rstrip()
        # What ends with another `import` began as something else: a class that is exported, prose.
        if (double or single) and (body.endswith(("from", "import")) or (which == "im" and not body)):
            found.append((statement.start(), double or single))
    for calls in _JAVASCRIPT_CALLS:
        found += [(call.start(), call[1] or call[2]) for call in calls.finditer(text)]
    yield from (target for _, target in sorted(found))


_JVM = re.compile(
    r"\n[ \t]*+(?:package[ \t]++([\w.`]++)[ \t]*+(?=[;{/\r\n]|\Z)"
    r"|import[ \t]++(?:static[ \t]++)?([\w.`$]++\*?)(\{[^}]*+)?)"
)


def jvm(text: str) -> Iterator[str]:
    packages: list[str] = []
    targets: list[str] = []
    for found in _JVM.finditer(text.replace("`", "") if "`" in text else text):
        package, name, braces = found.groups()
        if package:
            packages.append(package)  # Scala writes `package a` and below it `package b` for a.b
        elif braces and len(name) <= _LONGEST_PREFIX:
            words = [part.split()[0] for part in braces[1:].split(",") if part.strip()]
            targets += [name + ("*" if word in ("_", "given") else word) for word in words]
        elif not braces:
            targets.append(name[:-1] + "*" if name.endswith("._") else name)
    if packages and sum(map(len, packages)) <= _LONGEST_PREFIX:
        yield "package:" + ".".join(packages)
    yield from targets


_GO = re.compile(
    r"""\nimport\b[ \t]*+(?:\(((?:[^)/"`]++|"[^"\n]*+"?|`[^`]*+`?|//[^\n]*+|/)*+)"""
    r"""|(?:[\w.]++[ \t]++)?+["`]([^"`\n]++))?"""
)
_GO_LINE = re.compile(r"""[\n;][ \t]*+(?:[\w.]++[ \t]++)?+["`]([^"`\n]++)""")


def go(text: str) -> Iterator[str]:
    for found in _GO.finditer(text):
        if found[2]:
            yield found[2]
        elif found[1]:
            yield from (line[1] for line in _GO_LINE.finditer("\n" + found[1]))


_RUST = re.compile(
    r"\n([ \t]*+)(?:#\[[^\]\n]*+\][ \t]*+)*+(?:pub(?:\([^)\n]*+\))?[ \t]++)?+"
    r"(?:mod[ \t]++(\w++)[ \t]*+;|use[ \t]++(?:::)?((?:r#)?\w++(?:::(?:r#)?\w++)*+)(?:::(?:(\*)|(\{[^;]*+)))?)"
)
_RUST_TOKEN = re.compile(r"//[^\n]*+|as\s++\w++|([\w:*#]++|[{},])")


def rust(text: str) -> Iterator[str]:
    for found in _RUST.finditer(text):
        indented, module, path, star, braces = found.groups()
        if module:
            yield "mod " + module
        elif len(path) <= _LONGEST_PREFIX:
            if indented and path.startswith("super"):
                path = "self" + path.removeprefix("super")
            paths = _without_braces(path + "::", braces) if braces else [f"{path}::*" if star else path]
            yield from (path.replace("r#", "") for path in paths)


def _without_braces(prefix: str, braces: str) -> Iterator[str]:
    """`a::` and `{self, b::{c, d as e}}` are `a`, `a::b::c` and `a::b::d`."""
    opened: list[str] = []  # what stands before each brace that is open
    path = prefix
    for found in _RUST_TOKEN.finditer(braces):
        token = found[1]
        if token == "{":
            opened.append(path)
        elif token in (",", "}"):
            if path != opened[-1]:
                yield path.removesuffix("::self")
            if token == "}":
                opened.pop()
            if not opened:
                return
            path = opened[-1]
        elif token and len(path) <= _LONGEST_PREFIX:
            path += token


_PHP = re.compile(
    r"\n[ \t]*+use[ \t]++(?:function[ \t]++|const[ \t]++)?\\?([\w\\]++)(\{[^;}]*+)?"
    r"|\b(?:require|include)(?:_once)?[ \t(]++(?:(?:__DIR__|dirname\(__FILE__\))[ \t]*+\.[ \t]*+)?+"
    r"""(?:"/?([^"\n$]++)"|'/?([^'\n]++)')"""
)


def php(text: str) -> Iterator[str]:
    for found in _PHP.finditer(text):
        name, braces, double, single = found.groups()
        if double or single:
            yield double or single
        elif braces and len(name) <= _LONGEST_PREFIX:
            yield from (name + part.split()[0] for part in braces[1:].split(",") if part.strip())
        elif "\\" in name:  # else a trait of its own namespace, or a built-in class
            yield name
