"""Bytes become text only where the bytes say how."""

import codecs

import pytest

from data.decoding import decode
from data.document import Drop, Raw


def reason(content: bytes | str) -> str:
    result = decode(Raw(content, "a.py"))
    assert isinstance(result, Drop)
    assert result.detail
    return result.reason


TEXT = "x = 'é 漢字 😀'\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a = 1\n", "a = 1\n"),
        (TEXT.encode(), TEXT),
        (codecs.BOM_UTF8 + b"a\n", "a\n"),
        ("\ufeffa\n", "a\n"),
        (TEXT.encode("utf-16"), TEXT),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), TEXT),
        (b"a\r\nb\rc\n\r\n", "a\nb\nc\n\n"),
        ("a\r\nb", "a\nb"),
        (b"", ""),
        (b"# -*- coding: latin-1 -*-\nx = 'caf\xe9'\n", "# -*- coding: latin-1 -*-\nx = 'café'\n"),
        (
            b"#!/usr/bin/python\n# vim: set fileencoding=koi8-r :\n# \xc1\n",
            "#!/usr/bin/python\n# vim: set fileencoding=koi8-r :\n# а\n",
        ),
        (b"# coding: utf-8\n\xe2\x82\xac", "# coding: utf-8\n€"),
    ],
)
def test_text(content: bytes | str, text: str) -> None:
    assert decode(Raw(content, "a.py")) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF\x02\x01\0\0", "binary"),
        (b"text, then \0", "binary"),
        ("text \0", "binary"),
        (TEXT.encode("utf-32"), "binary"),
        (b"caf\xe9\n", "not_utf8"),
        (b"# coding: utf-8\ncaf\xe9\n", "not_utf8"),
        (b"# coding: rot13\ncaf\xe9\n", "not_utf8"),
        (b"# coding: no-such\ncaf\xe9\n", "not_utf8"),
        (b"\n\n# coding: latin-1\ncaf\xe9\n", "not_utf8"),  # a third line declares nothing
        (b"# coding: shift_jis\n\xff\xff\n", "not_utf8"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8", "not_utf8"),
        ("lone \ud800", "not_utf8"),
        (b"\xed\xa0\x80", "not_utf8"),
    ],
)
def test_dropped(content: bytes | str, expected: str) -> None:
    assert reason(content) == expected
