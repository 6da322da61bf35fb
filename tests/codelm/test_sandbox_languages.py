"""A program of each language that is installed here says what it read."""

import pytest

from codelm import sandbox_languages, sandbox_tools
from codelm.sandbox import Limits, Pool, Program
from codelm.sandbox_bubblewrap import installed

SOURCES = {
    "Python": "print(input() + '!')",
    "JavaScript": "console.log(require('fs').readFileSync(0, 'utf8').trim() + '!')",
    "TypeScript": "const said: string = require('fs').readFileSync(0, 'utf8'); console.log(said.trim() + '!')",
    "Java": "import java.util.*;\npublic class Said {\n  public static void main(String[] a) {\n"
    '    System.out.println(new Scanner(System.in).nextLine() + "!");\n  }\n}\n',
    "Go": 'package main\nimport "fmt"\nfunc main() { var s string; fmt.Scan(&s); fmt.Println(s + "!") }\n',
    "C++": "#include <iostream>\n#include <string>\n"
    "int main() { std::string s; std::cin >> s; std::cout << s << '!' << std::endl; }\n",
    "Rust": "use std::io;\nfn main() { let mut s = String::new(); io::stdin().read_line(&mut s).unwrap();\n"
    'println!("{}!", s.trim()); }\n',
    "Shell": 'read said; echo "$said!"',
}


@pytest.mark.skipif(not installed(), reason="no bubblewrap (apt install bubblewrap)")
@pytest.mark.parametrize("language", SOURCES)
def test_a_program_runs(language: str) -> None:
    program = sandbox_languages.program(language, SOURCES[language], Limits(seconds=60, cpu_seconds=60), "said\n")
    if program is None:
        pytest.skip(sandbox_languages.missing(language))
    assert sandbox_languages.missing(language) == ""
    with Pool(1) as pool:
        ran = pool.run(program)
    assert (ran.status, ran.stdout, ran.reason, ran.step) == (0, "said!\n", "", len(program.commands) - 1), ran


@pytest.mark.skipif(not installed(), reason="no bubblewrap (apt install bubblewrap)")
@pytest.mark.skipif(not sandbox_tools.path("g++"), reason="no g++")
def test_a_compiler_that_refuses_is_the_last_step() -> None:
    program = sandbox_languages.program("C++", "int main() { return x; }")
    assert isinstance(program, Program)
    with Pool(1) as pool:
        ran = pool.run(program)
    assert (ran.status, ran.step, ran.reason) == (1, 0, "")
    assert "x" in ran.stderr


def test_a_missing_tool_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_tools, "path", lambda tool: None)
    assert sandbox_languages.toolchain("Go") is None
    assert sandbox_languages.program("Go", "") is None
    assert sandbox_languages.missing("Go") == "no go on PATH (install golang)"
    assert "no way to run COBOL" in sandbox_languages.missing("COBOL")


def test_limits_are_widened_to_what_tools_need() -> None:
    tools = sandbox_languages.Toolchain("a", (("a",),), processes=64, memory_mb=2048)
    widened = tools.limits(Limits(processes=16, memory_mb=4096))
    assert (widened.processes, widened.memory_mb, widened.file_mb) == (64, 4096, Limits().file_mb)
