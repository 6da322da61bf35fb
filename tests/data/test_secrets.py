"""Planted secrets are replaced and code still parses; clean text comes back unchanged; prefilters lose nothing."""

import ast
import json
import random
import re
import tomllib
from collections import Counter

import pytest
from detect_secrets.plugins import keyword

from data import secrets
from tests.data import planted, standard_library

RNG_SEEDS = range(8)


def redact(text: str, path: str = "a.py", language: str = "Python") -> tuple[str, Counter[str]]:
    counts: Counter[str] = Counter()
    return secrets.redact(text, path, language, counts), counts


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_tokens_are_replaced_wherever_they_stand(seed: int) -> None:
    rng = random.Random(seed)
    for kind, secret in planted.tokens(rng):
        place = rng.choice(planted.PLACES)
        text = f"import os\n\n{place.format(secret)}\nprint(1)\n"
        assert redact(text)[0] == text.replace(secret, f"<{kind}>"), (kind, place)


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_secrets_told_by_their_surroundings_are_replaced(seed: int) -> None:
    for kind, secret, line in planted.assignments(random.Random(seed)):
        text, counts = redact(f"import os\n{line}\n")
        assert secret not in text, (kind, line)
        assert set(counts) == {f"secret:{kind}"}, line


def test_every_replacement_is_counted() -> None:
    rng = random.Random(1)
    every = [*planted.tokens(rng), *planted.tokens(rng)]
    _, counts = redact("\n".join(f'x = "{secret}"' for _, secret in every))
    assert counts == Counter(f"secret:{kind}" for kind, _ in every)


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_keys(kind: str) -> None:
    key = planted.private_key(random.Random(3), kind)
    begin, *body, end = key.split("\n")
    expected = "\n".join([begin, *["<PRIVATE_KEY>"] * len(body), end])
    assert redact(key) == (expected, Counter({"secret:PRIVATE_KEY": 1}))
    one_line = 'KEY = "' + key.replace("\n", "\\n") + '"\n'
    text, _ = redact(one_line)
    assert text == 'KEY = "' + expected.replace("\n", "\\n") + '"\n'
    quoted = "KEY = (\n" + "".join(f'    "{line}\\n"\n' for line in key.split("\n")) + ")\n"
    assert ast.literal_eval(redact(quoted)[0].removeprefix("KEY = ")) == expected + "\n"
    words = f"{begin}\n...\n{end}\n"
    assert redact(words) == (words, Counter())
    cut_off = "\n".join([begin, *body]) + "\n"
    assert not any(line in redact(cut_off)[0] for line in body)


def test_files_without_quotation_marks() -> None:
    rng = random.Random(5)
    password = planted.draw(rng, planted.WORD, 14)
    for text, path, language in [
        (f"DB_PASSWORD={password}\n", "deploy/.env", ""),
        (f"export API_KEY={password}\n", "run.sh", "Shell"),
        (f"db:\n  password: {password}\n", "config.yaml", "YAML"),
        (f"ENV SECRET_KEY={password}\n", "Dockerfile", "Dockerfile"),
        (f"//registry.npm{'js'}.org/:_authToken=npm{'_'}{password * 3}\n", ".npmrc", ""),
    ]:
        assert password not in redact(text, path, language)[0], path


LEFT_ALONE = [
    'password = "test"',
    'password = os.environ["DB_PASSWORD_2"]',
    'password = getenv("APP_PASSWORD1")',
    'password = "<your-password-123>"',
    'password = "${DB_PASSWORD1}"',
    'password = "changeme123"',
    'password = "Your-P4ssw0rd-Here"',
    'password = "CDEFABCDEF01234"',
    'api_key = "de305d54-75b4-431b-adb2-eb6b9e546014"',
    'password = "example-password-1"',
    'password = get_password2(user1, "prompt 1")',
    'secret_type = "oauth2_client_credentials"',
    'api_key = "aaaaaaaa1"',
    'api_key = "x-api-key-v2"',
    'private_key = "/etc/ssl/private/server1.key"',
    'passwords = ["one", "two"]',
    'url = "https://user:password@host/x"',
    'url = "https://user:pass1@host/x"',
    'url = "http://{user}:{password1}@host/x"',
    'alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"',
    'key_id = "0f8b1c3d5e7a9b2c4d6e8f0a1b3c5d7e"',
    'request_id = "de305d54-75b4-431b-adb2-eb6b9e546014"',
    'sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    '"integrity": "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="',
    'commit = "8843d7f92416211de9ebb963ff4ce28125932878"',
    'name = "test_AssertRaisesRegexWithManyWords2InTheName"',
    "    def test_password_reset_token_expires_in_24_hours(self): ...",
    "AKIA" + "EXAMPLE is how keys begin",
    "import secrets, getpass  # 2 modules",
    "x = '" + "-" * 70 + "' * 2",
]


@pytest.mark.parametrize("line", LEFT_ALONE)
def test_what_is_no_secret_is_left_alone(line: str) -> None:
    text = f"{line}\nprint(1)\n"
    counts: Counter[str] = Counter()
    assert secrets.redact(text, "a.py", "Python", counts) == text
    assert not counts


def test_config_references_are_left_alone() -> None:
    for line in [
        "PASSWORD=$DB_PASSWORD1",
        "PASSWORD=$(cat /run/secret1)",
        "PASSWORD=pre4fix$DB_PW",
        "API_KEY=`pass show key1`",
        "password: ${PW_123456}",
        "password = settings[pw2key9x]",
    ]:
        assert redact(line + "\n", "run.sh", "Shell")[0] == line + "\n"


