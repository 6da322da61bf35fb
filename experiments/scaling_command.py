"""codelm scaling: the scaling law of a sweep's runs, what it advises, and a plot."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from codelm.arithmetic import count_parameters
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.publish import check_writable, write_atomically
from experiments import compare, curves, records, scaling
from experiments.curves import Axes, Series, number
from experiments.records import Record
from experiments.scaling import FLOPS_PER_PARAMETER, Law, Values
from train.records import finite

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN…")]
Budgets = Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOPS…")]

# Losses of runs that differ in these are of different text, or of different tokens.
_OTHER_LOSS = ("corpus", "tokenizer", "evaluation.batches", "data.sources", "data.seq_len", "midtrain.seq_len")
_FURTHER = (1, 10, 100)  # budgets, as multiples of the largest run


@dataclass(frozen=True)
class ScalingOptions:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta to held-out losses of runs, and say what a budget is best spent on.

    N: parameters inside a token's matrix products: those of the layers (of the experts that it goes to) and the output
    head, tied or not; an embedding that is only looked up is not counted. D: tokens trained on. FLOPs are 6 N D.
    """

    runs: Runs
    """Run folders, and folders of runs: at least three sizes, each on several numbers of tokens."""
    budgets: Budgets = ()
    """FLOPs to advise on; default: the largest run's, 10 and 100 times that."""
    resamples: int = 200
    """Fits to runs drawn with replacement, for the intervals."""
    json: bool = False
    """Print JSON."""
    out: Path | None = None
    """Write a page with the plot."""


@dataclass(frozen=True)
class Fitted:
    """A law, the runs it is of, and laws of resampled runs."""

    found: list[Record]
    parameters: Values
    tokens: Values
    losses: Values
    law: Law
    others: list[Law]
    budgets: tuple[float, ...]

    @property
    def flops(self) -> Values:
        return FLOPS_PER_PARAMETER * self.parameters * self.tokens


def scaling_law(argv: list[str], prog: str) -> None:
    options = parse(ScalingOptions, argv, prog)
    if options.resamples < 2:
        raise UserError(f"--resamples must be at least 2, not {options.resamples}")
    if any(not 0 < flops < np.inf for flops in options.budgets):
        raise UserError("--budgets are FLOPs, each above 0: 1e18 1e20")
    if options.out:
        check_writable(options.out)
    fitted = fit(_usable(records.load_all(list(options.runs))), options.resamples, options.budgets)
    print(json.dumps(finite(content(fitted)), indent=1) if options.json else text(fitted))
    if options.out:
        write_atomically(options.out, page(fitted).encode())


def _usable(found: Sequence[Record]) -> list[Record]:
    """Finished runs whose losses mean the same."""
    done = [record for record in found if record.result.get("held_out_loss") is not None]
    if left := [record.name for record in found if record not in done]:
        print(f"left out, without a held-out loss: {', '.join(left)}", file=sys.stderr)
    for path in compare.differing([record.config for record in done]) if done else ():
        if path.startswith(_OTHER_LOSS):
            raise UserError(f"the runs differ in {path}: their losses do not compare")
    return done


def fit(found: list[Record], resamples: int, budgets: tuple[float, ...] = ()) -> Fitted:
    parameters = np.array([count_parameters(record.config.model).matmul for record in found], float)
    tokens = np.array([record.result["tokens"] for record in found], float)
    losses = np.array([record.result["held_out_loss"] for record in found], float)
    law = scaling.fit(parameters, tokens, losses)
    others = scaling.resampled(law, parameters, tokens, losses, resamples)
    largest = FLOPS_PER_PARAMETER * float(np.max(parameters * tokens))
    return Fitted(
        found, parameters, tokens, losses, law, others, budgets or tuple(times * largest for times in _FURTHER)
    )


def content(fitted: Fitted) -> dict[str, Any]:
    law, runs = fitted.law, (fitted.parameters, fitted.tokens, fitted.losses)
    errors = law.loss(fitted.parameters, fitted.tokens) / fitted.losses - 1
    worst = int(np.argmax(np.abs(errors)))
    names = [field.name for field in fields(Law)]
    return {
        "runs": len(fitted.found),
        "law": asdict(law),
        "intervals": {name: scaling.interval([getattr(other, name) for other in fitted.others]) for name in names},
        "r2": scaling.explained(law, *runs),
        "mean_error": float(np.mean(np.abs(errors))),
        "largest_error": {"run": fitted.found[worst].name, "error": float(errors[worst])},
        "optimal": [_optimal(fitted, flops) for flops in fitted.budgets],
    }


