"""Where two configs differ, field by field."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from codelm.config import WHERE_IT_RUNS

# Stages that training does not depend on: they come after it, or only look at it.
LATER = ("midtrain", "evaluation")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], may_change: Sequence[str]) -> list[tuple]:
    """(path, before, now) of every field that changes results and may not."""
    free = (*WHERE_IT_RUNS, *LATER, "codelm_config", *may_change)
    old, new = flat(before), flat(now)
    paths = [path for path in {**old, **new} if not any(path == f or path.startswith(f"{f}.") for f in free)]
    return [(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted path, with tuples as lists."""
    return dict(_flat(json.loads(json.dumps(config))))


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
