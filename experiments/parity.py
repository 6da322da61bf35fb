"""`make parity`: our logits against those transformers gave, for every family and variant of tests/golden/parity.

Each fixture is a tiny random checkpoint that the real transformers made (tests/golden/make_parity.py), with its float32
logits on random ids and the greedy continuation of a prompt.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import codelm
from codelm.errors import UserError
from codelm.lm import LM

FIXTURES = Path(__file__).parent.parent / "tests" / "golden" / "parity"

Reference = Mapping[str, np.ndarray]  # what is in a reference.npz


@dataclass(frozen=True)
class Row:
    """One fixture: how far our logits are off, at most, and whether the greedy continuation is the same."""

    case: str
    family: str
    description: str
    error: float
    greedy_equal: bool


def measure(case: dict) -> Row:
    lm, reference = load(case)
    return Row(
        case["case"], case["family"], case["description"], error(lm, reference), continues_equally(lm, reference)
    )


def load(case: dict) -> tuple[LM, Reference]:
    """Computing in float32, as the reference did, whatever the weights are stored in."""
    folder = FIXTURES / case["case"]
    return codelm.load(folder, compute_dtype="float32"), np.load(folder / "reference.npz")


def error(lm: LM, reference: Reference) -> float:
    return float(np.abs(lm.logits(reference["ids"]) - reference["logits"]).max())


def continues_equally(lm: LM, reference: Reference) -> bool:
    greedy = lm.generate(reference["prompt"].tolist(), max_new_tokens=len(reference["greedy"]))
    return greedy == reference["greedy"].tolist()


def cases() -> list[dict]:
    return json.loads((FIXTURES / "index.json").read_text())


def main() -> None:
    print(f"{'family':12} {'variant':28} {'max abs error':>14}  greedy   what is special")
    for case in cases():
        try:
            row = measure(case)
        except UserError as refusal:
            print(
                f"{case['family']:12} {case['case']:28} {'refused':>14}           {refusal}".replace(f"{FIXTURES}/", "")
            )
            continue
        equal = "equal" if row.greedy_equal else "DIFFERS"
        print(f"{row.family:12} {row.case:28} {row.error:>14.1e}  {equal:8} {row.description}")


if __name__ == "__main__":
    sys.exit(main())