def _optimal(fitted: Fitted, flops: float) -> dict[str, Any]:
    parameters, tokens = fitted.law.optimal(flops)
    others = [other.optimal(flops) for other in fitted.others]
    return {
        "flops": flops,
        "parameters": parameters,
        "parameters_interval": scaling.interval([n for n, _ in others]),
        "tokens": tokens,
        "tokens_interval": scaling.interval([d for _, d in others]),
        "loss": float(fitted.law.loss(np.array(parameters), np.array(tokens))),
    }


def text(fitted: Fitted) -> str:
    found, law = content(fitted), fitted.law
    lines = [
        f"L(N, D) = {law.E:.3f} + {law.A:.4g} / N^{law.alpha:.3f} + {law.B:.4g} / D^{law.beta:.3f}, in nats a token",
        f"{found['runs']} runs, N from {_three(fitted.parameters.min())} to {_three(fitted.parameters.max())}, "
        f"D from {_three(fitted.tokens.min())} to {_three(fitted.tokens.max())}",
        f"fit: R² {found['r2']:.4f} of the log loss; off by {found['mean_error']:.2%} in the mean, and most, "
        f"{found['largest_error']['error']:+.2%}, at {found['largest_error']['run']}",
        "",
        f"{'':8}{'value':>10}   95 % of {len(fitted.others)} fits to resampled runs",
    ]
    for name, (low, high) in found["intervals"].items():
        lines.append(f"{name:8}{found['law'][name]:>10.4g}   {low:.4g} to {high:.4g}")
    lines += ["", f"{'FLOPs':>10}{'best N':>10}{'':20}{'best D':>10}{'':20}{'D/N':>8}{'loss':>8}"]
    for best in found["optimal"]:
        sizes = "".join(
            f"{_three(best[name]):>10}  {_span(best[name + '_interval']):18}" for name in ("parameters", "tokens")
        )
        ratio = best["tokens"] / best["parameters"]
        lines.append(f"{best['flops']:>10.3g}{sizes}{ratio:>8.3g}{best['loss']:>8.3f}")
    return "\n".join(lines)


def page(fitted: Fitted) -> str:
    return curves.page(
        "Scaling law", [("Loss against compute", plot(fitted)), ("The fit", f"<pre>{escape(text(fitted))}</pre>")]
    )


def plot(fitted: Fitted) -> str:
    """Runs as points, the law as a line through those of one size, and below all the best for each compute."""
    law, flops, series = fitted.law, fitted.flops, []
    for n, size in enumerate(np.unique(fitted.parameters)):
        mine = fitted.parameters == size
        tokens = np.geomspace(fitted.tokens[mine].min(), fitted.tokens[mine].max(), 40)
        fit_x, fit_y = FLOPS_PER_PARAMETER * size * tokens, law.loss(np.full_like(tokens, size), tokens)
        name = f"N = {_three(size)}"
        series.append(Series(name, fit_x.tolist(), fit_y.tolist(), colour=n))
        series.append(Series(name, flops[mine].tolist(), fitted.losses[mine].tolist(), False, True, n, label=False))
    compute = np.geomspace(flops.min(), max(flops.max(), *fitted.budgets), 80)
    best = np.array([law.optimal(float(c)) for c in compute])
    frontier = law.loss(best[:, 0], best[:, 1])
    series.append(Series("best N and D", compute.tolist(), frontier.tolist(), colour=6, dashed=True))
    said = f"L = {law.E:.3g} + {law.A:.3g}/N^{law.alpha:.3g} + {law.B:.3g}/D^{law.beta:.3g}"
    return curves.chart(series, Axes(said, "FLOPs (6 N D)", "held-out loss, nats/token", log_x=True, height=420))


def _three(value: float) -> str:
    """Three digits."""
    return number(float(f"{value:.3g}"))


def _span(interval: tuple[float, float]) -> str:
    return f"({_three(interval[0])} to {_three(interval[1])})"
