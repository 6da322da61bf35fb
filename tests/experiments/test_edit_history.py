"""Typing a text's changes gives the text."""

from hypothesis import given
from hypothesis import strategies as st

from experiments.bench.edit_history import PASTED, keys

LINES = st.lists(
    st.sampled_from(["a\n", "ab\n", "def f(x):\n", "    return x\n", "    return y + 1\n", "z" * 200 + "\n"])
)


@given(LINES, LINES)
def test_the_keys_make_one_text_of_the_other(first: list[str], second: list[str]) -> None:
    text, new = "".join(first), "".join(second)
    cursor = None
    for key in keys(text, new):
        text = text[: key.start] + key.text + text[key.end :]
        match key.kind:
            case "move":
                assert (key.end, key.text) == (key.start, "")
            case "type":
                assert (key.start, key.end, len(key.text)) == (cursor, cursor, 1)
            case "delete":
                assert not key.text
                assert key.end == cursor
                assert key.end - key.start == 1 or key.end - key.start > PASTED
            case "paste":
                assert (key.start, key.end) == (cursor, cursor)
                assert len(key.text) > PASTED
        cursor = key.start + len(key.text)
    assert text == new
