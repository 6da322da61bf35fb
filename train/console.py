"""What a person sees while it trains: one live line on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn

from codelm.progress import duration


class Console:
    """Of a stage. `speaks` is false in all processes but one."""

    def __init__(self, stage: str, start: int, steps: int, every: int, speaks: bool) -> None:
        self._stage, self._first, self._steps = stage, start, steps
        self._every = max(every, steps // 20)
        self._speaks = speaks
        self._began = 0.0  # when the first step was done, which no later one is like
        console = RichConsole(stderr=True)
        bar = [BarColumn(bar_width=20)] if console.width >= 100 else []
        columns = (TextColumn("{task.description}"), *bar, TextColumn("{task.fields[text]}"))
        self._rich = Progress(*columns, console=console) if speaks and console.is_terminal else None
        self._task = self._rich.add_task(stage, total=steps, completed=start, text="compiling") if self._rich else None
        if self._rich:
            self._rich.start()

    def step(self, step: int, metrics: Mapping[str, Any], speed: Mapping[str, float]) -> None:
        text = self._text(step, metrics, speed)
        if self._rich and self._task is not None:
            self._rich.update(self._task, completed=step, text=text.replace("  ", " "))
        elif self._speaks and (step % self._every == 0 or step == self._steps):
            self.say(f"{self._stage}  {text}")

    def _text(self, step: int, metrics: Mapping[str, Any], speed: Mapping[str, float]) -> str:
        if not self._began:
            self._began, self._first = time.monotonic(), step
        rate = (time.monotonic() - self._began) / max(step - self._first, 1)
        left = f"  {duration(rate * (self._steps - step))} left" if step > self._first else ""
        mfu = f"  MFU {speed['mfu']:.0%}" if speed["mfu"] else ""
        return (
            f"step {step:,}/{self._steps:,}  loss {float(metrics['loss']):.3f}  "
            f"{speed['tokens_per_second']:,.0f} tokens/s{mfu}  goodput {speed['goodput']:.0%}{left}"
        )

    def say(self, line: str) -> None:
        if self._rich:
            self._rich.console.print(line, highlight=False, markup=False)
        elif self._speaks:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._rich:
            self._rich.stop()
