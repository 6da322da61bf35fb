"""Run folders as `codelm run` leaves them, written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codelm import config_io
from codelm.config import Config, fingerprint


def write(folder: Path, config: Config, metrics: Sequence[dict[str, Any]] = (), **result: Any) -> Path:
    """A run of a resolved config; finished if it has a result."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config_io.to_json(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if result:
        content = {"codelm_result": 1, "name": config.name, "fingerprint": fingerprint(config), "seconds": 2.0}
        (folder / "result.json").write_text(json.dumps(content | result))
    return folder
