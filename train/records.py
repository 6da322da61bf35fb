"""What a run writes down while it trains: metrics.jsonl, events.jsonl, TensorBoard, Weights & Biases.

A line of metrics.jsonl is a step or an evaluation; all of it but `speed` is the same whenever the run is repeated or
resumed, because lines after the checkpoint that a run goes on from are taken away. events.jsonl is never shortened: it
says what happened, and how each session spent its time.
"""

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codelm.config import Config
from codelm.config_io import to_dict
from codelm.errors import UserError
from codelm.publish import write_atomically
from train.tensorboard import Events

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"


class Records:
    """Of one process: the others write nothing."""

    def __init__(self, run: Path, config: Config, writes: bool = True) -> None:
        self.run, self._writes = run, writes
        self._boards: list[Events | WeightsAndBiases] = []
        if not writes:
            return
        try:
            run.mkdir(parents=True, exist_ok=True)
            if config.track.tensorboard:
                self._boards.append(Events(run / "tensorboard"))
        except OSError as error:
            raise UserError(f"cannot write in {run}: {error.strerror or error}") from error
        if config.track.wandb:
            self._boards.append(WeightsAndBiases(run, config))

    def metrics(self, stage: str, step: int, total_step: int, line: Mapping[str, Any]) -> None:
        """`total_step` counts on over the stages, as curves do."""
        self._append(METRICS, {"stage": stage, "step": step, **line})
        if not self._writes:
            return
        flat = {name: float(value) for name, value in line.items() if isinstance(value, int | float)}
        flat |= {f"speed/{name}": float(v) for name, v in line.get("speed", {}).items() if isinstance(v, int | float)}
        for board in self._boards:
            board.scalars(total_step, flat)

    def event(self, name: str, **more: Any) -> None:
        self._append(EVENTS, {"event": name, **more})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        if not self._writes:
            return
        try:
            with (self.run / name).open("a") as file:
                file.write(json.dumps(finite(line)) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write {self.run / name}: {error.strerror or error}; what is in checkpoints stays, run the "
                "same command again to go on"
            ) from error

    def forget(self, stage: str, after: int) -> list[dict[str, Any]]:
        """Take away the lines of steps that will be done again, and return them."""
        if not self._writes:
            return []
        lines = read(self.run / METRICS)
        kept = [line for line in lines if line["stage"] != stage or line["step"] <= after]
        gone = [line for line in lines if line["stage"] == stage and line["step"] > after]
        text = (self.run / METRICS).read_text() if (self.run / METRICS).exists() else ""
        if gone or (not text.endswith("\n") and text):
            content = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(self.run / METRICS, content.encode())
        return gone

    def close(self) -> None:
        for board in self._boards:
            board.close()


class WeightsAndBiases:
    """Scalars to wandb.ai, of a library that is an extra."""

    def __init__(self, run: Path, config: Config) -> None:
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise UserError('track.wandb needs the extra: make install EXTRAS="wandb"') from error
        self._run = wandb.init(
            project=config.track.wandb,
            name=config.name,
            id=config.name,
            resume="allow",
            dir=run,
            config=to_dict(config),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a record; the last may have been cut off by a kill and is then left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines):
        try:
            if line:
                found.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise UserError(f"{path}:{number + 1} is not JSON: the file was changed; move it away") from error
    return found


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as text."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
