"""Small repositories written for tests: ordinary code, no two files of it alike."""

import random
from pathlib import Path

MIT = (
    "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software and "
    "associated documentation files, to deal in the Software without restriction, including without limitation the "
    "rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software.\n"
)
_VERBS = ["load", "save", "parse", "merge", "split", "count", "print", "check", "build", "order", "shift", "paint"]
_NOUNS = ["table", "river", "window", "ticket", "garden", "parcel", "bridge", "letter", "kettle", "market", "basket"]


def module(seed: int, functions: int = 6) -> str:
    """Python source that is ordinary to every filter, and like no other seed's."""
    rng = random.Random(seed)

    def name() -> str:
        return f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}_{rng.randrange(1000)}"

    lines = [f'"""Functions that {rng.choice(_VERBS)} every {rng.choice(_NOUNS)}."""', ""]
    for _ in range(functions):
        first, second, value = name(), name(), rng.randrange(2, 90)
        lines += [
            f"def {name()}({first}, {second}):",
            f"    total = {first} + {second} * {value}",
            f"    for step in range({value}):",
            f"        if step % {rng.randrange(2, 9)} == 0:",
            f"            total = {name()}(total, step)",
            f"    return {name()}(total, {first})",
            "",
        ]
    return "\n".join(lines)


def repositories(folder: Path, count: int = 6, files: int = 5, seed: int = 0) -> Path:
    """A folder of clean, licensed repositories."""
    for r in range(count):
        home = folder / f"repo{r:02}"
        home.mkdir(parents=True)
        (home / "LICENSE").write_text(MIT)
        for f in range(files):
            (home / f"module_{f}.py").write_text(module(seed + 1000 * r + f))
    return folder
