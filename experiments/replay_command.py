"""`codelm replay`: a step of a run once more, to see which of its rows went wrong and where they are from."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.text import Text

from codelm import config_io
from codelm.caches import CACHE
from codelm.commandline import parse
from codelm.config import Config, field_paths, resolve
from codelm.errors import UserError
from codelm.progress import Bar
from data import inputs, loader
from data.loader import Row
from data.show_command import source_of
from experiments import stages
from experiments.distributed import ProcessOptions, joined
from experiments.environment import environment
from experiments.records import CONFIG
from experiments.run_command import find_devices
from train.records import finite
from train.replay import Halves, Measured, Replay, different, last_step, mean_loss, recorded, worse
from train.trainer import Job, mesh_of, part_loader_config

# Of a run that was allowed to change its config between two checkpoints, the last config is the one to go by.
_MAY_DIFFER = tuple(sorted({path.split(".")[0] for path in field_paths(Config)} - {"corpus", "tokenizer"}))
_SHOWN = 3  # documents of a row that is not to blame


@dataclass(frozen=True)
class ReplayOptions(ProcessOptions):
    """Do one step of a run once more, from the newest checkpoint before it: its loss and gradient norms bit for bit,
    compared with what the run wrote down; each row's loss, and the documents in it. The run is left as it is."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    step: int
    """Which step, counted from 1, as metrics.jsonl and messages count them."""
    stage: Literal["pretrain", "midtrain"] = "pretrain"
    """Of which stage."""
    bisect: bool = False
    """Halve the batch until the row is found that makes it worst: not finite, or most of the gradient."""
    json: bool = False
    """Print JSON."""
    cache: Path = CACHE
    """Folder for tokens and rows, which are made once."""
    platform: str = ""
    """Where to compute: cpu, gpu or tpu; empty = what JAX finds."""


def replay(argv: list[str], prog: str) -> None:
    options = parse(ReplayOptions, argv, prog)
    if options.step < 1:
        raise UserError(f"--step counts from 1, not {options.step}")
    if not (options.run / CONFIG).is_file():
        raise UserError(f"no run at {options.run}: a run's folder holds {CONFIG}, as `codelm run` leaves it")
    config = resolve(config_io.load(options.run / CONFIG))
    check_step(config, options)
    with joined(options, lambda: "run the same command on all hosts again"):
        find_devices(options.platform)
        found = replayed(config, options)
        if jax.process_index() == 0:
            show(options, found)


def replayed(config: Config, options: ReplayOptions) -> dict[str, Any]:
    with mesh_of(config) as mesh:
        corpus, tokenizer = inputs.left_in(options.run, config)
        job = job_of(config, options, stages.digests(config, corpus, tokenizer))
        folder = str(corpus.folder) if corpus else ""
        made = loader.make(part_loader_config(job.config), folder, tokenizer, cache=options.cache)
        return findings(Replay(job, made, mesh), options.step, options.bisect)


