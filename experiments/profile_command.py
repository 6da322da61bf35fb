"""`codelm profile`: some steps of a config under the profiler, and a table of what their time went to."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

from codelm.arithmetic import count_parameters, training_flops_per_token
from codelm.commandline import ConfigOption, parse_with_config
from codelm.config import Config, resolve
from codelm.errors import UserError
from codelm.hardware import peak_flops
from codelm.midtraining import midtrained
from codelm.publish import check_writable
from data import inputs

if TYPE_CHECKING:
    from train.profiling import Profile, Row

_NAMES = 2  # operations of a row that the table names


@dataclass(frozen=True)
class ProfileOptions:
    """Train a few steps of a config under JAX's profiler: a trace for TensorBoard or XProf, and a table of where the
    time goes. It needs no corpus: the batches are random tokens, of the config's shape. Any field of the config can be
    set by its dotted path."""

    config: ConfigOption
    steps: int = 3
    """Steps that are timed, and as many in the trace after them."""
    top: int = 20
    """Rows of the table."""
    stage: Literal["pretrain", "midtrain"] = "pretrain"
    """The steps of which stage."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for the trace; runs/NAME/profile unless given."""
    platform: str = ""
    """Where to compute: cpu, gpu or tpu; empty = what JAX finds."""
    json: bool = False
    """Print JSON."""


def profile_steps(argv: list[str], prog: str) -> None:
    options = parse_with_config(ProfileOptions, argv, prog)
    from experiments.run import told_of_memory
    from experiments.run_command import find_devices
    from train.profiling import profile
    from train.trainer import mesh_of

    for name, value in (("steps", options.steps), ("top", options.top)):
        if value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    config = resolve(options.config)
    if options.stage == "midtrain":
        if not config.midtrain.steps:
            raise UserError(f"{config.name} has no mid-training: its midtrain.steps is 0")
        config = midtrained(config)
    folder = options.out or inputs.run_folder(config) / "profile"
    check_writable(folder / "trace")
    find_devices(options.platform)
    with mesh_of(config) as mesh, told_of_memory():
        if jax.process_index() == 0:
            print(f"compiling a step of {config.name}", file=sys.stderr, flush=True)
        found = profile(config, mesh, options.steps, folder)
    if jax.process_index():
        return
    told = content(config, found, folder)
    if options.json:
        print(json.dumps(told, indent=1))
        return
    for line in (*lines(told), "", *table(told, found.rows[: options.top]), "", *where(told)):
        print(line)


def content(config: Config, found: "Profile", folder: Path) -> dict[str, Any]:
    """Everything there is to say, as it is printed in JSON."""
    devices, device = jax.device_count(), jax.devices()[0]
    tokens = config.data.batch_size * config.data.seq_len
    flops = tokens * training_flops_per_token(config.model, config.data.seq_len) / found.seconds
    peak, named = peak_flops(device)
    peak *= devices if device.platform != "cpu" else 1
    return {
        "name": config.name,
        "parameters": count_parameters(config.model).total,
        "rows": config.data.batch_size,
        "seq_len": config.data.seq_len,
        "devices": devices,
        "device": device.device_kind,
        "step_seconds": found.step_seconds,
        "seconds": found.seconds,
        "tokens_per_second": tokens / found.seconds,
        "mfu": flops / peak if peak else None,
        "peak_flops": peak,
        "peak": named,
        "operation_seconds": found.total,
        "traced": f"{found.places} {'devices' if found.on_devices else 'threads of the CPU'}",
        "traced_seconds": found.traced_seconds,
        "busy": found.total / median(found.traced_seconds) if found.on_devices else None,
        "by_kind": found.by("kind"),
        "by_phase": found.by("phase"),
        "operations": [_row(row, found.total) for row in found.rows],
        "trace": str(found.file),
        "folder": str(folder),
    }


def _row(row: "Row", total: float) -> dict[str, Any]:
    figures = {"seconds": row.seconds, "share": row.seconds / total, "count": row.count}
    return asdict(row.operation) | figures | {"names": row.names}


# ---- for a person ----


def lines(told: dict[str, Any]) -> Iterator[str]:
    size, shape = f"{told['parameters'] / 1e6:.1f}M parameters", f"{told['rows']:,} x {told['seq_len']:,} tokens"
    yield f"{told['name']}: {size}, {shape} a step, on {told['devices']} x {told['device']}"
    mfu = f"{told['mfu']:.1%} of {told['peak_flops'] / 1e12:.3g} TFLOP/s" if told["mfu"] else "unknown"
    fastest, slowest = min(told["step_seconds"]), max(told["step_seconds"])
    yield (
        f"step {told['seconds']:.4g} s, the median of {len(told['step_seconds'])} ({fastest:.4g} to {slowest:.4g}); "
        f"{told['tokens_per_second']:,.0f} tokens/s; MFU {mfu} ({told['peak']})"
    )
    of = f", {told['busy']:.1%} of one in the trace" if told["busy"] else ""
    yield (
        f"operations of {told['traced']}: {1e3 * told['operation_seconds']:,.1f} ms a step{of}. Shares are of that; "
        "an operation's time is without that of what runs inside it"
    )
    for name in ("kind", "phase"):
        parts = (f"{part} {seconds / told['operation_seconds']:.1%}" for part, seconds in told[f"by_{name}"].items())
        yield f"by {name}: {', '.join(parts)}"


def table(told: dict[str, Any], rows: "list[Row]") -> list[str]:
    """In columns; in full where there is no terminal."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("ms a step", "share", "count"):
        made.add_column(name, justify="right", no_wrap=True)
    for name in ("kind", "phase", "operation", "from", "as XLA calls it"):
        made.add_column(name, overflow="fold")
    for row in rows:
        operation, more = row.operation, len(row.names) - _NAMES
        named = ", ".join(row.names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
        figures = (f"{1e3 * row.seconds:,.2f}", f"{row.seconds / told['operation_seconds']:.1%}", f"{row.count:,.0f}")
        made.add_row(*figures, operation.kind, operation.phase, operation.what, operation.where, named)
    console = Console(highlight=False, markup=False, width=None if os.isatty(1) else 400)
    with console.capture() as captured:
        console.print(made)
    return [line.rstrip() for line in captured.get().splitlines()]


def where(told: dict[str, Any]) -> Iterator[str]:
    yield f"trace: {told['trace']}"
    folder = told["folder"]
    yield f"to look at it (pip install xprof): tensorboard --logdir {folder}, or xprof --logdir {folder}"