def test_the_middle_of_encoded_data_is_no_key() -> None:
    rng = random.Random(2)
    blob = planted.draw(rng, planted.WORD, 40) + "AK" + "IA" + planted.draw(rng, planted.UPPER + "234", 40)
    for run in (blob, blob[40:], blob[:60]):
        assert redact(f"data: {run}\n", "a.txt", "Text")[0] == f"data: {run}\n"
    assert redact(f"data: {blob[40:60]}\n", "a.txt", "Text")[0] == "data: <AWS_ACCESS_KEY>\n"


def test_redacted_python_parses_and_redacted_json_loads() -> None:
    rng = random.Random(11)
    lines: list[str] = []
    values: dict[str, str] = {}
    for n in range(10):
        for kind, secret in planted.tokens(rng):
            quote = rng.choice(["'", '"', "'''", '"""'])
            lines.append(f"v{len(lines)} = {rng.choice(['', 'r', 'b', 'f'])}{quote}{secret}{quote}  # {secret}")
            values[f"{kind}{n}"] = secret
        lines += [line for _, _, line in planted.assignments(rng)]
        values |= {f"password{n}": planted.draw(rng, planted.WORD, 12)}
    assert len(lines) >= 300
    source, counts = redact("\n".join(lines) + "\n")
    assert len(ast.parse(source).body) == len(lines)
    assert counts.total() >= 300
    clean = json.loads(redact(json.dumps(values, indent=1), "a.json", "JSON")[0])
    assert clean.keys() == values.keys()
    assert all(re.fullmatch("<[A-Z_]+>", value) for value in clean.values())
    toml = "".join(f'"{key}" = "{value}"\n' for key, value in values.items())
    assert tomllib.loads(redact(toml, "a.toml", "TOML")[0]).keys() == values.keys()


def test_twice_is_once() -> None:
    rng = random.Random(12)
    text = "\n".join(line for _, _, line in planted.assignments(rng)) + "\n" + planted.private_key(rng)
    once, _ = redact(text)
    assert redact(once) == (once, Counter())


def unfiltered(lines: list[str], filename: str) -> dict[str, set[str]]:
    """Every plugin on every line, no line and no plugin left out beforehand."""
    found = {}
    for line in lines:
        values = {
            f.value for plugin, kind, *_ in secrets._plugins() for f in secrets.believed(plugin, kind, line, filename)
        }
        values |= {m[0] for m in secrets._OWN.finditer(line) if secrets._plausible(m[0])}
        if values:
            found[line] = values
    return found


def filtered(lines: list[str], filename: str) -> dict[str, set[str]]:
    text = "\n".join(lines)
    found = {text[a:b]: secrets.secrets_in(text[a:b], filename) for a, b in secrets.candidates(text)}
    return {line: {f.value for f in all_} for line, all_ in found.items() if all_}


def test_prefilters_lose_nothing() -> None:
    documents = list(standard_library.texts().values())
    sampled = [line for text in documents[::7] for line in text.split("\n")][::11]
    rng = random.Random(13)
    made = [planted.PLACES[n % 4].format(s) for _ in range(5) for n, (_, s) in enumerate(planted.tokens(rng))]
    made += [line for _ in range(5) for _, _, line in planted.assignments(rng)]
    # Short ones, by every word that the keyword plugin knows.
    short = [re.sub(r"_\?", sep, word) for word in keyword.DENYLIST for sep in ("", "_")]
    made += [
        form.format(word) for word in short for form in ('{} = "xK9w2mQz"', "My{}: xK9w2mQz", 'if "xK9w2mQz" == {}')
    ]
    made += ['t = "xox' + 'b-12345-9kd"', "u = http://me:xK9w2@h", 'a = "AP' + '5xK9w2mQzr"']
    # The same without their digits, with other letters, cut short: what only nearly looks like a secret.
    near = [re.sub(r"\d", "q", line) for line in made[::3]] + [line.swapcase() for line in made[1::3]]
    near += [line[: rng.randrange(len(line))] for line in made]
    for filename in ("a.py", "a.cfg", "a.go"):
        some = [line.rstrip() for line in [*sampled[: 2000 if filename == "a.py" else 200], *made, *near]]
        expected = unfiltered(some, filename)
        assert len(expected) > 100
        assert filtered(some, filename) == expected


def test_the_standard_library_has_no_secrets() -> None:
    """None of what is in it is one: this is the false-positive figure, and the text must be the very same."""
    for text in standard_library.texts().values():
        counts: Counter[str] = Counter()
        assert secrets.redact(text, "a.py", "Python", counts) is text
        assert not counts


def test_long_lines_take_no_long() -> None:
    """A minified file's one line has thousands of hints: only what is around each is looked at."""
    rng = random.Random(17)
    secret = "AK" + "IA" + planted.draw(rng, planted.UPPER + planted.DIGITS, 16)
    filler = 'function(a,b){if(a.password==="b"&&c.key1=="x2"){return"' + "'" + '"}}' * 2
    line = filler * 4000 + f'var q="{secret}";' + filler * 4000
    assert len(line) > 500_000
    assert max(end - start for start, end in secrets.candidates(line)) < 2000
    text, counts = redact(line, "a.min.js", "JavaScript")
    assert text == line.replace(secret, "<AWS_ACCESS_KEY>")
    assert counts == {"secret:AWS_ACCESS_KEY": 1}
