"""Programming languages by file extension and name."""

from pathlib import PurePath

BY_EXTENSION: dict[str, str] = {
    extension: language
    for language, extensions in {
        "Python": "py pyi pyx",
        "JavaScript": "js jsx mjs cjs",
        "TypeScript": "ts tsx mts cts",
        "Java": "java",
        "Go": "go",
        "C": "c h",
        "C++": "cc cpp cxx hh hpp hxx",
        "C#": "cs",
        "Rust": "rs",
        "SQL": "sql",
        "Shell": "sh bash zsh",
        "Kotlin": "kt kts",
        "Swift": "swift",
        "PHP": "php",
        "Ruby": "rb",
        "Scala": "scala",
        "Haskell": "hs",
        "Lua": "lua",
        "Perl": "pl pm",
        "R": "r",
        "Julia": "jl",
        "Dart": "dart",
        "Elixir": "ex exs",
        "Erlang": "erl",
        "OCaml": "ml mli",
        "Clojure": "clj",
        "Zig": "zig",
        "HTML": "html htm",
        "CSS": "css scss",
        "JSON": "json",
        "YAML": "yaml yml",
        "TOML": "toml",
        "XML": "xml",
        "CMake": "cmake",
        "Markdown": "md",
        "reStructuredText": "rst",
        "Text": "txt",
    }.items()
    for extension in extensions.split()
}

BY_NAME: dict[str, str] = {"Makefile": "Makefile", "Dockerfile": "Dockerfile", "CMakeLists.txt": "CMake"}


def language_of(path: str | PurePath) -> str | None:
    """The language of a file by its name, or None where the name does not say."""
    path = PurePath(path)
    return BY_NAME.get(path.name) or BY_EXTENSION.get(path.suffix.lstrip(".").lower())
