"""The stages of an experiment that train: what each begins from, and whether it is finished."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
from etils import epath

from codelm.checkpoint import located, read_training_description
from codelm.config import Config, field_paths, mesh_shape, resolve
from codelm.errors import UserError, nearest
from codelm.midtraining import CHANGES, midtrained
from codelm.processes import of_first
from codelm.publish import check_writable, checksum
from codelm.tokenizer import Tokenizer
from data import dataset
from data.dataset import Corpus
from train import checkpoints
from train.trainer import Job


def jobs(
    config: Config, run: Path, inputs: Mapping[str, str], may_change: Sequence[str] = (), workers: int = 0
) -> list[Job]:
    """Pretraining and, where the config has any, mid-training: alone where `train.start` is the end of the other."""
    config = resolve(config)
    first = Job(
        "pretrain",
        config,
        run,
        inputs,
        start=epath.Path(of_first(lambda: str(checkpoint_in(config.train.start)))) if config.train.start else None,
        start_may_change=(*may_change, "train.start"),
        counts_on=True,
        may_change=may_change,
        workers=workers,
    )
    if not config.midtrain.steps:
        return [first]
    second = replace(
        first,
        stage="midtrain",
        config=midtrained(config),
        # Pretraining that went on, after this stage was trained, is another beginning.
        inputs={**inputs, "midtrain.start": f"step {config.train.steps}"},
        start=epath.Path(first.checkpoints) / str(config.train.steps),
        start_may_change=(*may_change, *CHANGES),
        counts_on=False,
        steps_before=config.train.steps,
    )
    if first.start is not None and first.start.name == str(config.train.steps):
        return [replace(second, start=first.start)]
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
    folder = located(path)
    if folder.name.isdigit() and (folder / "parameters").exists():
        return folder
    inside = folder / "checkpoints" / "pretrain"
    steps = checkpoints.steps_in(inside)
    if not steps:
        raise UserError(f"train.start={path} is neither a run nor one of its checkpoints, RUN/checkpoints/STAGE/STEP")
    return inside / str(steps[-1])


def set_aside(folder: epath.Path) -> epath.Path:
    """Move a damaged checkpoint to where nobody looks for one."""
    stage = folder.parent
    away = stage.parent / f"damaged-{stage.name}-{folder.name}"
    if away.exists():
        away.rmtree()
    return folder.rename(away)


def newest_step(job: Job) -> int:
    """Of the job's own checkpoints; 0 where there are none."""
    return max(checkpoints.steps_in(epath.Path(job.checkpoints)), default=0)


def where_to_go_on(config: Config, run: Path) -> str:
    """For whoever starts the run again."""
    config = resolve(config)
    config = replace(config, train=replace(config.train, start=""))  # it is read from checkpoints of its own by then
    for job in reversed(jobs(config, run, {})):
        if step := newest_step(job):
            return f"step {step:,} of {job.stage}"
    return "the beginning"


def check(job: Job) -> None:
    """Refuse what cannot be trained here, before anything is made or written: on these devices, in this folder."""
    try:
        mesh_shape(job.config, jax.device_count())
    except UserError as error:
        raise UserError(f"{job.stage}: {error}") from error
    if job.counts_on and job.start is not None and (done := int(job.start.name)) >= job.config.train.steps:
        raise UserError(f"train.start is at step {done}, so train.steps={job.config.train.steps} leaves nothing to do")
    check_folder(epath.Path(job.checkpoints))
    check_same(job)


def check_may_change(fields: Sequence[str]) -> None:
    """Refuse names of nothing."""
    paths = [*field_paths(Config), "corpus", "tokenizer", "midtrain.start"]
    for name in fields:
        if not any(path == name or path.startswith(f"{name}.") for path in paths):
            raise UserError(f"--may_change {name}: no such field; nearest: '{nearest(name, paths)}'")


def check_folder(checkpoints: epath.Path) -> None:
    """Say that states cannot be saved before there are any. On gs:// only trying tells."""
    if "://" not in str(checkpoints):
        check_writable(Path(checkpoints) / "state")


def check_same(job: Job) -> None:
    """Refuse to go on in a folder that another config trained in."""
    if step := newest_step(job):
        folder = epath.Path(job.checkpoints) / str(step)
        try:
            description = read_training_description(folder)
        except UserError:
            return  # damaged: training looks for the one before it
        checkpoints.check_same(folder, description, job.config, job.inputs, job.may_change)
