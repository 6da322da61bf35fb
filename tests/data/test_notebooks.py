"""Notebooks as scripts: every line of code in order, prose as comments, nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.notebooks import to_text


def notebook(*cells: dict[str, Any], **metadata: Any) -> str:
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def code(source: str | list[str]) -> dict[str, Any]:
    output = {"output_type": "stream", "text": ["OUTPUT"], "data": {"image/png": "QUJD"}}
    return {"cell_type": "code", "source": source, "outputs": [output], "execution_count": 7, "metadata": {"M": 1}}


def markdown(source: str | list[str]) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {}}


def test_format_4() -> None:
    text = to_text(
        notebook(
            markdown(["# Title\n", "\n", "Some *prose*.\n"]),
            code(["import os\n", "\n", "print(os.name)"]),
            code("  \n"),
            {"cell_type": "raw", "source": "RAW"},
            code("%%time\nx = 1\n"),
        )
    )
    assert text == (
        "# %% [markdown]\n# # Title\n#\n# Some *prose*.\n\n# %%\nimport os\n\nprint(os.name)\n\n# %%\n%%time\nx = 1\n"
    )


def test_format_3() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Start"]},
        {"cell_type": "code", "input": ["x = 1\n", "x"], "outputs": [{"text": "OUTPUT"}], "language": "python"},
        {"cell_type": "markdown", "source": "done"},
    ]
    text = to_text(json.dumps({"worksheets": [{"cells": cells[:1]}, {"cells": cells[1:]}], "nbformat": 3}))
    assert text == "# %% [markdown]\n# ## Start\n\n# %%\nx = 1\nx\n\n# %% [markdown]\n# done\n"


@pytest.mark.parametrize(
    ("metadata", "mark"),
    [
        ({"kernelspec": {"language": "julia"}}, "#"),
        ({"kernelspec": {"language": "JavaScript"}}, "//"),
        ({"language_info": {"name": "scala"}}, "//"),
        ({"kernelspec": {"name": "x"}, "language_info": {"name": "haskell"}}, "--"),
        ({"kernelspec": None, "language_info": 3}, "#"),
    ],
)
def test_comments_are_the_kernels(metadata: dict[str, Any], mark: str) -> None:
    assert to_text(notebook(markdown("a\rb"), code("c"), **metadata)) == (
        f"{mark} %% [markdown]\n{mark} a\n{mark} b\n\n{mark} %%\nc\n"
    )


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", "{}", '{"cells": 3}', '{"worksheets": {}}', "[" * 100_000, "not json", "\0"],
)
def test_what_is_no_notebook_is_none(content: str) -> None:
    assert to_text(content) is None


def test_an_empty_one_is_empty() -> None:
    assert to_text(notebook()) == ""


LINES = st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=20))


@given(st.lists(st.tuples(st.booleans(), LINES, st.booleans()), max_size=6))
def test_every_code_line_in_order_and_no_prose_outside_comments(cells: list[tuple[bool, list[str], bool]]) -> None:
    made = []
    for is_code, lines, as_list in cells:
        source = "\n".join(lines)
        made.append((code if is_code else markdown)(source.splitlines(keepends=True) if as_list else source))
    text = to_text(notebook(*made))
    assert text is not None
    left = iter(text.split("\n"))
    for is_code, lines, _ in cells:
        for line in "\n".join(lines).rstrip().split("\n"):
            wanted = line if is_code else f"# {line}".rstrip()
            assert not line.strip() or any(found == wanted for found in left), (line, text)
    assert "OUTPUT" not in text or any("OUTPUT" in line for _, lines, _ in cells for line in lines)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inside: (
            st.lists(inside)
            | st.dictionaries(
                st.sampled_from(
                    ["cells", "worksheets", "source", "input", "cell_type", "metadata", "kernelspec", "level"]
                ),
                inside,
            )
        ),
    )
)
def test_any_json_is_survived(value: Any) -> None:
    to_text(json.dumps(value))
    to_text(json.dumps({"cells": [value], "metadata": value}))
