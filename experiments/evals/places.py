"""Where results go: a folder for each state of a model, and in it one for each suite and way of asking."""

from collections.abc import Sequence
from pathlib import Path

from codelm.checkpoint import STAGES
from experiments.evals.harness import Settings

EVALS = "evals"
_CHECKPOINTS = "checkpoints"  # RUN/checkpoints/STAGE/STEP, or STAGE/STEP of a bucket


def of_model(model: Path, source: str) -> Path:
    """RUN/evals/STAGE-STEP for a run or one of its checkpoints; evals in any other folder of a model."""
    parts = Path(source).parts
    if len(parts) < 2 or parts[-2] not in STAGES or not parts[-1].isdigit():
        return model / EVALS
    names = model.absolute().parts
    run = Path(*names[: names.index(_CHECKPOINTS)]) if _CHECKPOINTS in names else model
    return run / EVALS / f"{parts[-2]}-{parts[-1]}"


def folder(out: Path, spec: str, settings: Settings, most: int, asked: Sequence[str] = ()) -> Path:
    """Of a suite, what it was made of, how it was asked where not as usual, how it was sampled, and whether only its
    first tasks were."""
    name, _, given = spec.partition(":")
    parts = [name, *([Path(given).name.split(".")[0]] if given else []), *asked]
    if settings.samples > 1 or settings.temperature:
        parts.append(f"n{settings.samples}-t{settings.temperature:g}")
    return out / "-".join([*parts, *([f"first{most}"] if most else [])])
