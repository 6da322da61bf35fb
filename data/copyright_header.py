"""Cutting off the comment at the top of a file that says who owns it and under which licence."""

import re

# What stays above a header: an interpreter or coding line, an XML declaration, PHP's opening tag.
_FIRST_LINES = re.compile(
    r"(?:#![^\n]*\n|#[^\n]*coding[:=][^\n]*\n|<\?(?:php|xml[^\n]*\?>)[ \t]*\n|\"use strict\";?\n|[ \t]*\n)*"
)
_COMMENTS = (
    re.compile(r"/\*.*?\*/[ \t]*\n?", re.S),
    re.compile(r"<!--.*?-->[ \t]*\n?", re.S),
    re.compile(r"\{-(?!#).*?-\}[ \t]*\n?", re.S),
    re.compile(r"\(\*.*?\*\)[ \t]*\n?", re.S),
    *(
        re.compile(rf"(?:[ \t]*{mark}[^\n]*(?:\n|$))+")
        for mark in ("#(?!include|define|if|pragma|!)", "//", "--", ";", "%", "'")
    ),
)
_ABOUT_RIGHTS = re.compile(r"copyright|\(c\) *\d{4}|©|licen[cs]e|all rights reserved|public domain|SPDX-", re.I)


def without_header(text: str) -> str:
    """The text without its first comment where that is about copyright or licence (several such in a row all go)."""
    first = _FIRST_LINES.match(text)
    start = end = first.end() if first else 0
    while comment := next((found for kind in _COMMENTS if (found := kind.match(text, end))), None):
        if not _ABOUT_RIGHTS.search(comment[0]):
            break
        end = comment.end()
        while text[end : end + 1] == "\n":
            end += 1
    return text if end == start else text[:start] + text[end:]
