"""Bytes to text: UTF-8, UTF-16 where a byte order mark says so, and what a coding line declares; never a guess."""

import codecs
import re

from data.document import Drop, Raw

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# PEP 263; Ruby and Emacs write it the same way.
_CODING_LINE = re.compile(rb"(?:.*\n)?.{0,40}?coding[:=][ \t]*([-\w.]{1,40})")
# Declared encodings that are believed: single bytes, and the double-byte ones of East Asia.
_DECLARABLE = re.compile(r"(iso8859-\d+|cp125\d|koi8-[ru]|mac-roman|euc_(jp|kr)|shift_jis|gbk|gb2312|gb18030|big5)")


def decode(raw: Raw) -> str | Drop:
    """The text with `\\n` line ends and no byte order mark, or why it is not text."""
    text = raw.content if isinstance(raw.content, str) else _from_bytes(raw.content)
    if isinstance(text, Drop):
        return text
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        return Drop("binary", f"NUL at character {text.index(chr(0)):,}")
    if not text.isascii() and (surrogate := re.search("[\ud800-\udfff]", text)):
        return Drop("not_utf8", f"lone surrogate at character {surrogate.start():,}")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _from_bytes(content: bytes) -> str | Drop:
    if content.startswith(_UTF_32):
        return Drop("binary", "UTF-32")
    if content.startswith(_UTF_16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            return Drop("not_utf8", f"UTF-16 byte order mark, but {error.reason} at byte {error.start:,}")
    if b"\0" in content:
        return Drop("binary", f"NUL at byte {content.index(0):,}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        declared = _declared(content)
        why = Drop("not_utf8", f"byte {content[error.start]:#04x} at {error.start:,}: {error.reason}")
    if not declared:
        return why
    try:
        return content.decode(declared)
    except UnicodeDecodeError as error:
        return Drop("not_utf8", f"declared {declared}, but {error.reason} at byte {error.start:,}")


def _declared(content: bytes) -> str | None:
    """The encoding that the first two lines declare, where it is one that text is written in."""
    found = _CODING_LINE.match(content[:400])
    try:
        name = codecs.lookup(found[1].decode()).name if found else ""
    except (LookupError, UnicodeDecodeError):
        return None
    return name if _DECLARABLE.fullmatch(name) else None
