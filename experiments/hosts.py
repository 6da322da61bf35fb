"""Refuses hosts that would train something else than process 0: another config, other files, another folder."""

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from codelm.config import Config
from codelm.config_io import to_dict
from codelm.errors import UserError
from codelm.processes import exchange, of_first
from train.differences import flat

_PATIENCE = 10.0  # seconds until a file of another host is seen, where folders are cached


def check_same(config: Config, may_change: Sequence[str]) -> None:
    """The same command everywhere."""
    mine = flat(to_dict(config)) | {"--may_change": list(may_change)}
    first = of_first(lambda: mine)
    found = [path for path in {**first, **mine} if first.get(path) != mine.get(path)]
    told = ", ".join(f"{path} is {mine.get(path)!r} and there {first.get(path)!r}" for path in found[:5])
    _refuse(f"was given another command than process 0: {told}" if found else "")


def check_shared(folder: Path) -> None:
    """One folder of runs for all hosts."""
    name = of_first(lambda: f".shared-{secrets.token_hex(8)}")
    if jax.process_count() == 1:
        return
    note = folder / name
    if jax.process_index() == 0:
        note.touch()
    exchange("written")
    end = time.monotonic() + _PATIENCE
    while not (seen := note.exists()) and time.monotonic() < end:
        time.sleep(0.1)
    blind = [process for process, sees in enumerate(exchange(seen)) if not sees]
    if jax.process_index() == 0:
        note.unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"process {', '.join(map(str, blind))} does not see process 0's {folder}: --dir must be one folder that "
            "all hosts share, such as a network file system"
        )


def check_inputs(digests: Mapping[str, str]) -> None:
    """The same text and tokenizer, wherever each host keeps its own."""
    first = of_first(lambda: dict(digests))
    found = [name for name, digest in digests.items() if digest != first[name]]
    _refuse(f"has another {' and '.join(found)} than process 0 under the same path" if found else "")


def _refuse(said: str) -> None:
    """What is wrong with one process is refused by all."""
    for process, wrong in enumerate(exchange(said)):
        if wrong:
            raise UserError(f"process {process} {wrong}")
