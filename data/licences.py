"""Which licence a text is under, said as SPDX identifiers, and whether a document may be used under it.

A licence is an SPDX expression (`MIT`, `MIT OR GPL-2.0-only`). What a file says about itself goes before what its
repository says.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from codelm.corpus_config import LicenceConfig
from codelm.errors import UserError, nearest
from data.document import Document, Drop
from data.licence_table import GNU_ABBREVIATION, GNU_NAME, NAMES, OTHER, PERMISSIVE, PHRASES, PROPRIETARY

__all__ = ["PERMISSIVE", "detect", "licence", "normalise", "policy", "refused"]

_HEADER = 4096  # characters in which a file says what it is under
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\r\n]{1,200})")
# A text without any of these says nothing about a licence.
_LICENCE_WORDS = ("licen", "permission", "redistribution", "public domain", "all rights reserved", "unencumbered")
# Points and plus signs count inside a word (`2.0`, `gpl3+`) only.
_LONE_MARKS = (b"..", b"++", b".+", b". ", b" .", b" +")
_PLAIN = bytes(c if chr(c) in "abcdefghijklmnopqrstuvwxyz0123456789.+" else 32 for c in range(256))
_EITHER = re.compile(r"\bdual(?:ly)? licen[cs]ed|at your option .{0,40}(?:mit|apache)|\bmit or ")
_GROUPS = tuple((gates, tuple((id, re.compile(phrase)) for id, phrase in rows)) for gates, rows in PHRASES)
_NOT_IN_NAMES = re.compile(r"\b(?:licen[cs]ed?|the|version|osi approved|terms of|under)\b|(?:\b|(?<=gpl))v(?=\.?\d)")


def detect(text: str) -> tuple[str, ...]:
    """SPDX expressions of the licences that a licence file, or a file's header, states; all of them hold."""
    if tags := [tag for found in _TAG.finditer(text) if (tag := _expression(found[1]))]:
        return tuple(dict.fromkeys(tags))
    lower = text.lower()
    if not any(word in lower for word in _LICENCE_WORDS):
        return ()
    plain = _plain(lower)
    found = [
        next(((id,) for id, phrase in rows if phrase.search(plain)), ())
        for gates, rows in _GROUPS
        if any(gate in plain for gate in gates)
    ]
    ids = list(dict.fromkeys(id for ids in found for id in ids))
    if "gpl" in plain or "general public" in plain:
        # These name GNU licences only to say how they go together.
        ids += [] if {"MPL-2.0", "EPL-2.0", "PSF-2.0"} & set(ids) else _gnu(plain)
    if len(ids) > 1 and len(plain) <= 2 * _HEADER and _EITHER.search(plain):
        return (" OR ".join(ids),)
    if not ids and "all rights reserved" in plain and PROPRIETARY.search(plain):
        return ("LicenseRef-Proprietary",)
    return tuple(ids)


def _plain(lower: str) -> str:
    """Words with one space between them, as the phrases of licence_table have them."""
    content = b" %b " % lower.encode("ascii", "replace").translate(_PLAIN)
    for mark in _LONE_MARKS:
        content = content.replace(mark, b" ")
    return f" {b' '.join(content.split()).decode()} "


def _gnu(plain: str) -> list[str]:
    ids = []
    for found in GNU_NAME.finditer(plain):
        if _granted(plain, found):
            after = plain[found.start() : found.end() + 240]
            version = re.search(r"(?:version|v\.?) ?([123](?:\.[01])?)\b", after)
            later = re.search(r"(?:any|or) (?:later|newer|greater)", after)
            ids.append(_gnu_id(found["kind"] or "", version[1] if version else "", bool(later)))
    ids += [_gnu_id(f["kind"], f["version"] or "", bool(f["later"])) for f in GNU_ABBREVIATION.finditer(plain)]
    return list(dict.fromkeys(ids))


def _granted(plain: str, name: re.Match[str]) -> bool:
    """Whether this mention is the licence's own title or grants it: licences also name one another in passing."""
    before, after = plain[max(name.start() - 90, 0) : name.start()], plain[name.end() : name.end() + 40]
    if re.match(r" version [\d.]+ (?:\d+ )?(?:june|november|february) (?:\d+ )?\d{4}", after):
        return True
    return bool(
        re.search(
            r"(?:licen[cs]ed|released|distributed|available|modify it|redistribute it|covered) "
            r"(?:and or modify it )?(?:under|by) .{0,50}$",
            before,
        )
    )


def _gnu_id(kind: str, version: str, later: bool) -> str:
    family, first = {"a": ("AGPL", "3.0"), "l": ("LGPL", "2.0")}.get(kind[:1], ("GPL", "1.0"))
    number = version if "." in version else f"{version}.0" if version else first
    return f"{family}-{number}-{'or-later' if later or not version else 'only'}"


