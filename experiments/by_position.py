"""How well a run predicts by how far into its document a token stands, before and after mid-training."""

from collections.abc import Mapping, Sequence
from typing import Any

from codelm.config import Config
from codelm.midtraining import midtrained
from experiments.curves import Axes, Series, chart
from train.position_buckets import of_line, starts

BEFORE, AFTER = "before", "after"


def measured(config: Config, metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By bucket ("0–511"), the last loss; and what it was before mid-training, on the same rows. Of a run without
    mid-training only the last."""
    stage = "midtrain" if config.midtrain.steps else "pretrain"
    length = (midtrained(config) if config.midtrain.steps else config).data.seq_len
    first = starts(length).tolist()
    names = {start: f"{start:,}–{end - 1:,}" for start, end in zip(first, [*first[1:], length], strict=True)}
    found: dict[str, dict[str, float]] = {}
    for line in metrics:
        if line["stage"] == stage and (losses := of_line(line)):
            named = {names[start]: float(loss) for start, loss in losses.items() if start in names}
            found[AFTER if line["step"] else BEFORE] = named
    return found


def told(found: Mapping[str, Mapping[str, float]]) -> str:
    """One line; empty where nothing is known of before."""
    if set(found) != {BEFORE, AFTER}:
        return ""
    before, after = found[BEFORE], found[AFTER]
    parts = (f"{name} {before[name]:.2f} → {after[name]:.2f}" for name in before)
    return f"by position, before → after mid-training: {', '.join(parts)}"


def section(found: Mapping[str, Mapping[str, float]]) -> str:
    """A chart and a table."""
    names = list(next(iter(found.values())))
    middles = [sum(int(end.replace(",", "")) for end in name.split("–")) / 2 + 0.5 for name in names]
    lines = [Series(name, middles, list(losses.values()), points=True) for name, losses in found.items()]
    axes = Axes("Held-out loss by position in the document", "tokens before", "nats/token", log_x=True)
    head = "".join(f"<th class=n>{name}" for name in found)
    rows = "".join(
        f"<tr><td>{name}</td>" + "".join(f"<td class=n>{losses[name]:.4f}</td>" for losses in found.values()) + "</tr>"
        for name in names
    )
    return f"{chart(lines, axes)}<table><tr><th>positions{head}</tr>{rows}</table>"
