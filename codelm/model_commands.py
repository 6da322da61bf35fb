"""`codelm import` and `codelm export`: models from and to Hugging Face folders."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from codelm import checkpoint, huggingface_config, huggingface_weights, lm
from codelm.arithmetic import count_parameters
from codelm.commandline import parse
from codelm.errors import UserError
from codelm.lm import LM
from codelm.parameters import all_parameters
from codelm.quantised import Quantised

Source = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class ImportOptions:
    """Turn a Hugging Face folder into a codelm checkpoint: weights, config and tokenizer."""

    source: Annotated[Source, tyro.conf.arg(metavar="HF_DIR")]
    """A folder with config.json and safetensors weights."""
    out: Annotated[Source, tyro.conf.arg(metavar="OUT")]
    """The checkpoint to write; a new folder."""


def import_(argv: list[str], prog: str) -> None:
    options = parse(ImportOptions, argv, prog)
    checkpoint.check_new(options.out)
    model = _plain(options.source)
    checkpoint.save(
        options.out, model.config, model.family, values(model), model.tokenizer_file, prompt_format=model.prompt_format
    )
    print(f"wrote {options.out}: {_described(model)}")


@dataclass(frozen=True)
class ExportOptions:
    """Turn a run or checkpoint into a Hugging Face folder that transformers and the serving engines read."""

    source: Annotated[Source, tyro.conf.arg(metavar="CKPT")]
    """A run, a checkpoint or a Hugging Face folder."""
    out: Annotated[Source, tyro.conf.arg(metavar="HF_DIR")]
    """The folder to write; a new one."""


def export(argv: list[str], prog: str) -> None:
    options = parse(ExportOptions, argv, prog)
    checkpoint.check_new(options.out)
    model = _plain(options.source)
    if heads := model.config.mtp_heads:  # Hugging Face's families have no place for them
        print(f"left out: {heads} of {heads} heads that look further ahead (model.mtp_heads); the rest is whole")
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, mtp_heads=0))
    family = huggingface_config.family_of(model.config) if model.family == "codelm" else model.family
    extra, files = {}, {}
    if model.tokenizer is not None and model.tokenizer_file is not None:
        files = {f"tokenizer{model.tokenizer_file.suffix}": model.tokenizer_file.read_bytes()}
        ends = [model.tokenizer.special[name] for name in lm.TEXT_ENDS if name in model.tokenizer.special]
        extra = {"eos_token_id": ends[0]} if ends else {}
    huggingface_weights.save_parameters(values(model), model.config, family, options.out, extra=extra, files=files)
    print(f"wrote {options.out} as {family}: {_described(model)}")


def _plain(source: Path) -> LM:
    model = lm.load(source)
    if any(isinstance(value, Quantised) for value in model.model.arrays().values()):
        raise UserError(f"{source} is quantised, for serving alone: take the run or checkpoint that it was made from")
    return model


def values(model: LM) -> dict:
    """The arrays by name that a model of its config has."""
    arrays = model.model.arrays()
    return {name: arrays[name] for name in all_parameters(model.config)}


def _described(model: LM) -> str:
    named = f"tokenizer of {model.tokenizer.vocab_size:,} pieces" if model.tokenizer else "no tokenizer"
    return f"{model.family}, {count_parameters(model.config).total:,} parameters, {named}"
