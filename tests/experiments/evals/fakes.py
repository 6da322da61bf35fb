"""Models whose answers are known."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from experiments.evals.suite import AS_IS, Losses, NotRun, Outcome, Prompt, Suite, Task, Tools
from experiments.evals.targets import Decoding, Unanswered, Written


class Says:
    """Answers by a function of what is asked, its seed among it."""

    def __init__(self, answer: Callable[[Prompt, Decoding], str], **identity: Any) -> None:
        self.answer, self.identity = answer, {"name": "says", **identity}
        self.asked: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def ask(self, prompt: Prompt, decoding: Decoding) -> Written:
        with self._lock:
            self.asked.append((prompt.prefix, decoding.seed))
        text = self.answer(prompt, decoding)
        return Written(text, len(text), 0.02, 0.01)

    def losses(self, text: str) -> Losses:
        raise NotRun("it only talks")

    def close(self) -> None:
        pass


def nobody(prompt: Prompt, decoding: Decoding) -> str:
    raise Unanswered("HTTP 500: it burns")


def sums(count: int = 6) -> Suite:
    """2 + 3 and so on: right if the answer is the sum."""
    tasks = [
        Task(f"sum/{n}", Prompt(f"{n}+{n}="), str(2 * n), {"size": "odd" if n % 2 else "even"}) for n in range(count)
    ]

    def attempt(task: Task, tools: Tools) -> Outcome:
        said = tools.ask(task.prompt).strip()
        right = said == task.reference
        return Outcome(said, {"pass": float(right)}, "" if right else "wrong")

    return Suite("sums", 1, "sums of a number and itself", tasks, attempt, {"pass": "passes"}, "0" * 64, AS_IS, 8)


def right(prompt: Prompt, decoding: Decoding) -> str:
    return str(2 * int(prompt.prefix.split("+")[0]))


def header(**changes: Any) -> Mapping[str, Any]:
    return {"codelm_eval": 1, "model": {"name": "a"}, **changes}
