"""Who a person is gets replaced, what names no one stays, and code still parses."""

import ast
import json
import random
from collections import Counter

import pytest

from data import personal
from tests.data import standard_library


def redact(text: str) -> str:
    counts: Counter[str] = Counter()
    clean = personal.redact(text, counts)
    places = {kind: clean.count(f"<{kind}>") - text.count(f"<{kind}>") for kind in ("NAME", "EMAIL", "IP_ADDRESS")}
    assert counts == Counter({f"personal:{kind}": n for kind, n in places.items() if n})
    return clean


REPLACED = {
    "# Author: Jane Doe <jane@doe.org>": "# Author: <NAME> <<EMAIL>>",
    "# Authors: Jane Doe, John Q. Public and Ana María López": "# Authors: <NAME>, <NAME> and <NAME>",
    " * @author Jane Doe": " * @author <NAME>",
    " * @author jdoe": " * @author <NAME>",
    '__author__ = "Jane Doe"': '__author__ = "<NAME>"',
    "__author__ = 'jdoe'": "__author__ = '<NAME>'",
    "__author__ = ('Jane Doe <jane@doe.co.uk>', 'x')": "__author__ = ('<NAME> <<EMAIL>>', 'x')",
    ":author: Jane Doe": ":author: <NAME>",
    '  "author": "Jane Doe",': '  "author": "<NAME>",',
    "author: Jane Doe": "author: <NAME>",
    "# Copyright (c) 2019 Jane Doe": "# Copyright (c) 2019 <NAME>",
    "# Copyright (C) 2001-03, 2007 Jane van der Doe. All rights": "# Copyright (C) 2001-03, 2007 <NAME>. All rights",
    "// Copyright © 2020 by Jane Doe-Smith and John O'Neil": "// Copyright © 2020 by <NAME> and <NAME>",
    "# (c) 2019 Jane Doe": "# (c) 2019 <NAME>",
    "Written by Jane Doe, 2003": "Written by <NAME>, 2003",
    "# Originally written by J. R. Doe for the project.": "# Originally written by <NAME> for the project.",
    "Signed-off-by: Jane Doe <jane@doe.de>": "Signed-off-by: <NAME> <<EMAIL>>",
    "# mail JANE.DOE@ACME-CORP.COM or jane+code@mail.acme-corp.io.": "# mail <EMAIL> or <EMAIL>.",
    'send("mailto:jane@doe.org?subject=x")': 'send("mailto:<EMAIL>?subject=x")',
    'HOST = "203.0.114.7"': 'HOST = "<IP_ADDRESS>"',
    'connect("93.184.216.34:8080")': 'connect("<IP_ADDRESS>:8080")',
    "http://93.184.216.34/x": "http://<IP_ADDRESS>/x",
    "server 5.9.12.3": "server <IP_ADDRESS>",
    'peer = "2a00:1450:4001:81b::200e"': 'peer = "<IP_ADDRESS>"',
    "ping [2607:f8b0:4005:805::200e]": "ping [<IP_ADDRESS>]",
}  # fmt: skip

LEFT_ALONE = [
    "@property",
    "@app.route('/x')",
    "@pytest.mark.parametrize",
    "y = q@k.T + a@b.real",
    "z = w@x.to(device)",
    "z = w@x.mT",
    "git@github.com:owner/name.git",
    "git clone ssh://git@gitlab.com/x.git",
    "https://user:secret@host.com/path https://jane:secret@corp-x.com/path",
    "scp file jane@machine.org:/tmp/x",
    "user@example.com, a@example.org, b@mail.example.net, c@x.test, d@localhost, e@foo.local",
    "noreply@github.com",
    "12345+jane@users.noreply.github.com",
    "return@forEach.value",
    "icon@2x.png",
    "npm i pkg@1.2.3 left@latest",
    "%s@%s.com and ${user}@host.com",
    "127.0.0.1 10.1.2.3 192.168.1.1 172.16.0.1 169.254.1.1 0.0.0.0 255.255.255.255 192.0.2.1 198.51.100.7 203.0.113.9",
    "224.0.0.251 is multicast",
    "DNS servers 8.8.8.8, 1.1.1.1, 8.8.4.4 and 208.67.222.222",
    'version = "1.2.3.4"',
    'version = "93.184.216.34"',
    "requires foo==93.184.216.34, bar>=91.2.3.4, v93.184.216.34",
    "see section 8.2.4.45",
    "8.2.4.45 Markup declaration open",
    "the version is now 93.184.216.34",
    "1.3.6.1.4.1.311.2.1.12 and 93.184.216.34.5",
    "Chrome/93.184.216.34",
    "999.184.216.34",
    "file-93.184.216.34-x86.tar",
    "1.0.0.127.in-addr.arpa",
    "std::dead::beef x[::2] 12:30:45 face::bad aa:bb:cc:dd:ee:ff",
    "2001:db8::1 fe80::1 ::1 fd00::1 2001:4860:4860::8888",
    "# Copyright 2019 Google LLC",
    "# Copyright (c) 2019 The Chromium Authors. All rights reserved.",
    "# Copyright (c) 2010 Python Software Foundation",
    "# Copyright 2015 Acme Widgets, Inc.",
    "# Copyright (C) 2012-2020 Free Software Foundation",
    "# Copyright 2020 the project contributors",
    "# Copyright (c) 2011 University of California",
    "Author: the team",
    "author = models.ForeignKey(User)",
    "def author(self, name: str) -> Author: ...",
    "author: Optional[str] = None",
    "# written by the parser, Created By Google",
    "if author == Author.OBJECT: pass",
    "sorted by Name",
]  # fmt: skip


