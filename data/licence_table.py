"""Which licences are permissive, what people call them, and the phrases that give each away.

The phrases are matched against text in lower case in which every run of anything but letters, digits and `.` `+` is
one space, so that line breaks, comment marks and quotation marks do not matter.
"""

import re

# What the Blue Oak Council rates and OSI approves as permissive, without the Creative Commons licences, which are not
# written for code (CC0 aside).
_PERMISSIVE = """
0BSD AFL-3.0 Apache-1.1 Apache-2.0 Artistic-2.0 Beerware BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent
BSD-3-Clause BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause BSL-1.0 bzip2-1.0.6 CC0-1.0 CNRI-Python curl ECL-2.0
Fair FTL HPND HPND-sell-variant ICU IJG ISC libpng-2.0 libtiff LicenseRef-Public-Domain MIT MIT-0 MIT-CMU
MulanPSL-2.0 NCSA NTP OLDAP-2.8 OpenSSL PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 SMLNJ TCL Unicode-3.0
Unicode-DFS-2016 Unlicense UPL-1.0 W3C WTFPL X11 Xnet Zlib zlib-acknowledgement ZPL-2.1
"""
PERMISSIVE: frozenset[str] = frozenset(_PERMISSIVE.split())

# Others that a configuration or a source may name; a name outside both sets is a licence that we do not know.
_OTHER = """
AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later APSL-2.0 Artistic-1.0 BUSL-1.1 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-4.0
CC-BY-NC-SA-4.0 CC-BY-NC-ND-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CDDL-1.0 CDDL-1.1 CECILL-2.1 CPL-1.0
Elastic-2.0 EPL-1.0 EPL-2.0 EUPL-1.2 GFDL-1.3-or-later GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only
GPL-3.0-or-later JSON LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only
LGPL-3.0-or-later LicenseRef-Proprietary MPL-1.1 MPL-2.0 MS-PL MS-RL ODbL-1.0 OFL-1.1 OSL-3.0
PolyForm-Noncommercial-1.0.0 QPL-1.0 Ruby Sleepycat SSPL-1.0 Vim
"""
OTHER: frozenset[str] = frozenset(_OTHER.split())

_FREE_FORM = {
    "0BSD": "bsd zero clause|zero clause bsd",
    "AGPL-3.0-only": "agpl|agpl 3|agpl3|gnu affero general public",
    "AGPL-3.0-or-later": "agpl+|agpl 3+|agpl3+|gnu affero general public 3+",
    "Apache-2.0": "apache|apache 2|apache2|apache 2.0|apache software|apache software 2.0|asl 2.0|apache license",
    "Artistic-2.0": "artistic|artistic 2",
    "BSD-2-Clause": "bsd 2|bsd 2 clause|2 clause bsd|simplified bsd|freebsd|bsd2",
    "BSD-3-Clause": "bsd|bsd 3|bsd 3 clause|3 clause bsd|new bsd|modified bsd|revised bsd|bsd3|bsd style|bsd like",
    "BSD-4-Clause": "bsd 4 clause|4 clause bsd|original bsd",
    "BSL-1.0": "boost|boost software|boost software 1.0|bsl 1",
    "CC0-1.0": "cc0|cc0 1.0 universal|creative commons zero",
    "CDDL-1.0": "cddl",
    "EPL-1.0": "epl 1|eclipse public 1.0",
    "EPL-2.0": "epl|epl 2|eclipse public 2.0|eclipse public",
    "GPL-2.0-only": "gpl 2|gpl2|gpl 2.0|gnu gpl 2|gnu general public 2",
    "GPL-2.0-or-later": "gpl 2+|gpl2+|gpl 2.0+|gnu general public 2+",
    "GPL-3.0-only": "gpl 3|gpl3|gpl 3.0|gnu gpl 3|gnu general public 3|gpl|gnu gpl|gnu general public",
    "GPL-3.0-or-later": "gpl 3+|gpl3+|gpl 3.0+|gnu general public 3+",
    "HPND": "historical permission notice and disclaimer",
    "ISC": "iscl|isc iscl",
    "LGPL-2.1-only": "lgpl|lgpl 2.1|lgpl2.1|gnu lesser general public 2.1|gnu library or lesser general public",
    "LGPL-2.1-or-later": "lgpl+|lgpl 2.1+|gnu lesser general public 2+",
    "LGPL-3.0-only": "lgpl 3|lgpl3|lgpl 3.0|gnu lesser general public 3",
    "LGPL-3.0-or-later": "lgpl 3+|lgpl3+|gnu lesser general public 3+",
    "LicenseRef-Public-Domain": "public domain",
    "LicenseRef-Proprietary": "proprietary|other proprietary|commercial|all rights reserved",
    "MIT": "mit x11|expat|mit expat|mit style",
    "MIT-0": "mit no attribution",
    "MIT-CMU": "hpnd mit cmu|cmu",
    "MPL-1.1": "mpl 1.1|mozilla public 1.1",
    "MPL-2.0": "mpl|mpl 2|mpl2|mozilla public 2.0|mozilla public|mozilla public 2.0 mpl 2.0",
    "NCSA": "university of illinois ncsa open source",
    "PostgreSQL": "postgres",
    "PSF-2.0": "psf|psfl|python software foundation",
    "Python-2.0": "python",
    "Unlicense": "the unlicense unlicense|un",
    "WTFPL": "do what the fuck you want to public",
    "Zlib": "zlib libpng",
    "ZPL-2.1": "zope public|zpl",
}
NAMES: dict[str, str] = {id.lower(): id for id in PERMISSIVE | OTHER} | {
    name: id for id, names in _FREE_FORM.items() for name in names.split("|")
}

