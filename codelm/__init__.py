"""What a code language model is: config, tokenizer, prompt formats, model, arithmetic; and the `codelm` command.

This room imports no other room. Importing it is cheap: jax is loaded by the modules that compute.

>>> lm = codelm.load("path/to/a/run, a checkpoint or a Hugging Face folder")
>>> lm.generate("def fibonacci(n):", max_new_tokens=32)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from codelm.lm import LM

__version__ = "0.1.0"


def load(path: str | Path, compute_dtype: Literal["", "float32", "bfloat16"] = "") -> "LM":
    """A model from a run, a checkpoint or a Hugging Face folder; see `codelm.lm.load`."""
    from codelm import lm

    return lm.load(path, compute_dtype)
