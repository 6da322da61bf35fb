"""`codelm quantize`: a model's weights in fewer bits, what that gains and costs, and whether it is good enough."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import jax
import tyro

from codelm import checkpoint, lm, quantised
from codelm.caches import CACHE
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer
from codelm.quantised import GROUP, Bits, Quantisation
from experiments import quantize_quality
from experiments.quantize_quality import Examination, Quality
from experiments.run_command import find_devices
from infer.engine import Engine, Options
from infer.request import Request

TURNS, TURN = 9, 0.3  # of each model, one after the other, and seconds
PROMPT, WRITTEN = 16, 48  # tokens


@dataclass(frozen=True)
class QuantizeOptions:
    """Round a model's weights to fewer bits, for serving. A table says what it gains in size and speed and costs in
    bits per byte and holes filled; where it costs too much, nothing is written."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run, a checkpoint or a Hugging Face folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to write; a new one."""
    bits: Bits = "8"
    """8, 4, or fp8 (e4m3)."""
    group: int = 0
    """Weights that share a scale, with 4 bits; 0 = 32."""
    exact_output: bool = False
    """Leave the output table as it is."""
    text: tuple[Path, ...] = ()
    """Files and folders to measure on; without any, what the run held out."""
    holes: int = 64
    """Holes to fill."""
    max_loss: float = 0.02
    """Bits per byte that it may cost."""
    force: bool = False
    """Write it whatever it costs."""
    cache: Path = CACHE
    """Folder for the tokens of a run's text, which are made once."""
    platform: str = ""
    """Where to compute: cpu, gpu or tpu; empty = what JAX finds."""


@dataclass(frozen=True)
class Measured:
    megabytes: float
    """Of the arrays as they are stored."""
    in_memory: float
    """The same, of what decoding keeps."""
    quality: Quality
    rates: list[float]
    """Tokens a second, turn by turn."""


def quantize(argv: list[str], prog: str) -> None:
    options = parse(QuantizeOptions, argv, prog)
    how = quantisation(options)
    checkpoint.check_new(options.out)
    find_devices(options.platform)
    before = lm.load(options.source)
    after = in_fewer_bits(before, how)
    if options.text:
        examination = quantize_quality.of_text(before, options.text, options.holes)
    else:
        examination = quantize_quality.of_run(options.source, options.holes, options.cache)
    found = measured([before, after], examination)
    print(table(how, *found))
    holes = len(examination.infilling.holes) if examination.infilling else 0
    print(f"on {examination.text}, and {holes} holes; {jax.devices()[0].device_kind}, one request at a time")
    loss = found[1].quality.bits_per_byte - found[0].quality.bits_per_byte
    if not loss <= options.max_loss and not options.force:
        raise UserError(
            f"it costs {loss:.4f} bits per byte, more than --max_loss {options.max_loss:g}, so nothing is written: "
            "take more bits, a smaller --group or --exact_output, or write it all the same with --force"
        )
    arrays, kept = after.model.arrays(), (after.tokenizer_file, after.prompt_format)
    checkpoint.save(options.out, after.config, after.family, arrays, *kept, quantisation=how)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"wrote {options.out}: {size / 1e6:,.1f} MB on disk")


def quantisation(options: QuantizeOptions) -> Quantisation:
    group = options.group or (GROUP if options.bits == "4" else 0)
    how = Quantisation(options.bits, group, not options.exact_output)
    how.check()
    return how


def in_fewer_bits(model: LM, how: Quantisation) -> LM:
    config, arrays = quantised.quantise(model.config, model.model.arrays(), how)
    return dataclasses.replace(model, config=config, model=Transformer(config, arrays))


def measured(models: Sequence[LM], examination: Examination) -> list[Measured]:
    found = []
    for model, rates in zip(models, speeds(models), strict=True):
        stored, in_memory = megabytes(model.model), megabytes(model.model.apart())
        found.append(Measured(stored, in_memory, examination.of(model), rates))
    return found


def speeds(models: Sequence[LM]) -> list[list[float]]:
    """Tokens a second that each writes for one request at a time, turn by turn; none for what the engine refuses."""
    context = min(models[0].config.max_seq_len, PROMPT + WRITTEN)
    prompt, count = list(range(1, context // 4 + 1)), context - context // 4
    try:
        engines = [Engine(model, Options(rows=1, context=context)) for model in models]
    except UserError:
        return [[] for _ in models]

    def rate(engine: Engine) -> float:
        start, written = time.perf_counter(), 0
        while not written or time.perf_counter() - start < TURN:
            written += len(engine.submit(Request(prompt, count, share=False)).text().ids)
        return written / (time.perf_counter() - start)

    turns = [[rate(engine) for engine in engines] for _ in range(TURNS + 1)]
    return [list(rates) for rates in zip(*turns[1:], strict=True)]  # the first one compiles


def ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """Of turns beside each other: what else the machine does slows both down."""
    return median(rate / other for rate, other in zip(rates, others, strict=True))


def table(how: Quantisation, before: Measured, after: Measured) -> str:
    named = f"{how.bits} bits" if how.bits != "fp8" else how.bits
    rows = [("", "before", named + (f" in {how.group}s" if how.group else ""), "")]
    for name, one, other in (
        ("weights, MB", before.megabytes, after.megabytes),
        ("… in memory, decoding", before.in_memory, after.in_memory),
    ):
        rows.append((name, f"{one:,.1f}", f"{other:,.1f}", f"{other / one:.2f}×"))
    one, other = before.quality, after.quality
    rows.append(_row("bits per byte", ".4f", one.bits_per_byte, other.bits_per_byte))
    if not math.isnan(one.exact):
        rows.append(_row("holes, % exact", ".1f", 100 * one.exact, 100 * other.exact))
        rows.append(_row("… edit similarity", ".3f", one.similarity, other.similarity))
    if before.rates:
        rates = f"{median(before.rates):,.0f}", f"{median(after.rates):,.0f}"
        rows.append(("tokens/s", *rates, f"{ratio(after.rates, before.rates):.2f}×"))
    return "\n".join(f"{name:22}{one:>12}{other:>16}{change:>10}".rstrip() for name, one, other, change in rows)


def _row(name: str, form: str, before: float, after: float) -> tuple[str, str, str, str]:
    return name, f"{before:{form}}", f"{after:{form}}", f"{after - before:+{form}}"


def megabytes(model: Transformer) -> float:
    """Of a model's arrays; four bits are half a byte, though a CPU gives them a whole one."""
    return sum(x.size * (0.5 if x.dtype == "int4" else x.dtype.itemsize) for x in jax.tree.leaves(model)) / 1e6