# One licence a row, and of a group only the first row that matches: a licence that contains another's words comes
# before it. A group is looked at only where one of its words stands.
_GIVEN = r"(?:licen[cs]ed|released|distributed|available|published|covered|governed|provided|redistributed|used|is)"
_UNDER = rf"{_GIVEN} (?:under|by) (?:the |an? )?(?:terms (?:and conditions )?of )?(?:the |an? )?(?:same )?"
_CREATIVE_COMMONS = tuple(
    (
        ("creative commons", "creativecommons"),
        (
            (
                f"CC-{kind}-{version}",
                rf"creative commons {words} (?:licen[cs]e )?(?:version )?{version}"
                rf"|creativecommons.org licenses {kind.lower().replace('-', ' ')} {version}",
            ),
        ),
    )
    for version in ("4.0", "3.0")
    for kind, words in {
        "BY": "attribution",
        "BY-SA": "attribution share ?alike",
        "BY-NC": "attribution non ?commercial",
        "BY-NC-SA": "attribution non ?commercial share ?alike",
        "BY-NC-ND": r"attribution non ?commercial no ?deriv\w+",
        "BY-ND": r"attribution no ?deriv\w+",
    }.items()
)
PHRASES: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    (
        ("permission is hereby granted", " mit ", " expat "),
        (
            (
                "MIT-0",
                "permission is hereby granted free of charge to any person obtaining a copy .{250,480}"
                "furnished to do so the software is provided",
            ),
            (
                "X11",
                "permission is hereby granted free of charge to any person obtaining a copy .{300,1300}"
                "except as contained in this notice the names? .{3,120} shall not be used in advertising",
            ),
            (
                "NCSA",
                "permission is hereby granted free of charge to any person obtaining a copy .{100,500}"
                "redistributions of source code must retain",
            ),
            (
                "MIT",
                "permission is hereby granted free of charge to any person obtaining a copy"
                rf"|{_UNDER}(?:permissive )?(?:mit|expat)(?: x11)?(?: style)? licen[cs]e"
                r"|\blicen[cs]e mit\b|\bmit licen[cs]ed?\b(?! (?:and|or) )",
            ),
        ),
    ),
    (
        ("redistribution and use", " bsd "),
        (
            (
                "BSD-4-Clause",
                "redistribution and use in source and binary forms .{50,900}"
                "all advertising materials mentioning features",
            ),
            (
                "BSD-3-Clause",
                "redistribution and use in source and binary forms .{50,1800}"
                "(?:neither the names? |nor the names? of |names? of .{3,160} (?:may|must) not be used to)",
            ),
            (
                "BSD-2-Clause",
                "redistribution and use in source and binary forms .{20,500}redistributions in binary form",
            ),
            ("BSD-1-Clause", "redistribution and use in source and binary forms"),
            ("BSD-2-Clause", rf"{_UNDER}(?:simplified bsd|bsd 2 clause|2 clause bsd)\b"),
            (
                "BSD-3-Clause",
                rf"{_UNDER}(?:new |modified |revised |3 clause )?bsd(?: 3 clause)?(?: style| type| like)? licen[cs]e",
            ),
        ),
    ),
    (
        (" apache",),
        (
            (
                "Apache-2.0",
                "licen[cs]ed under the apache licen[cs]e version 2|apache licen[cs]e version 2.0 january 2004"
                rf"|{_UNDER}apache(?: software)?(?: licen[cs]e)? ?(?:version |v ?)?2"
                "|apache.org licenses license 2.0",
            ),
            ("Apache-1.1", "apache software licen[cs]e version 1.1"),
        ),
    ),
    (
        ("permission to use", " isc "),
        (
            (
                "ISC",
                "permission to use copy modify and (?:or )?distribute this software for any purpose with or without fee"
                rf" is hereby granted provided that|{_UNDER}isc licen[cs]e",
            ),
            (
                "0BSD",
                "permission to use copy modify and (?:or )?distribute this software for any purpose with or without fee"
                " is hereby granted",
            ),
            (
                "MIT-CMU",
                "permission to use copy modify and distribute this software and its (?:associated )?documentation for"
                " any purpose and without fee is hereby granted provided that .{50,300}that the names? of .{3,200}"
                "not be used in advertising or publicity",
            ),
            ("HPND", "permission to use copy modify (?:and )?(?:sell )?(?:and )?distribute this software and its"),
        ),
    ),
    (
        ("unencumbered", " cc0 ", "publicdomain", "public domain", "disclaims copyright"),
        (
            ("Unlicense", "this is free and unencumbered software released into the public domain"),
            ("CC0-1.0", rf"cc0 1.0 universal|creativecommons.org publicdomain zero|{_UNDER}cc0\b"),
            (
                "LicenseRef-Public-Domain",
                "(?:placed|released|dedicated|put|donated|are|is|code|file|software) (?:hereby )?"
                "(?:[a-z]+ ){0,4}(?:in|into|to) (?:the )?public domain"
                "|authors? (?:hereby )?disclaims? copyright to this source code",
            ),
        ),
    ),
    *_CREATIVE_COMMONS,
    (
        ("mozilla public", " mpl"),
        (
            ("MPL-2.0", rf"mozilla public licen[cs]e (?:version |v\.? ?)?2.0|{_UNDER}mpl ?(?:v|version )?2"),
            ("MPL-1.1", "mozilla public licen[cs]e (?:version |v\\.? ?)?1.1"),
        ),
    ),
    (
        ("eclipse public",),
        (
            ("EPL-2.0", "eclipse public licen[cs]e (?:version |v\\.? ?)?2.0"),
            ("EPL-1.0", "eclipse public licen[cs]e (?:version |v\\.? ?)?1.0"),
        ),
    ),
    (
        ("common development",),
        (
            ("CDDL-1.1", "common development and distribution licen[cs]e (?:cddl )?version 1.1"),
            ("CDDL-1.0", "common development and distribution licen[cs]e"),
        ),
    ),
    (
        ("plainly marked", " zlib "),
        (("Zlib", rf"altered source versions must be plainly marked|{_UNDER}zlib(?: libpng)? licen[cs]e"),),
    ),
    (("boost software",), (("BSL-1.0", "boost software licen[cs]e"),)),
    (
        ("python software foundation", " psf "),
        (
            (
                "PSF-2.0",
                "psf licen[cs]e agreement for python|python software foundation licen[cs]e version 2"
                "|licensed to psf under a contributor agreement",
            ),
        ),
    ),
    (("fuck you want", " wtfpl"), (("WTFPL", rf"do what the fuck you want to public licen[cs]e|{_UNDER}wtfpl\b"),)),
    (("artistic licen",), (("Artistic-2.0", "artistic licen[cs]e (?:version )?2.0"),)),
    (("server side public",), (("SSPL-1.0", "server side public licen[cs]e"),)),
    (("business source",), (("BUSL-1.1", "business source licen[cs]e"),)),
    (("elastic license",), (("Elastic-2.0", "elastic license 2.0"),)),
    (("polyform noncommercial",), (("PolyForm-Noncommercial-1.0.0", "polyform noncommercial licen[cs]e"),)),
)

# A GNU licence's family, its version and whether a later one may be chosen are found separately.
GNU_NAME = re.compile(
    r"\bgnu (?P<kind>affero |lesser |library |library or lesser )?(?:gpl|general public licen[cs]e)\b"
)
GNU_ABBREVIATION = re.compile(
    rf"(?:{_UNDER}|\blicen[cs]e )(?:gnu )?(?P<kind>[al]?)gpl(?: licen[cs]e)? ?(?:v|v\.|version )? ?"
    r"(?P<version>[123](?:\.[01])?)?(?P<later>\+| or (?:any )?(?:later|newer|above))?"
)
PROPRIETARY = re.compile(
    "proprietary and confidential|confidential and proprietary|confidential proprietary|trade secret"
    "|unauthori[sz]ed (?:copying|use|reproduction|distribution) .{0,120}(?:prohibited|forbidden)"
    "|may not be (?:copied|reproduced|used|disclosed|distributed) .{0,80}without .{0,40}(?:permission|consent|written)"
)
