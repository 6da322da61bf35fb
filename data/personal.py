"""E-mail addresses, IP addresses and people's names in author lines, replaced by `<EMAIL>`, `<IP_ADDRESS>`, `<NAME>`.

What names no one stays: example domains, `noreply@`, remotes (`git@host:`), private and documentation addresses, public
DNS servers, version numbers, organisations in copyright lines. None of the placeholders has a quotation mark, backslash
or white space, so that strings and comments stay strings and comments.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator

Span = tuple[int, int, str]

_LOCAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,5}([A-Za-z]{2,12})(?![\w-]|[(\[=]|:[\w/~])"
)
# Top-level domains of more than two letters that people's addresses have; names of files and attributes are not there.
_TOP_NAMES = """
com net org edu gov mil int info biz name dev app xyz online site tech cloud email pro mobi asia museum aero coop
travel arpa email systems software academy agency berlin london paris ninja rocks wtf club blog live life world
"""
_TOP = frozenset(_TOP_NAMES.split())
_NOT_TOP = frozenset(("py", "js", "ts", "md", "cc", "cs", "hs", "rb", "mm"))  # file names
_NOT_DOMAIN = re.compile(
    r"(?:^|\.)(?:example\d?|test|localhost|domain|yourdomain|mydomain|users\.noreply\.github|foo|bar|acme|host|server|email)\.",
    re.I,
)
_NO_ONE = {
    "git",
    "hg",
    "svn",
    "noreply",
    "no-reply",
    "donotreply",
    "do-not-reply",
    "root",
    "nobody",
    "postmaster",
    "user",
    "username",
    "name",
    "you",
    "your",
    "me",
    "someone",
    "anonymous",
    "test",
    "foo",
    "bar",
    "email",
}

_IPV4 = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d")
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_IPV6 = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]")
_HEX = "0123456789abcdefABCDEF:"
_PUBLIC_DNS = {
    "8.8.8.8",
    "8.8.4.4",
    "1.1.1.1",
    "1.0.0.1",
    "9.9.9.9",
    "208.67.222.222",
    "208.67.220.220",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "2620:fe::fe",
}
_VERSION_BEFORE = re.compile(r"(?:\bv|\bver|version|release|rev|[=<>~^!]=|[~^<>]|[-_@]|\w/|==)[\s\"':=(]*$", re.I)
_VERSION_LINE = re.compile(r"version|release|\bv\d|\boid\b|section|chapter|§", re.I)
_ADDRESS_LINE = re.compile(
    r"\bip|addr|host|server|https?:|dns|listen|bind|peer|socket|connect|gateway|ping|ssh|remote|client", re.I
)

# An apostrophe only before a letter: otherwise it may be the quotation mark that ends the string.
_WORD = r"(?:[A-Z]\.(?:-?[A-Z]\.)*|[A-ZÀ-ÖØ-Þ](?:[\w’-]|'(?=[A-Za-z]))*)"
_PARTICLE = r"(?:van|von|de|der|den|la|le|del|di|da|dos|bin|al|el|y|ter|ten)"
_PERSON = re.compile(rf"{_WORD}(?: (?:{_PARTICLE} ){{0,2}}{_WORD}){{1,3}}")
_ORGANISATION = re.compile(
    r"\b(?:inc|llc|llp|ltd|limited|gmbh|corp|corporation|company|co|plc|ag|bv|sa|srl|oy|ab|kk|foundation|authors?|"
    r"contributors?|developers?|maintainers?|members|team|group|project|community|committee|consortium|association|society|"
    r"organi[sz]ation|universit\w+|institut\w+|college|school|academy|laborator\w+|labs?|center|centre|department|ministry|"
    r"government|stichting|verein|centrum|national|international|global|software|systems?|technolog\w+|solutions|services|networks?|research|press|"
    r"media|studios?|games|digital|computing|computer|data|security|electric|electronics|semiconductor|microsystems|"
    r"industries|holdings|partners|ventures|bank|trust|council|agency|bureau|alliance|initiative|library|museum|regents|"
    r"google|microsoft|facebook|meta|apple|amazon|ibm|intel|nvidia|amd|oracle|red hat|mozilla|python|apache|linux|gnu|"
    r"all|rights|reserved|license|licence|copyright|the|this|free|open|source|file|see|other|various|others|unknown)\b",
    re.I,
)
_GAP = re.compile(r"(?:[ \t]*(?:<[^>\n]*>|\([^)\n]*\)|\[[^\]\n]*\]|[,;&/|+]|\band\b|\S+@\S+))+[ \t]*")
_SUFFIX = re.compile(
    r",?[ ](?:Inc|LLC|Ltd|GmbH|Corp|Co|AG|SA|BV|Foundation|Group|Team|Project|University|Software|Systems|'s)\b|'s\b"
)
_HANDLE = re.compile(r"[A-Za-z][\w.-]{1,30}")
# Where a name comes next. The first kind names no one but an author, so that a single word will do.
_AUTHOR_FIELD = re.compile(
    r"(?:__(?:author|maintainer)__[ \t]*=[ \t]*[\"'\[(]{1,3}|(?<![\w.])@author[ \t:]+|:author:[ \t]+)[ \t]*", re.I
)
_FIELD = re.compile(
    r"(?:(?:^|(?<=[\s*#;%/.<{(,\"'-]))"
    r"[\"']?(?:original |module |main |principal |lead )?(?:authors?|maintainers?)[\"']?"
    r"[ \t]*[:=][ \t]*[\"'\[({]{0,3}"
    r"|\b(?:written|created|coded|contributed|developed|maintained|ported|implemented|rewritten|authored|modified)"
    r"[ \t]+by[ \t:]+"
    r"|\b(?:signed-off|reviewed|acked|tested|reported|suggested|co-authored)-by:"
    r"|(?:copyright|\(c\)|©)[ \t]*(?:\(c\)|©|&copy;)?[ \t:,]*"
    r"(?:(?:19|20)\d\d(?:[ \t]*(?:[-–,]|to|and)[ \t]*(?:(?:19|20)?\d\d|present|now))*)?"
    r"[ \t,.:;-]*(?:(?:held |owned )?by[ \t]+)?"
    r")[ \t]*",
    re.I,
)
_FIELD_WORDS = ("author", "maintainer", "copyright", "(c)", "©", " by ", "-by:")


def redact(text: str, counts: Counter[str]) -> str:
    """The text without what tells who a person is; the very same text where there is nothing."""
    spans = sorted([*_addresses(text), *_ipv4(text), *_ipv6(text), *_names(text)])
    if not spans:
        return text
    pieces: list[str] = []
    done = 0
    for start, end, kind in spans:
        if start >= done:
            pieces += [text[done:start], f"<{kind}>"]
            counts[f"personal:{kind}"] += 1
            done = end
    return "".join([*pieces, text[done:]])


def _addresses(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain:
            before = text[max(0, at - 64) : at]
            local = before[len(before.rstrip(_LOCAL)) :].lstrip(".-+%_")
            if local and _is_address(local, domain, text[max(0, at - 128) : at - len(local)]):
                yield at - len(local), domain.end(), "EMAIL"
        at = text.find("@", at + 1)


def _is_address(local: str, domain: re.Match[str], before: str) -> bool:
    top = domain[1].lower()
    if not (top in _TOP or (len(top) == 2 and top not in _NOT_TOP)) or domain[1] not in (top, top.upper()):
        return False
    if local.lower() in _NO_ONE or _NOT_DOMAIN.search(domain[0] + "."):
        return False
    return not re.search(r"://\S*$", before) and not before.endswith(("%", "$", "{"))


def _ipv4(text: str) -> Iterator[Span]:
    for hint in _IPV4.finditer(text):
        window = text[max(0, hint.start() - 3) : hint.start()]
        first = window[len(window.rstrip("0123456789")) :]
        found = _DOTTED.match(text, hint.start() - len(first)) if first else None
        if found and _is_public(text, found.start(), found.end(), found[0]):
            yield found.start(), found.end(), "IP_ADDRESS"


def _is_public(text: str, start: int, end: int, address: str) -> bool:
    before, after = text[max(0, start - 40) : start], text[end : end + 3]
    if re.search(r"[\w.]$", before) or re.match(r"\w|\.\d|-\w|\+|\.in", after) or address in _PUBLIC_DNS:
        return False
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or _VERSION_BEFORE.search(before):
        return False
    line = _line(text, start, end)
    if _VERSION_LINE.search(line):
        return False
    small = all(int(part) < 64 for part in address.split("."))  # a section or version number as likely as not
    return not small or bool(_ADDRESS_LINE.search(line))


def _ipv6(text: str) -> Iterator[Span]:
    done = 0
    for hint in _IPV6.finditer(text):
        if hint.start() < done:
            continue
        before, after = text[max(0, hint.start() - 40) : hint.start()], text[hint.start() : hint.start() + 44]
        start = hint.start() - (len(before) - len(before.rstrip(_HEX)))
        end = hint.start() + len(after) - len(after.lstrip(_HEX))
        done = end
        address = text[start:end].rstrip(":")
        if re.match(r"[\w.]", text[end : end + 1]) or re.search(r"[\w.]$", text[max(0, start - 1) : start]):
            continue
        # Only 2000::/3 is in use, which keeps times, C++ scopes and slices apart from addresses.
        if address[:1] in ("2", "3") and len(address.split(":")[0]) == 4 and address not in _PUBLIC_DNS:
            try:
                if ipaddress.IPv6Address(address).is_global:
                    yield start, start + len(address), "IP_ADDRESS"
            except ValueError:
                continue


def _names(text: str) -> Iterator[Span]:
    lower = text.lower()
    if len(lower) != len(text):
        lower = text
    starts: set[int] = set()
    for word in _FIELD_WORDS:
        at = lower.find(word)
        while at >= 0:
            start = text.rfind("\n", 0, at) + 1
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            if end - start > 1000:
                start, end = max(start, at - 60), min(end, at + 300)
            if start not in starts:
                starts.add(start)
                yield from _names_in(text, start, end)
            at = lower.find(word, end)


def _names_in(text: str, start: int, end: int) -> Iterator[Span]:
    for field in _AUTHOR_FIELD.finditer(text, start, end):
        handle = _HANDLE.match(text, field.end(), end)
        if handle and not text[handle.end() : end].lstrip().strip("\"'])*/,;") and not _ORGANISATION.search(handle[0]):
            yield *handle.span(), "NAME"
        yield from _people(text, field.end(), end)
    for field in _FIELD.finditer(text, start, end):
        yield from _people(text, field.end(), end)


def _people(text: str, at: int, end: int) -> Iterator[Span]:
    """Names of people one after another, up to the first that is something else."""
    while person := _PERSON.match(text, at, end):
        name = person[0]
        if _ORGANISATION.search(name) or _SUFFIX.match(text, person.end(), end):
            return
        yield person.start(), person.end() - name.endswith("."), "NAME"
        gap = _GAP.match(text, person.end(), end)
        if not gap:
            return
        at = gap.end()


def _line(text: str, start: int, end: int) -> str:
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    return text[max(first, start - 200) : min(last if last >= 0 else len(text), end + 200)]
