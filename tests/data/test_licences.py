"""Licences are told by tags, texts and headers, and used as the configuration allows."""

import email
import importlib.metadata
import re
from collections import Counter

import pytest

from codelm.corpus_config import LicenceConfig
from codelm.errors import UserError
from data.document import Document, Drop
from data.licences import PERMISSIVE, detect, joined, licence, normalise, policy, refused

GPL_HEADER = """This program is free software; you can redistribute it and/or modify it under the terms of the GNU{}
General Public License as published by the Free Software Foundation; either version {} of the License, or (at your
option) any later version."""
MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
BSD = """Redistribution and use in source and binary forms, with or without modification, are permitted provided that:
1. Redistributions of source code must retain the above copyright notice.
2. Redistributions in binary form must reproduce the above copyright notice.
"""
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted{}"""

HEADERS = {
    "SPDX-License-Identifier: MIT": "MIT",
    "SPDX-License-Identifier: GPL-2.0": "GPL-2.0-only",
    "SPDX-License-Identifier: GPL-2.0+": "GPL-2.0-or-later",
    "SPDX-License-Identifier: (MIT OR GPL-2.0-only)": "(MIT OR GPL-2.0-only)",
    "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */": "GPL-2.0-only WITH Linux-syscall-note",
    "<!-- SPDX-License-Identifier: apache-2.0 -->": "Apache-2.0",
    'Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file': "Apache-2.0",
    MIT: "MIT",
    "Released under the MIT license.": "MIT",
    "This code is licensed under the terms of the MIT License": "MIT",
    "license: MIT": "MIT",
    "Use of this source code is governed by a MIT-style licence that can be found in LICENSE": "MIT",
    BSD: "BSD-2-Clause",
    BSD + "3. Neither the name of the X nor the names of its contributors may be used": "BSD-3-Clause",
    BSD + "3. All advertising materials mentioning features or use of this software must display": "BSD-4-Clause",
    "Use of this source code is governed by a BSD-style\nlicense that can be found in LICENSE.": "BSD-3-Clause",
    "Licensed under the Simplified BSD License": "BSD-2-Clause",
    ISC.format(", provided that the above copyright notice appear"): "ISC",
    ISC.format(". THE SOFTWARE IS PROVIDED AS IS"): "0BSD",
    "Distributed under the Boost Software License, Version 1.0.": "BSL-1.0",
    "3. This notice. 2. Altered source versions must be plainly marked as such. (see the zlib licence)": "Zlib",
    "This is free and unencumbered software released into the public domain.": "Unlicense",
    "The author has placed this licence-free file in the public domain": "LicenseRef-Public-Domain",
    "Licensed to PSF under a Contributor Agreement.": "PSF-2.0",
    "To the extent possible: see the license CC0 1.0 Universal": "CC0-1.0",
    "DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE": "WTFPL",
    GPL_HEADER.format("", 2): "GPL-2.0-or-later",
    GPL_HEADER.format("", 3): "GPL-3.0-or-later",
    GPL_HEADER.format(" Lesser", "2.1"): "LGPL-2.1-or-later",
    GPL_HEADER.format(" Affero", 3): "AGPL-3.0-or-later",
    "it can be redistributed under the terms of the GNU General Public License version 2 only": "GPL-2.0-only",
    "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n": "GPL-3.0-only",
    "GNU LESSER GENERAL PUBLIC LICENSE\n   Version 2.1, February 1999": "LGPL-2.1-only",
    "licensed under the GPLv3": "GPL-3.0-only",
    "License: LGPL v2.1 or later": "LGPL-2.1-or-later",
    "This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.": "MPL-2.0",
    "made available under the terms of the Eclipse Public License v1.0": "EPL-1.0",
    "subject to the Common Development and Distribution License (the License)": "CDDL-1.0",
    "licensed under the Creative Commons Attribution-ShareAlike 4.0 International": "CC-BY-SA-4.0",
    "licensed under a Creative Commons Attribution-NonCommercial 4.0 International License": "CC-BY-NC-4.0",
    "licensed under the Server Side Public License, version 1": "SSPL-1.0",
    "Use of this software is governed by the Business Source License": "BUSL-1.1",
    "Copyright Acme. All rights reserved. Proprietary and confidential.": "LicenseRef-Proprietary",
    "Dual licensed under the MIT license and the GPLv2 license:\nlicensed under the GPLv2": "MIT OR GPL-2.0-only",
}
COMMENTS = ("{}", "# {}", "// {}", " * {}", "-- {}", "; {}")


@pytest.mark.parametrize("header", HEADERS)
def test_headers(header: str) -> None:
    """Each in the comment marks of several languages, and cut into lines elsewhere."""
    words = header.split()
    for mark in COMMENTS:
        rows = [" ".join(words[i : i + 6]) for i in range(0, len(words), 6)] if "SPDX" not in header else [header]
        text = "\n".join(mark.format(row) for row in rows) + "\n\nimport os\n"
        assert detect(text) == (HEADERS[header],), text


@pytest.mark.parametrize(
    "text",
    [
        "import os\n",
        '"""Reads the licence plate of a car, with permission."""',
        "# Copyright (c) 2020 Jane Doe. All rights reserved.\n",
        "# GNU readline is used when the licence allows; see the GNU General Public License for more.\n",
        "license = choose(['MIT', 'GPL-3.0'])",
        "# see the file LICENSE for what is permitted\n",
    ],
)
def test_no_licence_is_seen_where_none_is_stated(text: str) -> None:
    assert detect(text) == ()


def test_licences_that_name_others() -> None:
    mpl = "Mozilla Public License Version 2.0. Secondary License means the GNU General Public License, Version 2.0"
    assert detect(mpl) == ("MPL-2.0",)
    psf = "PSF LICENSE AGREEMENT FOR PYTHON 3. It can be combined with software that is released under the GPL"
    assert detect(psf) == ("PSF-2.0",)
    lgpl = """GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June 2007
    incorporates the terms and conditions of version 3 of the GNU General Public License"""
    assert detect(lgpl) == ("LGPL-3.0-only",)


def test_licence_files_of_installed_packages() -> None:
    """What packages declare (License-Expression) against their licence files: all but one in twenty agree."""
    agree = 0
    differ: list[str] = []
    for package in importlib.metadata.distributions():
        declared = (package.metadata or email.message.Message()).get("License-Expression")
        files = [f for f in package.files or [] if re.search(r"(?i)dist-info/(licen[cs]es?|copying)", str(f))]
        if declared and files:
            found = {
                id
                for f in files
                for e in detect(f.locate().read_text("utf-8", "replace"))
                for id in re.findall(r"[\w.-]+", e)
            }
            if set(re.findall(r"[\w.-]+", declared)) - {"AND", "OR", "WITH"} <= found:
                agree += 1
            else:
                differ.append(f"{package.name}: {declared}, found {found}")
    if agree + len(differ) < 20:
        pytest.skip("too few packages declare an expression")
    assert len(differ) <= 0.05 * agree, differ


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("MIT", "MIT"),
        ("mit license", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("License :: OSI Approved :: MIT License", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("License :: OSI Approved :: Apache Software License", "Apache-2.0"),
        ("BSD License", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD 2-Clause", "BSD-2-Clause"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("gpl-2.0+", "GPL-2.0-or-later"),
        ("GPLv3", "GPL-3.0-only"),
        ("License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
        ("License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("License :: OSI Approved :: Python Software Foundation License", "PSF-2.0"),
        ("ISC License (ISCL)", "ISC"),
        ("Public Domain", "LicenseRef-Public-Domain"),
        ("The Unlicense (Unlicense)", "Unlicense"),
        ("MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
        ("as you like it", None),
        ("", None),
    ],
)
def test_names(name: str, id: str | None) -> None:
    assert normalise(name) == id


@pytest.mark.parametrize(
    ("expression", "offenders"),
    [
        ("MIT", set()),
        ("GPL", {"GPL"}),
        ("MIT AND GPL", {"GPL"}),
        ("MIT OR GPL", set()),
        ("GPL OR MIT", set()),
        ("GPL OR AGPL", {"GPL", "AGPL"}),
        ("MIT AND (GPL OR MIT)", set()),
        ("(MIT OR GPL) AND AGPL", {"AGPL"}),
        ("MIT OR GPL AND AGPL", set()),
        ("GPL AND AGPL OR LGPL", {"GPL", "AGPL", "LGPL"}),
        ("GPL WITH exception", {"GPL"}),
        ("MIT WITH exception AND GPL", {"GPL"}),
        ("((MIT))", set()),
    ],
)
def test_expressions(expression: str, offenders: set[str]) -> None:
    assert refused(expression, lambda id: id == "MIT") == offenders


def step(text: str, repository_licence: str, config: LicenceConfig) -> Document | Drop:
    document = Document(text, "a.py", "r", "Python", repository_licence, "")
    return licence(document, Counter(), policy(config))


CODE = "import os\n"
GPL_FILE = "# SPDX-License-Identifier: GPL-3.0-or-later\nimport os\n"
MIT_FILE = "# Released under the MIT license\nimport os\n"


def test_the_file_goes_before_the_repository() -> None:
    default = LicenceConfig()
    assert step(CODE, "MIT", default) == Document(CODE, "a.py", "r", "Python", "MIT", "")
    assert step(GPL_FILE, "MIT", default) == Drop("licence_not_allowed", "GPL-3.0-or-later", "GPL-3.0-or-later")
    kept = step(MIT_FILE, "", default)
    assert isinstance(kept, Document)
    assert kept.licence == "MIT"
    assert step(CODE, "", default) == Drop("unlicensed", "no licence known")
    assert step(CODE, "MIT AND GPL-3.0-only", default) == Drop(
        "licence_not_allowed", "GPL-3.0-only", "MIT AND GPL-3.0-only"
    )
    assert isinstance(step(CODE, "MIT OR GPL-3.0-only", default), Document)
    assert isinstance(step("x\n" * 5000 + GPL_FILE, "MIT", default), Document)  # far down is no header


def test_configuration() -> None:
    assert isinstance(step(CODE, "", LicenceConfig(unlicensed="keep")), Document)
    assert isinstance(step(GPL_FILE, "", LicenceConfig(allow=("any",))), Document)
    assert step(GPL_FILE, "", LicenceConfig(allow=("any",), deny=("GPL-3.0",))) == Drop(
        "licence_denied", "GPL-3.0-or-later", "GPL-3.0-or-later"
    )
    assert step(CODE, "MIT", LicenceConfig(deny=("MIT",))) == Drop("licence_denied", "MIT", "MIT")
    assert step(CODE, "MIT OR ISC", LicenceConfig(deny=("MIT",))) == Document(
        CODE, "a.py", "r", "Python", "MIT OR ISC", ""
    )
    assert step(CODE, "ISC", LicenceConfig(allow=("MIT",))) == Drop("licence_not_allowed", "ISC", "ISC")
    assert isinstance(step(GPL_FILE, "", LicenceConfig(allow=("permissive", "GPL-3.0-or-later"))), Document)


def test_unknown_names_in_the_configuration() -> None:
    with pytest.raises(UserError, match=r"licences\.allow: 'Apache 2\.0' .* Apache-2\.0\?"):
        policy(LicenceConfig(allow=("Apache 2.0",)))
    with pytest.raises(UserError, match=r"licences\.deny: 'MTI' .* MIT"):
        policy(LicenceConfig(deny=("MTI",)))


def test_permissive_has_no_copyleft() -> None:
    assert {"MIT", "ISC", "Apache-2.0", "BSD-3-Clause", "0BSD", "CC0-1.0", "Unlicense", "PSF-2.0", "Zlib"} <= PERMISSIVE
    assert not [id for id in PERMISSIVE if re.search("GPL|MPL|EPL|CDDL|SSPL|BUSL|CC-BY|Proprietary", id)]


def test_joined() -> None:
    assert joined(()) == ""
    assert joined(("MIT",)) == "MIT"
    assert joined(("MIT OR ISC", "Zlib")) == "(MIT OR ISC) AND Zlib"
