"""Writes tests/golden/configs/: every shipped config, resolved, with the figures that follow from it.

make golden        # then look at the diff: it shows exactly which experiments a change moves
"""

import json
from pathlib import Path

from codelm.config import Config, resolve
from codelm.config_command import derived
from codelm.config_io import load, to_dict

CONFIGS = Path(__file__).parent.parent.parent / "configs"
GOLDEN = Path(__file__).parent / "configs"


def shipped() -> list[Path]:
    return sorted(path for path in CONFIGS.glob("*.py") if path.stem != "__init__")


def snapshot(path: Path) -> str:
    config: Config = resolve(load(path))
    return json.dumps(to_dict(config) | {"derived": derived(config)}, indent=2) + "\n"


def main() -> None:
    for old in GOLDEN.glob("*.json"):
        old.unlink()
    for path in shipped():
        (GOLDEN / f"{path.stem}.json").write_text(snapshot(path))
        print(f"wrote {GOLDEN.name}/{path.stem}.json")


if __name__ == "__main__":
    main()