def show(options: ReplayOptions, found: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(finite(found), indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in lines(found):
        console.print(line)


def job_of(config: Config, options: ReplayOptions, digests: Mapping[str, str]) -> Job:
    """The stage as `codelm run` had it."""
    jobs = {job.stage: job for job in stages.jobs(config, options.run, digests, _MAY_DIFFER)}
    if options.stage not in jobs:
        raise UserError(f"{options.run} has no mid-training: its midtrain.steps is 0")
    return jobs[options.stage]


def check_step(config: Config, options: ReplayOptions) -> None:
    """Refuse a step that was never done, before anything is read that takes long."""
    last = last_step(job_of(config, options, {}))
    if not last:
        raise UserError(f"{options.run} has no step of {options.stage} yet")
    if options.step > last:
        raise UserError(f"{options.run} has no step {options.step} of {options.stage}: the last one recorded is {last}")


# ---- what there is to say ----


def findings(stage: Replay, step: int, bisect: bool) -> dict[str, Any]:
    """Everything about the step, as it is printed in JSON."""
    state = stage.start(step)
    before = int(state.step)
    if before < step - 1:
        with Bar(f"{stage.job.stage} from step {before}", step - 1 - before, "steps") as bar:
            for state in stage.until(state, step):  # noqa: B007, B020
                bar.advance(1)
    batch = stage.batch(step)
    losses = stage.token_losses(state.model, batch)
    halves = list(stage.bisect(state.model, batch)) if bisect else []
    culprit = worse(halves[-1]).rows[0] if halves else 0 if bisect else None
    apart = [stage.alone(state.model, batch, row) for row in range(len(losses))] if bisect else []
    weights = np.concatenate([part["loss_weights"] for part in batch])
    rows = [stage.loader.row(stage.first_row(step) + n) for n in range(len(losses))]
    told = [row_of(n, rows[n], losses[n], weights[n]) for n in range(len(losses))]
    for row, share in zip(told, shares(apart), strict=bool(apart)):
        row |= {"gradient": apart[row["row"]].gradient, "share": share}
    _, metrics = stage.taken(state, batch)
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    record = recorded(stage.job, step)
    about = {"run": str(stage.job.run), "stage": stage.job.stage, "step": step, "from_step": before}
    return about | {
        "metrics": values,
        "recorded": sorted(record),
        "different": {name: list(pair) for name, pair in different(values, record).items()},
        "elsewhere": elsewhere(stage.job.run),
        "rows": told,
        "bisection": [[asdict(half) for half in pair] for pair in halves],
        "culprit": culprit,
    }


def row_of(place: int, row: Row, losses: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """A row of the step: where its documents are from, and their losses."""
    documents, at = [], 0
    for number, document in enumerate(row.documents):
        here = slice(at, at + document.positions)
        documents.append(source_of(row, number, document) | {"loss": mean_loss(losses[here], weights[here])})
        at += document.positions
    about = {"row": place, "number": row.number, "source": row.source, "epoch": row.epoch}
    figures = {"loss": mean_loss(losses, weights), "tokens": int(np.count_nonzero(weights))}
    return about | figures | {"documents": documents}


def shares(apart: Sequence[Measured]) -> list[float]:
    """Of the norms of what each row adds to the gradient, how much is each one's."""
    total = sum(row.gradient for row in apart)
    return [row.gradient / total if math.isfinite(total) and total else math.nan for row in apart]


def elsewhere(run: Path) -> dict[str, list[str]]:
    """Devices and versions that are not those the run had, where figures may differ in their last bits."""
    path = run / "environment.json"
    if not path.is_file():
        return {}
    was, now = json.loads(path.read_text()), environment()
    flat = [
        {**place["packages"], **{f"devices' {k}": str(v) for k, v in place["devices"].items()}} for place in (was, now)
    ]
    return {name: [flat[0][name], flat[1].get(name, "")] for name in flat[0] if flat[0][name] != flat[1].get(name, "")}


# ---- for a person ----


def lines(found: dict[str, Any]) -> Iterator[Text]:
    values = found["metrics"]
    start = f"after step {found['from_step']}" if found["from_step"] else "from the beginning"
    yield Text(f"{found['stage']} step {found['step']} of {found['run']}, replayed {start}", "bold")
    groups = ", ".join(f"{name.split('/')[1]} {value:.4g}" for name, value in values.items() if "grad_norm/" in name)
    yield Text(f"loss {values['loss']:.6g}, gradient norm {values['grad_norm']:.6g} ({groups})")
    if values["skipped_in_a_row"]:
        yield Text("its update is left out", "bold red")
    yield verdict(found)
    if found["bisection"]:
        yield Text("")
        yield Text("by halves (norms of gradients summed over tokens, with the other rows empty):", "bold")
        yield from trail(found["bisection"])
        yield conclusion(found)
    yield Text("")
    yield from table(found)
    if found["culprit"] is not None and found["stage"] == "pretrain":
        number = found["rows"][found["culprit"]]["number"]
        yield Text("")
        run = Path(found["run"])
        yield Text(f"to read it: codelm data show {run / CONFIG} --dir {run.parent} --row {number}")


def verdict(found: dict[str, Any]) -> Text:
    if not found["recorded"]:
        return Text("not recorded: the run wrote down nothing about this step (track.every)")
    if not found["different"]:
        return Text(f"as recorded: {len(found['recorded'])} figures, bit for bit", "green")
    told = [f"{name} {now!r}, was {was!r}" for name, (now, was) in found["different"].items()]
    more = f", and {len(told) - 4} more" if len(told) > 4 else ""
    why = ", ".join(f"{name} was {was}, is {now}" for name, (was, now) in found["elsewhere"].items())
    where = f". It ran elsewhere: {why}" if why else ""
    return Text(f"differs from the record: {', '.join(told[:4])}{more}{where}", "red")


def trail(bisection: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Text]:
    """The halves, and which one it went on with."""
    for pair in bisection:
        halves: Halves = (_half(pair[0]), _half(pair[1]))
        chosen = worse(halves)
        told = [f"{_range(half.rows)}: loss {half.loss:.4g}, gradient {half.gradient:.4g}" for half in halves]
        yield Text(f"rows {told[0]} | {told[1]} → {_range(chosen.rows)}")


def _half(told: Mapping[str, Any]) -> Measured:
    return Measured(tuple(told["rows"]), told["loss"], told["gradient"])


def conclusion(found: dict[str, Any]) -> Text:
    """Of several rows that are not finite it went on with the first."""
    blamed = found["rows"][found["culprit"]]
    wild = [row["row"] for row in found["rows"] if not math.isfinite(row["loss"] + row["gradient"])]
    if wild:
        others = ", ".join(str(row) for row in wild if row != blamed["row"])
        return Text(f"row {blamed['row']} is not finite" + (f", nor are {others}" if others else ""), "bold red")
    return Text(f"all rows are finite; row {blamed['row']} adds the most to the gradient, or nearly", "bold")


def table(found: dict[str, Any]) -> Iterator[Text]:
    measured = found["culprit"] is not None
    more = f"{'gradient':>10} {'share':>6}" if measured else ""
    yield Text(f"  {'row':>4} {'loss':>10} {'tokens':>7} {more}  documents, with their losses", "bold")
    for row in found["rows"]:
        to_blame = row["row"] == found["culprit"]
        more = f"{row['gradient']:>10.4g} {row['share']:>6.1%}" if measured else ""
        head = f"{'→' if to_blame else ' '} {row['row']:>4} {row['loss']:>10.4g} {row['tokens']:>7} {more}  "
        documents = [_document(document) for document in row["documents"]]
        if not to_blame and len(documents) > _SHOWN:
            documents[_SHOWN:] = [f"and {len(documents) - _SHOWN} more"]
        style = "bold red" if to_blame or not math.isfinite(row["loss"]) else ""
        for n, document in enumerate(documents or [""]):
            yield Text((" " * len(head) if n else head) + document, style)


def _document(document: Mapping[str, Any]) -> str:
    files = document["files"]
    first = files[0]
    name = f"{first['repository']}: {first['path']} ({first['language'] or 'conversation'})"
    name += f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return f"{name} tokens {first['first_token']} to {first['end_token']}: {document['loss']:.4g}"


def _range(rows: Sequence[int]) -> str:
    return f"{rows[0]} to {rows[-1]}" if len(rows) > 1 else str(rows[0])
