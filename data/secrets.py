"""Keys, tokens and passwords, found by detect-secrets and replaced by placeholders that say what stood there.

A placeholder (`<AWS_ACCESS_KEY>`) has no quotation mark, backslash or white space, so a string literal stays one.

Running detect-secrets' plugins on every line is slow, so a line is looked at only if it could interest one: every
secret that we replace has a digit, and either a run of 20 characters as keys have, or one of a few words beside it.
On those lines the plugins decide, with their own heuristics, and then `_believed` does.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from codelm.errors import UserError

# What a plugin's finds are called, and what a line in lower case must have for the plugin to find anything on it: one
# of the words, and a match.
_PLUGINS: dict[str, tuple[str, str, str]] = {
    "ArtifactoryDetector": ("ARTIFACTORY_TOKEN", "akc ap", r"akc[a-z0-9]{10}|ap[\da-f][a-z0-9]{8}"),
    "AWSKeyDetector": ("AWS_ACCESS_KEY", "aws a3t abia acca akia asia", "(?:a3t|abia|acca|akia|asia)[0-9a-z]{16}|aws"),
    "AzureStorageKeyDetector": ("AZURE_STORAGE_KEY", "accountkey=", ""),
    "BasicAuthDetector": ("PASSWORD", "://", r"://[^\s/]+:[^\s/]+@"),
    "CloudantDetector": ("CLOUDANT_KEY", "cl", "[0-9a-f]{64}"),
    "DiscordBotTokenDetector": ("DISCORD_TOKEN", ".", r"[a-z\d_-]{23}\.[a-z\d_-]{6}\.[a-z\d_-]{27}"),
    "IbmCloudIamDetector": ("IBM_CLOUD_KEY", "key pwd pass token", "(?:key|pwd|pass|token).*[a-z0-9_-]{44}"),
    "IbmCosHmacDetector": ("IBM_COS_KEY", "secret", "secret.*[0-9a-f]{48}"),
    "JwtTokenDetector": ("JSON_WEB_TOKEN", "eyj", ""),
    "MailchimpDetector": ("MAILCHIMP_KEY", "-us", "-us[0-9]"),
    "NpmDetector": ("NPM_TOKEN", "_authtoken=", ""),
    "OpenAIDetector": ("OPENAI_KEY", "t3blbkfj", ""),
    "PypiTokenDetector": ("PYPI_TOKEN", "pypi-ag", ""),
    "SendGridDetector": ("SENDGRID_KEY", "sg.", r"sg\.[a-z0-9_-]{22}"),
    "SlackDetector": ("SLACK_TOKEN", "xox hooks.slack.com", ""),
    "SoftlayerDetector": ("SOFTLAYER_KEY", "sl softlayer", "[0-9a-z]{64}"),
    "SquareOAuthDetector": ("SQUARE_SECRET", "sq0csp-", ""),
    "StripeDetector": ("STRIPE_KEY", "k_live_", ""),
    "TelegramBotTokenDetector": ("TELEGRAM_TOKEN", ":", r"\d{8}:[0-9a-z_-]{35}"),
    "TwilioKeyDetector": ("TWILIO_KEY", "ac sk", "(?:ac|sk)[a-z0-9]{32}"),
    "Base64HighEntropyString": ("SECRET_KEY", "\" '", r"[\"'][a-z0-9+/\\_=-]{23,}[\"']"),
    "HexHighEntropyString": ("SECRET_KEY", "\" '", "[\"'][0-9a-f]{20,}[\"']"),
    "KeywordDetector": (
        "PASSWORD",
        "key pass pwd secret contrase",
        "(?:key|pass|pwd|secret|contrase).*[=:(\"'`]|[\"'`].*(?:key|pass|pwd|secret|contrase)",
    ),
}

# Kinds that detect-secrets 1.5 does not know, and those of which it gives no more than the first letters (GitHub's,
# GitLab's). All hold a run of 20 characters as keys have, and a digit.
_OWN = re.compile(
    r"""(?<![A-Za-z0-9_])(?:
    (?P<GOOGLE_API_KEY>AIza[0-9A-Za-z_-]{35})
  | (?P<GOOGLE_OAUTH_SECRET>GOCSPX-[0-9A-Za-z_-]{28}|ya29\.[0-9A-Za-z_-]{40,})
  | (?P<GITHUB_TOKEN>gh[oprsu]_[0-9A-Za-z_]{36,}|github_pat_[0-9A-Za-z_]{40,})
  | (?P<GITLAB_TOKEN>(?:gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-|GR1348941)[0-9A-Za-z_.-]{20,})
  | (?P<ANTHROPIC_KEY>sk-ant-[0-9A-Za-z_-]{20,})
  | (?P<OPENAI_KEY>sk-(?:proj|svcacct|admin|None)-[0-9A-Za-z_-]{20,}|sk-[0-9A-Za-z]{32,})
  | (?P<HUGGINGFACE_TOKEN>hf_[0-9A-Za-z]{34})
  | (?P<NPM_TOKEN>npm_[0-9A-Za-z]{36})
  | (?P<STRIPE_KEY>[rs]k_test_[0-9A-Za-z]{24,}|whsec_[0-9A-Za-z+/=]{32,})
  | (?P<SLACK_TOKEN>xapp-\d-[0-9A-Za-z-]{20,}|xoxe(?:\.xox[bp])?-\d-[0-9A-Za-z-]{20,})
  | (?P<DIGITALOCEAN_TOKEN>do[opr]_v1_[0-9a-f]{64})
  | (?P<SHOPIFY_TOKEN>shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})
  | (?P<DATABRICKS_TOKEN>dapi[0-9a-f]{32}(?:-\d)?)
  | (?P<VAULT_TOKEN>hv[sb]\.[0-9A-Za-z_-]{24,})
  | (?P<AGE_KEY>AGE-SECRET-KEY-1[0-9A-Z]{58})
  | (?P<BEARER_TOKEN>(?<=Bearer\ )[0-9A-Za-z._~+/-]{20,}=*)
    )(?![A-Za-z0-9])""",
    re.X,
)

# The keyword plugin reads unquoted values only where a file's name says that values are unquoted.
_UNQUOTED = {"Shell", "Dockerfile", "INI", "TOML", "YAML", "Properties", "Makefile", "dotenv"}
_UNQUOTED_NAME = re.compile(r"(?:^|/)\.(?:env[\w.]*|npmrc|pypirc|netrc|pgpass)$|\.env$")

_KEY_SHAPE = bytes(97 if chr(c).isascii() and (chr(c).isalnum() or chr(c) in "+/=_-") else 32 for c in range(256))
_KEY_RUN = b"a" * 20
_LOWER = {c: c + 32 for c in range(65, 91)}
# A line may also hold a secret without such a run where one of these stands, in lower case. Each begins with a literal,
# which the regular expression engine finds much faster than an alternation.
_HINTS = tuple(
    re.compile(hint)
    for hint in (
        "key(?<=[_ihetbv]key)",
        "pass(?:word|wd|(?<=[_bey]pass))",
        "pwd",
        "secret",
        "contrase",
        r"://[^\s/]+:[^\s/]+@",
        "_authtoken",
        "akc",
        r"ap[\da-f](?<![a-z0-9]ap[\da-f])",
        "xox[a-z]-",
        "eyj",
    )
)
_LONG_LINE, _AROUND = 2000, 300
_BREAK = re.compile(r"[;,}\s]")  # where a long line may be cut

_EXAMPLE = re.compile(
    r"example|sample|dummy|fake|test|change_?me|replace|insert|your|placeholder|redacted|todo|default|foobar|abc123|passw"
    r"or[dt]|secret|\*\*|\.\.\.|deadbeef|%[sd(]",
    re.I,
)
_HASH_WORDS = re.compile(
    r"sha-?\d|\bsha\b|md5|digest|hash|checksum|crc|integrity|fingerprint|commit|\brev|revision|etag|uuid|guid|signature|"
    r"thumbprint|blake|oid\b",
    re.I,
)
_SECRET_WORDS = re.compile(r"key|token|secret|passw|pwd|auth|cred|salt|sess|cookie|bearer|signing|api", re.I)
_PEM = re.compile(
    r"-----BEGIN ([A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----(?P<body>.{0,20000}?)-----END \1-----"
    r"|-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?P<cut>(?:[\s\"'`,+]|\\[nr]|[A-Za-z0-9+/=]{32,76})+(?:[A-Za-z0-9+/]+==?)?)",
    re.S,
)
_PEM_TEXT = re.compile(
    r"(?<![\\A-Za-z0-9+/=])(?:[A-Za-z0-9+/]{16,}={0,2}|[A-Za-z0-9+/]{1,15}={1,2})|(?<=\\[nr])[A-Za-z0-9+/]{2,}={0,2}"
)


@dataclass(frozen=True)
class Found:
    kind: str
    value: str


def redact(text: str, path: str, language: str, counts: Counter[str]) -> str:
    """The text with every secret replaced by its kind; the very same text where there is none."""
    if "PRIVATE KEY" in text:
        text = _PEM.sub(partial(_without_key, counts), text)
    filename = _as_plugins_see(path, language)
    pieces: list[str] = []
    done = 0
    for start, end in candidates(text):
        line = text[start:end]
        clean = replaced(line, secrets_in(line, filename), counts)
        if clean != line:
            pieces += [text[done:start], clean]
            done = end
    return "".join([*pieces, text[done:]]) if pieces else text


def candidates(text: str) -> list[tuple[int, int]]:
    """Lines that may hold a secret; of a very long line, the surroundings of what makes it one."""
    hits = []
    shape = text.encode("ascii", "replace").translate(_KEY_SHAPE)
    at = shape.find(_KEY_RUN)
    while at >= 0:
        end = shape.find(b" ", at)
        hits.append((at, end if end >= 0 else len(shape)))
        at = shape.find(_KEY_RUN, hits[-1][1])
    lower = text.lower()
    if len(lower) != len(text):  # a few capitals (Turkish ones) grow
        lower = text.translate(_LOWER)
    for hint in _HINTS:
        hits += [found.span() for found in hint.finditer(lower)]
    return _lines_around(text, sorted(hits))


def _lines_around(text: str, hits: list[tuple[int, int]]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    done = 0
    for at, stop in hits:
        if at < done:
            continue
        start, end = text.rfind("\n", 0, at) + 1, text.find("\n", stop)
        end = len(text) if end < 0 else end
        if end - start > _LONG_LINE:
            start, cut = max(start, at - _AROUND, done), _BREAK.search(text, min(end, stop + _AROUND), end)
            end = cut.end() if cut else end
        if _DIGIT.search(text, start, end):
            spans.append((start, end))
        done = end
    return spans


_DIGIT = re.compile("[0-9]")


def secrets_in(line: str, filename: str) -> list[Found]:
    """What the plugins find on one line and we believe, longest first, each by the most telling of its names."""
    lower = line.lower()
    found = [Found(str(m.lastgroup), m[0]) for m in _OWN.finditer(line) if _plausible(m[0])]
    for plugin, kind, words, match in _plugins():
        for word in words:
            if word in lower:
                if match(lower):
                    found += believed(plugin, kind, line, filename)
                break
    by_value: dict[str, Found] = {}
    for each in found:
        by_value.setdefault(each.value, each)
    return sorted(by_value.values(), key=lambda f: -len(f.value))


@cache
def _plugins() -> list[tuple[Any, str, list[str], Callable[[str], re.Match[str] | None]]]:
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ModuleNotFoundError as error:
        raise UserError(
            'secrets need detect-secrets: make install EXTRAS="data", or skip the step `secrets`'
        ) from error
    classes = {plugin.__name__: plugin for plugin in get_mapping_from_secret_type_to_class().values()}
    return [
        (classes[name](), kind, words.split(), re.compile(match).search)
        for name, (kind, words, match) in _PLUGINS.items()
    ]


def believed(plugin: Any, kind: str, line: str, filename: str) -> Iterator[Found]:
    """A plugin's finds on a line, without examples, names, references and checksums."""
    for secret in plugin.analyze_line(filename=filename, line=line):
        name = type(plugin).__name__
        value = _whole(name, secret.secret_value or "", line)
        if (
            _plausible(value)
            and not _is_id(value, line, plugin)
            and _JUDGES.get(name, _stands_alone)(value, line, filename)
        ):
            yield Found("AWS_SECRET_KEY" if name == "AWSKeyDetector" and len(value) == 40 else kind, value)