@pytest.mark.parametrize("line", REPLACED)
def test_replaced(line: str) -> None:
    assert redact(f"import os\n{line}\nx = 1\n") == f"import os\n{REPLACED[line]}\nx = 1\n"
    assert redact(line) == REPLACED[line]
    assert redact(REPLACED[line]) == REPLACED[line]


@pytest.mark.parametrize("line", LEFT_ALONE)
def test_left_alone(line: str) -> None:
    for text in (line, f"import os\n{line}\nx = 1\n"):
        assert personal.redact(text, Counter()) is text


GIVEN = ["Jane", "John", "Ana", "Mikhail", "Wei", "Fatima", "Olu", "Søren", "Zoë", "Jean-Luc"]
FAMILY = ["Doe", "Smith", "O'Neil", "Núñez", "Petrov", "Zhang", "Adeyemi", "Sørensen", "MacLeod"]
HOSTS = ["mailbox.org", "acme-corp.com", "uni-x.edu", "firm.co.uk", "startup.io"]


def people(rng: random.Random) -> tuple[str, str, str]:
    given, family = rng.choice(GIVEN), rng.choice(FAMILY)
    address = f"{given.lower()}.{rng.randrange(100)}@{rng.choice(HOSTS)}".encode("ascii", "ignore").decode()
    while True:
        ip = ".".join(str(rng.randrange(64, 224)) for _ in range(4))
        if not ip.startswith(("100.", "127.", "169.254.", "172.", "192.", "198.", "203.")):
            return f"{given} {family}", address, ip


def test_planted_people_are_all_found_and_python_still_parses() -> None:
    rng = random.Random(0)
    lines, names, places = [], [], 0
    for n in range(60):
        name, address, ip = people(rng)
        quoted = repr(name)
        lines += [
            f"# Author: {name} <{address}>",
            f"__author__ = {quoted}",
            f'"""Written by {name} ({address})."""',
            f"x{n} = {{'peer': '{ip}', 'to': b'{address}'.decode()}}  # Copyright (c) 20{n:02} {name}",
        ]
        names += [name, address, ip]
        places += 8
    text = "\n".join(lines) + "\n"
    counts: Counter[str] = Counter()
    clean = personal.redact(text, counts)
    assert not [value for value in names if value in clean]
    assert counts.total() == places
    assert len(ast.parse(clean).body) == len(ast.parse(text).body)


def test_redacted_json_loads() -> None:
    rng = random.Random(1)
    rows = [dict(zip(("author", "email", "ip"), people(rng), strict=True)) for _ in range(40)]
    clean = json.loads(personal.redact(json.dumps(rows, ensure_ascii=False, indent=1), Counter()))
    assert all(row == {"author": "<NAME>", "email": "<EMAIL>", "ip": "<IP_ADDRESS>"} for row in clean)


def test_the_standard_library_still_parses_and_names_no_one_twice() -> None:
    texts = list(standard_library.texts().values())
    changed = 0
    for text in texts:
        counts: Counter[str] = Counter()
        clean = personal.redact(text, counts)
        assert (clean is text) == (not counts)
        if counts:
            changed += 1
            assert len(ast.parse(clean).body) == len(ast.parse(text).body)
            assert personal.redact(clean, Counter()) == clean
    assert 100 <= changed <= 200  # files with their authors' names and addresses; see test_left_alone for what is not
