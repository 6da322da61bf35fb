"""Secrets, addresses and names made up at run time, so that no scanner finds one in this repository."""

import base64
import json
import random
import string

LETTERS, DIGITS, LOWER, UPPER = string.ascii_letters, string.digits, string.ascii_lowercase, string.ascii_uppercase
WORD = LETTERS + DIGITS
URL_SAFE = WORD + "-_"
HEX = DIGITS + "abcdef"

# How a secret stands in Python source; {} is the secret.
PLACES = ('x = "{}"', "    client = Client(region, '{}', timeout=3)", '    return {{"value": "{}"}}', "# once used: {}")


def draw(rng: random.Random, alphabet: str, length: int) -> str:
    """Random characters, a digit and letters of the cases that the alphabet has among them."""
    classes = [kind for kind in (DIGITS, LOWER, UPPER) if set(kind) & set(alphabet)]
    while True:
        text = "".join(rng.choices(alphabet, k=length))
        if all(set(kind) & set(text) for kind in classes):
            return text


def web_token(rng: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": draw(rng, DIGITS, 9), "admin": True})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    signature = base64.urlsafe_b64encode(rng.randbytes(32)).decode().rstrip("=")
    return ".".join([*coded, signature])


def tokens(rng: random.Random) -> list[tuple[str, str]]:
    """One of each kind that is told by its own shape, wherever it stands: what it becomes, and it."""
    w = lambda n, alphabet=WORD: draw(rng, alphabet, n)  # noqa: E731
    return [
        ("AWS_ACCESS_KEY", "AK" + "IA" + w(16, UPPER + DIGITS)),
        ("ANTHROPIC_KEY", "sk-" + "ant-api03-" + w(40, URL_SAFE) + w(4)),
        ("DIGITALOCEAN_TOKEN", "dop" + "_v1_" + w(64, HEX)),
        ("DISCORD_TOKEN", "M" + w(23) + "." + w(6) + "." + w(27)),
        ("GITHUB_TOKEN", rng.choice(["ghp", "gho", "ghs"]) + "_" + w(36)),
        ("GITHUB_TOKEN", "github" + "_pat_" + w(22) + "_" + w(59)),
        ("GITLAB_TOKEN", "glpat" + "-" + w(20)),
        ("GOOGLE_API_KEY", "AI" + "za" + w(34, URL_SAFE) + w(1, DIGITS)),
        ("HUGGINGFACE_TOKEN", "hf" + "_" + w(34)),
        ("JSON_WEB_TOKEN", web_token(rng)),
        ("MAILCHIMP_KEY", w(32, HEX) + "-us" + str(rng.randint(1, 20))),
        ("NPM_TOKEN", "npm" + "_" + w(36)),
        ("OPENAI_KEY", "sk-" + w(20) + "T3Blbk" + "FJ" + w(20)),
        ("OPENAI_KEY", "sk-" + "proj-" + w(48)),
        ("PYPI_TOKEN", "pypi-" + "AgEIcHlwaS5vcmc" + w(80)),
        ("SENDGRID_KEY", "SG" + "." + w(22) + "." + w(43)),
        ("SLACK_TOKEN", "xox" + "b-" + w(12, DIGITS) + "-" + w(12, DIGITS) + "-" + w(24, LOWER + DIGITS)),
        ("SQUARE_SECRET", "sq0" + "csp-" + w(43)),
        ("STRIPE_KEY", "sk" + "_live_" + w(24)),
        ("TELEGRAM_TOKEN", w(9, DIGITS) + ":AA" + w(33)),
        ("TWILIO_KEY", "S" + "K" + w(32, HEX)),
        ("VAULT_TOKEN", "hvs" + "." + w(28)),
    ]


def assignments(rng: random.Random) -> list[tuple[str, str, str]]:
    """Those that are told by what is around them: what it becomes, it, and a line of Python with it."""
    w = lambda n, alphabet=WORD: draw(rng, alphabet, n)  # noqa: E731
    rows = [
        ("ARTIFACTORY_TOKEN", "AKC" + w(30), 'artifactory = "{}"'),
        ("AWS_SECRET_KEY", w(40, WORD + "/+"), 'aws_secret_key = "{}"'),
        ("AZURE_STORAGE_KEY", w(86) + "==", 'connection = "AccountName=a;AccountKey={};EndpointSuffix=z"'),
        ("CLOUDANT_KEY", w(64, HEX), 'cloudant_password = "{}"'),
        ("IBM_CLOUD_KEY", w(44), 'ibm_cloud_api_key = "{}"'),
        ("IBM_COS_KEY", w(48, HEX), 'cos_hmac_secret_access_key = "{}"'),
        ("SOFTLAYER_KEY", w(64, LOWER + DIGITS), 'softlayer_api_key = "{}"'),
        ("PASSWORD", w(12), 'password = "{}"'),
        ("PASSWORD", w(5) + "!" + w(6), "DB_PASSWORD = '{}'"),
        ("PASSWORD", w(14), 'connect(host, user="me", passwd="{}") if passwd != "{}" else None'),
        ("PASSWORD", w(10), 'url = "postgres://app:{}@db.internal:5432/main"'),
        ("SECRET_KEY", w(48, WORD + "+/"), 'blob = "{}"'),
        ("SECRET_KEY", w(32, HEX), 'api_token = "{}"'),
        ("BEARER_TOKEN", w(40), 'headers = {{"Authorization": "Bearer {}"}}'),
    ]
    return [(kind, secret, line.format(secret, secret)) for kind, secret, line in rows]


def private_key(rng: random.Random, kind: str = "RSA ") -> str:
    body = base64.encodebytes(rng.randbytes(400)).decode().replace("\n", "")
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    dashes = "-" * 5
    return "\n".join([f"{dashes}BEGIN {kind}PRIVATE KEY{dashes}", *lines, f"{dashes}END {kind}PRIVATE KEY{dashes}"])
