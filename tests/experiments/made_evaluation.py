"""Evaluations as `codelm eval` leaves them in a run's folder: tiny suites, and a model that is none."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.evals import harness
from experiments.evals.catalogue import Data
from experiments.evals.rows import Measured
from experiments.evals.suite import AS_IS, Losses, Outcome, Prompt, Suite, Task, Tools
from experiments.evals.targets import Decoding, Written
from train.infilling import similarity

HOSTILE = "</pre></mark><script>document.title = 'taken over'</script>"
SUITES = {
    "made-holes": ("tests.experiments.made_evaluation:holes", "holes"),
    "made-functions": ("tests.experiments.made_evaluation:functions", "functions"),
    "made-likelihood": ("tests.experiments.made_evaluation:likelihood", "likelihood"),
}


def holes(data: Data) -> Suite:
    tasks = [
        Task(
            f"hole/{n}",
            Prompt(f"def area_{n}(width, height):\n    size = ", f"\n    return size + {n}\n", f"lib/area_{n}.py"),
            f"width * height * {n}",
            {"language": ("Python", "JavaScript", "Go")[n % 3], "kind": ("line", "block")[n % 2]},
        )
        for n in range(16)
    ]

    def attempt(task: Task, tools: Tools) -> Outcome:
        written = tools.ask(task.prompt)
        alike = similarity(written, task.reference)
        return Outcome(written, {"exact": float(alike == 1), "similarity": alike}, "" if alike == 1 else "not the same")

    metrics = {"exact": "mean", "similarity": "mean"}
    return Suite("made-holes", 1, "16 holes in three languages", tasks, attempt, metrics, "5eed" * 16, AS_IS)


def functions(data: Data) -> Suite:
    tasks = [Task(f"function/{n}", Prompt(f"def double_{n}(x):\n    "), f"return {n} * x") for n in range(8)]

    def attempt(task: Task, tools: Tools) -> Outcome:
        written = tools.ask(task.prompt)
        right = written == task.reference
        return Outcome(written, {"pass": float(right)}, "" if right else "assertion")

    return Suite("made-functions", 1, "8 functions", tasks, attempt, {"pass": "passes"}, "f00d" * 16, AS_IS)


def likelihood(data: Data) -> Suite:
    tasks = [Task(f"text/{n}", Prompt(""), "x = 1\n" * (n + 1), {"language": "Python"}) for n in range(4)]

    def attempt(task: Task, tools: Tools) -> Outcome:
        nats, size = float(tools.losses(task.reference).nats.sum()), len(task.reference)
        return Outcome("", {"bits_per_byte": nats / np.log(2) / size, "bytes": float(size)})

    metrics = {"bits_per_byte": "bits"}
    return Suite("made-likelihood", 1, "4 texts", tasks, attempt, metrics, "b175" * 16, AS_IS, samples=False)


class Made:
    """Writes what stands there for every other task; a hostile text, nothing, or something else for the rest."""

    identity: Mapping[str, Any] = {"name": "made", "checkpoint": "midtrain/3", "format": "codelm", "mode": "psm"}

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers

    def ask(self, prompt: Prompt, decoding: Decoding) -> Written:
        number = zlib.crc32(prompt.prefix.encode())
        wrong = (HOSTILE, "", "width + height  # " + "so it goes on, " * 9, "height")[number // 2 % 4]
        seconds = 0.05 + number % 1000 / 400
        text = self.answers[prompt.prefix] if number % 2 else wrong
        return Written(text, 1 + len(text) // 4, seconds, round(seconds / 5, 4))

    def losses(self, text: str) -> Losses:
        return Losses(np.full(len(text) - 1, 0.7, np.float32), range(2, len(text) + 1))


def evaluate(run: Path, checkpoint: str = "midtrain-3") -> dict[str, Measured]:
    """Of every suite, in the run's folder; many samples of the functions."""
    found = {}
    for make in (holes, functions, likelihood):
        suite = make(Data())
        target = Made({task.prompt.prefix: task.reference for task in suite.tasks})
        folder = run / "evals" / checkpoint / suite.name
        found[suite.name] = harness.measure(suite, target, harness.Settings(), folder, None)
    return found