def _expression(tag: str) -> str:
    """A tag's SPDX expression: without what follows it on the line (a comment's end), identifiers as SPDX has them."""
    tokens = re.findall(r"[()]|[\w.+-]+", re.split(r"\*/|-->|[\"'`#,;|]", tag)[0])
    tokens = [t.upper() if t.upper() in ("AND", "OR", "WITH") else normalise(t) or t for t in tokens]
    return re.sub(r"(?<=\() | (?=\))", "", " ".join(tokens))


def normalise(name: str) -> str | None:
    """The SPDX identifier of what people call a licence (`Apache 2.0`, `BSD License`, a trove classifier), if known."""
    name = name.rsplit("::", 1)[-1].strip()
    if re.search(r"\S (?:AND|OR|WITH) \S", name):
        return _expression(name)
    if exact := NAMES.get(name.lower()):
        return exact
    if deprecated := re.fullmatch(r"([al]?gpl-[123]\.[01])(\+)?", name.lower()):
        return NAMES.get(deprecated[1] + ("-or-later" if deprecated[2] else "-only"))
    plain = re.sub(
        r" or (?:any )?(?:later|newer)\b", "+", _NOT_IN_NAMES.sub(" ", re.sub(r"(?<=gpl)v(?=\d)", " ", name.lower()))
    )
    plain = _plain(plain).strip()
    without_zero = re.sub(r"(?<=\d)\.0\b", "", plain)
    once = " ".join(dict.fromkeys(without_zero.split()))  # "GNU General Public License v3 (GPLv3)" says 3 twice
    without_short = re.sub(r" (?:[al]?gpl|mpl|epl) ?[\d.]*\+?$", "", plain)
    for candidate in (plain, without_zero, once, without_short, re.sub(r"(?<=\d)\.0\b", "", without_short)):
        if known := NAMES.get(candidate) or NAMES.get(candidate.replace(" ", "-")):
            return known
    return None


def refused(expression: str, allowed: Callable[[str], bool]) -> frozenset[str]:
    """The identifiers for which a licence may not be used: none where one alternative of every OR is allowed."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)

    def either() -> frozenset[str]:
        alternatives = [both()]
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            alternatives.append(both())
        return frozenset() if frozenset() in alternatives else frozenset().union(*alternatives)

    def both() -> frozenset[str]:
        parts = [one()]
        while tokens and tokens[0] not in ("OR", ")"):
            if tokens[0] == "AND":
                tokens.pop(0)
            parts.append(one())
        return frozenset().union(*parts)

    def one() -> frozenset[str]:
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            inside = either()
            del tokens[:1]
            return inside
        if tokens[:1] == ["WITH"]:  # an exception gives more rights, and changes no licence's nature
            del tokens[:2]
        return frozenset() if allowed(token) else frozenset([token])

    return either() if tokens else frozenset()


def policy(config: LicenceConfig) -> Callable[[str], Drop | None]:
    """Why a licence is refused, if it is."""
    allow, deny = _identifiers(config.allow, "allow"), _identifiers(config.deny, "deny")
    anything = "any" in config.allow
    unlicensed = Drop("unlicensed", "no licence known") if config.unlicensed == "drop" else None

    @cache
    def decide(expression: str) -> Drop | None:
        if not expression:
            return unlicensed
        if denied := refused(expression, lambda id: id not in deny):
            return Drop("licence_denied", ", ".join(sorted(denied)))
        if not_allowed := refused(expression, lambda id: id not in deny and (anything or id in allow)):
            return Drop("licence_not_allowed", ", ".join(sorted(not_allowed)))
        return None

    return decide


def _identifiers(names: tuple[str, ...], field: str) -> frozenset[str]:
    ids: set[str] = set()
    for name in names:
        if name == "permissive":
            ids |= PERMISSIVE
        elif re.fullmatch(r"[AL]?GPL-\d\.\d", name):  # SPDX's old names mean the licence with and without later ones
            ids |= {f"{name}-only", f"{name}-or-later"}
        elif name.startswith("LicenseRef-") or name in PERMISSIVE | OTHER:
            ids.add(name)
        elif name != "any":
            hint = normalise(name) or nearest(name, sorted(PERMISSIVE | OTHER))
            raise UserError(f"licences.{field}: {name!r} is no SPDX identifier that codelm knows; did you mean {hint}?")
    return frozenset(ids)


def licence(document: Document, counts: Counter[str], decide: Callable[[str], Drop | None]) -> Document | Drop:
    stated = joined(detect(document.text[:_HEADER])) or document.licence
    if why := decide(stated):
        return replace(why, licence=stated)
    return document if stated == document.licence else replace(document, licence=stated)


def joined(expressions: tuple[str, ...]) -> str:
    """One expression that says all of them hold."""
    if len(expressions) < 2:
        return "".join(expressions)
    return " AND ".join(f"({e})" if " OR " in e else e for e in expressions)