def _whole(name: str, value: str, line: str) -> str:
    """The secret itself: some plugins give a little of what is around it, and of a web token not the signature."""
    if name == "ArtifactoryDetector":
        return value.strip(' \t=:"')
    if name == "AzureStorageKeyDetector":
        return value.removeprefix("AccountKey=")
    if name == "NpmDetector":
        return re.split(r"[\s\"'`,;]", value)[0]
    if name == "JwtTokenDetector" and value in line:
        rest = _TOKEN_REST.match(line, line.index(value) + len(value))
        return value + (rest[0] if rest else "")
    return value


_TOKEN_REST = re.compile(r"[A-Za-z0-9_.+/=-]*")


def _plausible(secret: str) -> bool:
    from detect_secrets.filters import heuristic

    return (
        any(c.isdigit() for c in secret)
        and len(set(secret)) > 4
        and not heuristic.is_not_alphanumeric_string(secret)
        and not heuristic.is_templated_secret(secret)
        and not heuristic.is_prefixed_with_dollar_sign(secret)
        and not heuristic.is_sequential_string(secret)
        and not heuristic.is_potential_uuid(secret)
        and not _SEQUENCE.search(secret)
    )


_SEQUENCE = re.compile("abcdefgh|01234567|12345678|qwerty|x{6}|0{8}", re.I)


