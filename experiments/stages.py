"""The stages of an experiment that train: what each begins from, and whether it is finished."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from etils import epath

from codelm.checkpoint import read_training_description
from codelm.config import Config, mesh_shape, resolve
from codelm.errors import UserError
from codelm.midtraining import CHANGES, midtrained
from codelm.publish import checksum
from codelm.tokenizer import Tokenizer
from data import dataset
from data.dataset import Corpus
from train import checkpoints
from train.trainer import Job


def jobs(
    config: Config, run: Path, inputs: Mapping[str, str], may_change: Sequence[str] = (), workers: int = 0
) -> list[Job]:
    """Pretraining, and mid-training where the config has any."""
    config = resolve(config)
    first = Job(
        "pretrain",
        config,
        run,
        inputs,
        start=checkpoint_in(config.train.start) if config.train.start else None,
        start_may_change=(*may_change, "train.start"),
        counts_on=True,
        may_change=may_change,
        workers=workers,
    )
    if not config.midtrain.steps:
        return [first]
    second = dataclasses.replace(
        first,
        stage="midtrain",
        config=midtrained(config),
        start=epath.Path(first.checkpoints) / str(config.train.steps),
        start_may_change=(*may_change, *CHANGES),
        counts_on=False,
        steps_before=config.train.steps,
    )
    return [first, second]


def digests(config: Config, own: Corpus | None, tokenizer: Tokenizer) -> dict[str, str]:
    """What is trained on, told by content: the same config over another corpus is another run."""
    found = [own.manifest["digest"]] if own else []
    for source in config.data.sources:
        if source.level == "chat":
            found.append(checksum(Path(source.corpus)))
        elif source.corpus:
            found.append(dataset.load(source.corpus).manifest["digest"])
    return {"corpus": " ".join(found), "tokenizer": tokenizer.fingerprint}


def checkpoint_in(path: str) -> epath.Path:
    """The checkpoint itself, or the last of the pretraining of a run."""
    folder = epath.Path(path)
    if folder.name.isdigit() and (folder / "parameters").exists():
        return folder
    inside = folder / "checkpoints" / "pretrain"
    steps = checkpoints.steps_in(inside)
    if not steps:
        raise UserError(f"train.start={path} is neither a run nor one of its checkpoints, RUN/checkpoints/STAGE/STEP")
    return inside / str(steps[-1])


def newest_step(job: Job) -> int:
    """Of the job's own checkpoints; 0 where there are none."""
    return max(checkpoints.steps_in(epath.Path(job.checkpoints)), default=0)


def check(job: Job) -> None:
    """Refuse what cannot be trained here, before anything is made or written: on these devices, in this folder."""
    try:
        mesh_shape(job.config, jax.device_count())
    except UserError as error:
        raise UserError(f"{job.stage}: {error}") from error
    check_same(job)


def check_same(job: Job) -> None:
    """Refuse to go on in a folder that another config trained in."""
    if step := newest_step(job):
        folder = epath.Path(job.checkpoints) / str(step)
        try:
            description = read_training_description(folder)
        except UserError:
            return  # damaged: training looks for the one before it
        checkpoints.check_same(folder, description, job.config, job.inputs, job.may_change)
