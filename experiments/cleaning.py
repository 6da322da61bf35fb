"""What cleaning finds of secrets planted in code, and what it touches in code that has none.

    .venv/bin/python -m experiments.cleaning [SOURCE…]

Secrets are made up, of every kind and in every place that tests/data/planted.py knows; each is the only one of its
file. The sources (default: stdlib) go through every step, whatever their licence; a change there is looked at by eye.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator

from codelm.corpus_config import CorpusConfig, LicenceConfig
from codelm.errors import UserError
from codelm.languages import language_of
from data import cleaning, decoding, secrets, sources
from data.document import Document, Drop, Raw
from data.tally import Tally
from tests.data import planted

_SEEDS = 20


def main(specs: list[str]) -> None:
    _print_planted()
    for spec in specs or ["stdlib"]:
        _print_untouched(spec)


def _print_planted() -> None:
    total, found = Counter[str](), Counter[str]()
    for seed in range(_SEEDS):
        for kind, secret, line in _plantings(random.Random(seed)):
            clean = secrets.redact(f"import os\n\n{line}\nprint(1)\n", "a.py", "Python", Counter())
            total[kind] += 1
            found[kind] += secret not in clean and f"<{kind}>" in clean
    missed = {kind: total[kind] - found[kind] for kind in total if found[kind] < total[kind]}
    print(f"secrets planted: {total.total():,} of {len(total)} kinds; replaced, by the right kind: {found.total():,}")
    if missed:
        print(f"  missed: {missed}")


def _plantings(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    for kind, secret in planted.tokens(rng):
        for place in planted.PLACES:
            yield kind, secret, place.format(secret)
    yield from planted.assignments(rng)
    for kind in ("", "RSA ", "EC ", "OPENSSH "):
        key = planted.private_key(rng, kind)
        yield "PRIVATE_KEY", key.split("\n")[1], key


def _print_untouched(spec: str) -> None:
    corpus = CorpusConfig(licences=LicenceConfig(allow=("any",), unlicensed="keep"))
    steps, tally = cleaning.steps(corpus), Tally()
    dropped, changed, files, size = Counter[str](), 0, 0, 0
    for document in _documents(spec, corpus):
        files, size = files + 1, size + len(document.text)
        outcome = cleaning.clean(document, steps, tally)
        if isinstance(outcome, Drop):
            dropped[outcome.reason] += 1
        else:
            changed += outcome.text != document.text
    print(f"{spec}: {files:,} files, {size / 1e6:.1f} MB")
    print(f"  dropped {dropped.total():,}: {', '.join(f'{n:,} {reason}' for reason, n in dropped.most_common())}")
    replaced = ", ".join(f"{n:,} {kind}" for kind, n in tally.counts.most_common())
    print(f"  something replaced in {changed:,} ({changed / max(files, 1):.1%}): {replaced or 'nothing'}")


def _documents(spec: str, corpus: CorpusConfig) -> Iterator[Document]:
    for unit in sources.units([spec]):
        for raw in sources.read(unit, corpus.quality.max_bytes):
            text = decoding.decode(raw) if isinstance(raw, Raw) else None
            if isinstance(raw, Raw) and isinstance(text, str) and (language := language_of(raw.path, text)):
                yield Document(text, raw.path, raw.repository, language, "", "")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