def _is_id(value: str, line: str, plugin: Any) -> bool:
    from detect_secrets.filters import heuristic

    return heuristic.is_likely_id_string(value, line, plugin)


def _stands_alone(value: str, line: str, filename: str) -> bool:
    """Not the middle of a longer run, such as encoded data that happens to spell a key."""
    return bool(re.search(r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))" + re.escape(value) + r"(?![A-Za-z0-9])", line))


def _is_password(value: str, line: str, filename: str) -> bool:
    """A literal of eight characters and more that is no word, name, path or example."""
    from detect_secrets.filters import heuristic

    if len(value) < 8 or len(value) > 200 or re.search(r"[\s(){}<>\\]", value) or _is_name(value):
        return False
    if _EXAMPLE.search(value):
        return False
    if any(quote + value + quote in line for quote in "\"'`"):
        return True
    return filename.endswith(_CONFIG) and not heuristic.is_indirect_reference(line) and not re.search(r"[$;|&]", value)


def _is_login(value: str, line: str, filename: str) -> bool:
    """The password of a URL: a name or an example there is documentation."""
    return len(value) >= 6 and not _is_name(value) and not _EXAMPLE.search(value)


def _is_name(value: str) -> bool:
    """Words with at most a short number after each: `oauth2_token`, `/api/v2/keys`, `sha256`."""
    return all(_WORD.fullmatch(part) for part in re.split(r"[-_.:/@,+=]+", value))


