"""What notebooks share: the run that they are about, and figures, below a cell or as files."""

import importlib
import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float

from codelm.errors import UserError
from codelm.publish import write_atomically
from experiments import report_samples
from experiments.curves import page
from experiments.records import CONFIG

RUN = "CODELM_RUN"
FIGURES = "notebooks"  # in the run's folder
_QUICKSTART = Path(__file__).parents[2] / "runs" / "quickstart"
_STYLE = """
pre { font-size: 12px; line-height: 1.7; white-space: pre-wrap; overflow-wrap: anywhere } .note { color: var(--soft) }
pre span { border-radius: 2px } .heads { display: flex; flex-wrap: wrap; gap: 1rem; font-size: 12px }
.heads svg { min-width: 0; width: 10rem; background: color-mix(in srgb, var(--ink) 6%, transparent) }
"""
_CELL = 4  # pixels of a head's map
_FAINT = 0.02  # of a row, which is not drawn


def run_folder() -> Path:
    """The first argument of a script, the environment's CODELM_RUN, or the quickstart's."""
    given = [argument for argument in sys.argv[1:2] if not argument.startswith("-")]  # Jupyter passes its own
    folder = Path(given[0] if given else os.environ.get(RUN, _QUICKSTART))
    if not (folder / CONFIG).is_file():
        raise UserError(f"no run at {folder}: `make demo` makes runs/quickstart; {RUN} names another")
    return folder


def show(title: str, html: str, run: Path) -> None:
    """Below the cell of a notebook; of a script, as a page in the run's folder, whose path is printed."""
    content = page(run.name, [(title, html)], report_samples.STYLE + _STYLE)
    if "IPython" in sys.modules:
        ipython = importlib.import_module("IPython")
        if ipython.get_ipython() is not None:
            # A frame, so that the page's style stays in it.
            frame = f'<iframe srcdoc="{escape(content)}" width="100%" height="480" frameborder="0"></iframe>'
            ipython.display.display({"text/html": frame}, raw=True)
            return
    path = run / FIGURES / f"{title.lower().replace(' ', '-')}.html"
    write_atomically(path, content.encode())
    print(path)


def shaded(texts: Sequence[str], values: Sequence[float], most: float, said: str) -> str:
    """Tokens, the darker the higher their values up to `most`; pointed at, each says its own. NaN: no value."""
    parts = []
    for text, value in zip(texts, values, strict=True):
        share = 0.0 if np.isnan(value) else min(value / most, 1.0)
        told = f' title="{value:.2f} {escape(said)}"' if share else ""
        look = f"background: color-mix(in srgb, #d9622b {share:.0%}, transparent)"
        parts.append(f"<span style='{look}'{told}>{escape(text).replace('\n', '⏎\n')}</span>")
    return f"<pre>{''.join(parts)}</pre>"


def heads(weights: Float[np.ndarray, "L N S S"]) -> str:
    """A map of every head: a row for each token that reads, a column for each that is read."""
    drawn = []
    for layer, of_layer in enumerate(weights):
        for head, seen in enumerate(of_layer):
            cells = "".join(
                f'<rect x="{column * _CELL}" y="{row * _CELL}" width="{_CELL}" height="{_CELL}" '
                f'fill-opacity="{seen[row, column]:.2f}"/>'
                for row, column in zip(*np.nonzero(seen > _FAINT), strict=True)
            )
            size = len(seen) * _CELL
            svg = f'<svg viewBox="0 0 {size} {size}" fill="currentColor">{cells}</svg>'
            drawn.append(f"<figure style='margin: 0'>{svg}<figcaption>layer {layer}, head {head}</figcaption></figure>")
    return f"<div class=heads>{''.join(drawn)}</div>"