_PATH = re.compile(r"(?:[A-Za-z]+|\d+)(?:[/_-](?:[A-Za-z]+\d{0,3}|\d+))+")
_QUERY = re.compile(r"[A-Za-z_]+=(?!=*$)")
_WORD = re.compile(r"[A-Z]?[a-z]*\d{0,3}[a-z]*|[A-Z]*\d{0,3}[A-Z]*|(?:[A-Z]?[a-z]+)+\d{0,3}")


def _is_random_base64(value: str, line: str, filename: str) -> bool:
    """Letters of both cases and digits, no checksum; more than 200 characters are data unless the line says key."""
    if "\\" in value or _is_name(value) or _HASH_WORDS.search(line) or not re.search("[a-z]", value):
        return False
    if _PATH.fullmatch(value) or _QUERY.match(value):
        return False
    return bool(re.search("[A-Z]", value)) and (len(value) <= 200 or bool(_SECRET_WORDS.search(line)))


def _is_random_hex(value: str, line: str, filename: str) -> bool:
    """Checksums, commits and test vectors look the same: the line must say that it is a secret."""
    names = line.replace(value, "")
    return 20 <= len(value) <= 256 and bool(_SECRET_WORDS.search(names)) and not _HASH_WORDS.search(names)


_JUDGES = {
    "KeywordDetector": _is_password,
    "BasicAuthDetector": _is_login,
    "IbmCloudIamDetector": lambda value, line, filename: _stands_alone(value, line, filename) and not _is_name(value),
    "Base64HighEntropyString": _is_random_base64,
    "HexHighEntropyString": _is_random_hex,
}


def replaced(line: str, secrets: list[Found], counts: Counter[str]) -> str:
    for found in secrets:
        quoted = [quote + found.value + quote for quote in "\"'`" if quote + found.value + quote in line]
        for old in quoted or [found.value]:
            times = line.count(old)
            line = line.replace(old, old.replace(found.value, f"<{found.kind}>"))
            if times:  # none where it was part of a longer one
                counts[f"secret:{found.kind}"] += times
    return line


def _without_key(counts: Counter[str], found: re.Match[str]) -> str:
    body = found["body"] or found["cut"]
    clean = _PEM_TEXT.sub("<PRIVATE_KEY>", body)
    if clean == body:
        return found[0]
    counts["secret:PRIVATE_KEY"] += 1
    return found[0].replace(body, clean)


def _as_plugins_see(path: str, language: str) -> str:
    """A file name by which the plugins know whether values stand in quotation marks."""
    return f"file{_CONFIG}" if language in _UNQUOTED or _UNQUOTED_NAME.search(path) else path


_CONFIG = ".cfg"
