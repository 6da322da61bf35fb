"""A model on disk: codelm.json (version, family, config, in how many bits), parameters (Orbax), and its tokenizer.

    FOLDER/codelm.json  FOLDER/parameters/  FOLDER/tokenizer.model | tokenizer.json

A folder is published whole: it is written beside its place and renamed. Training writes checkpoints of its own
(`train.checkpoints`), RUN/checkpoints/STAGE/STEP, whose parameters are read here too.
"""

import contextlib
import dataclasses
import gc
import json
import logging
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array, UInt32
from orbax.checkpoint import v1 as ocp

from codelm.config import ModelConfig, checked
from codelm.config_io import from_dict
from codelm.errors import UserError
from codelm.parameters import all_parameters
from codelm.quantised import Quantisation, Quantised, Stored, layout
from codelm.sharding import has_mesh, spec

VERSION = 1
QUANTISED_VERSION = 2
TRAINING_VERSION = 1
STAGES = ("pretrain", "midtrain")  # of a run's training, in order
DESCRIPTION = "codelm.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
SCALES = ".scales"  # of a quantised array, after its name


@dataclass(frozen=True)
class Description:
    """What codelm.json says."""

    config: ModelConfig
    family: str
    prompt_format: str = ""
    quantisation: Quantisation | None = None
    sums: Mapping[str, int] = field(default_factory=dict)
    """Over the bits of each array, where it is quantised."""

    def content(self) -> dict[str, Any]:
        version = QUANTISED_VERSION if self.quantisation else VERSION
        content = {"codelm_checkpoint": version, "family": self.family, "model": dataclasses.asdict(self.config)}
        if self.prompt_format:
            content["prompt_format"] = self.prompt_format
        if self.quantisation:
            content |= {"quantisation": dataclasses.asdict(self.quantisation), "sums": self.sums}
        return content


def save(
    folder: Path,
    config: ModelConfig,
    family: str,
    values: Mapping[str, Stored],
    tokenizer: Path | None = None,
    prompt_format: str = "",
    quantisation: Quantisation | None = None,
) -> None:
    """Write a new checkpoint; `tokenizer` is a file to keep with it."""
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        arrays: Any = _apart(values)
        ocp.save(str(part.absolute() / "parameters"), arrays)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, part / f"tokenizer{tokenizer.suffix}")
        written = sums(arrays) if quantisation else {}
        content = Description(config, family, prompt_format, quantisation, written).content()
        (part / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")
        part.chmod(0o755)
        part.replace(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Refuse to write over anything, before the work and not after it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is already there; name a new folder or remove it")


def read_description(folder: epath.Path) -> Description:
    path = folder / DESCRIPTION
    try:
        content: Any = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    version = content.get("codelm_checkpoint") if isinstance(content, dict) else None
    if version not in (VERSION, QUANTISED_VERSION):
        raise UserError(f"{path} has version {version!r}; this codelm reads versions {VERSION} and {QUANTISED_VERSION}")
    config = checked(from_dict(ModelConfig, content.get("model"), "model"), "model", ModelConfig)
    found = Description(config, str(content.get("family")), str(content.get("prompt_format", "")))
    if version == VERSION:
        return found
    try:
        quantisation = from_dict(Quantisation, content.get("quantisation"), "quantisation")
        quantisation.check()
        layout(config, quantisation)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content.get("sums"), dict):
        raise UserError(f"{path} is damaged: it has no sums over the bits of arrays")
    return dataclasses.replace(found, quantisation=quantisation, sums=content["sums"])


def read_quantised(folder: epath.Path, description: Description) -> dict[str, Stored]:
    """As `read_parameters`, of a checkpoint whose description has a quantisation."""
    assert description.quantisation
    found = layout(description.config, description.quantisation)
    dimensions = {name: parameter.dimensions for name, parameter in all_parameters(description.config).items()}
    wanted = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(dimensions[name.removesuffix(SCALES)], x.shape))
        for name, x in _apart(found).items()
    }
    arrays = _load(folder, wanted)
    if (name := wrong_sum(arrays, description.sums)) is not None:
        raise UserError(f"{folder / 'parameters'} is damaged: the bits of {name} do not add up")
    return {
        name: Quantised(arrays[name], arrays[name + SCALES]) if isinstance(x, Quantised) else arrays[name]
        for name, x in found.items()
    }


def _apart(values: Mapping[str, Stored]) -> dict[str, Array]:
    """As plain arrays by name."""
    found: dict[str, Array] = {}
    for name, value in values.items():
        parts = {"": value.values, SCALES: value.scales} if isinstance(value, Quantised) else {"": value}
        found |= {name + part: x for part, x in parts.items()}
    return found


def read_parameters(folder: epath.Path, config: ModelConfig) -> dict[str, Array]:
    """The arrays, each straight into its place on the mesh that is set."""
    wanted = {
        name: jax.ShapeDtypeStruct(parameter.shape, config.param_dtype, sharding=_sharding(parameter.dimensions))
        for name, parameter in all_parameters(config).items()
    }
    return _load(folder, wanted)


def _load(folder: epath.Path, wanted: Any) -> dict[str, Array]:
    path = folder / "parameters"
    try:
        with quiet():
            if not is_training(folder):
                loaded: Any = ocp.load(str(path), wanted)
                return loaded
            parts: Any = ocp.load_checkpointables(str(folder), {"parameters": wanted})  # Orbax reads them only together
    except Exception as error:  # Orbax and TensorStore raise many kinds for a missing or damaged array
        reason = describe_damage(error)
        raise UserError(f"{path} does not hold the model's parameters, or is damaged: {reason}") from None
    if (name := wrong_sum(parts["parameters"], read_training_description(folder)["sums"]["parameters"])) is not None:
        raise UserError(f"{path} is damaged: the bits of {name} do not add up")
    return parts["parameters"]


def sums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """A sum over the bits of each array, the same however it is split: one changed element changes it."""
    return {name: int(value) for name, value in jax.device_get(_sums(dict(arrays))).items()}


@jax.jit
def _sums(arrays: dict[str, Array]) -> dict[str, UInt32[Array, ""]]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}

    def total(x: Array) -> UInt32[Array, ""]:
        x = x.astype(jnp.int8) if x.dtype == jnp.int4 else x
        bits = jax.lax.bitcast_convert_type(x, unsigned[x.dtype.itemsize])
        return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)

    return jax.tree.map(total, arrays)


def wrong_sum(arrays: Mapping[str, Any], written: Mapping[str, int]) -> str | None:
    """The first array whose bits do not add up to what was written down."""
    return next((name for name, value in sums(arrays).items() if value != written.get(name)), None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the pages that libraries write about a damaged array, some of them when its tasks are collected."""
    loggers = [(logger, logger.level) for logger in map(logging.getLogger, ("asyncio", "absl"))]
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    for logger, _ in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except BaseException:
                gc.collect()  # while it is quiet; of what went well nothing is written, and this takes long
                raise
    finally:
        sys.unraisablehook = hook
        for logger, level in loggers:
            logger.setLevel(level)


def describe_damage(error: BaseException) -> str:
    """What went wrong at the bottom of a library's chain of errors, in one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    said = (str(error).strip() or type(error).__name__).splitlines()[0].split(" [tensorstore_spec")[0]
    said = re.sub(r" \[source locations.*", "", said)
    return said if len(said) <= 300 else f"{said[:100]} … {said[-190:]}"


def read_training_description(folder: epath.Path) -> dict[str, Any]:
    """What training wrote beside its arrays: the config, what it was trained on, sums over bits; and their shapes."""
    try:
        with quiet():
            found: Any = ocp.checkpointables_metadata(str(folder))
    except Exception as error:  # as above
        said = f"{folder} is not a checkpoint of training, or is damaged: {describe_damage(error)}"
        raise UserError(said) from None
    description = found.custom_metadata
    version = description.get("codelm_training") if isinstance(description, dict) else None
    if version != TRAINING_VERSION:
        raise UserError(f"{folder} has version {version!r}; this codelm reads version {TRAINING_VERSION}")
    parts = {part: found.metadata.get(part) or {} for part in ("parameters", "training")}
    return description | {"shapes": {part: {name: x.shape for name, x in of.items()} for part, of in parts.items()}}


def is_training(folder: epath.Path) -> bool:
    """Whether training wrote this checkpoint, with the rest of its state."""
    return (folder / "_CHECKPOINT_METADATA").exists()


def located(path: str | Path) -> epath.Path:
    """A path as Orbax takes it: whole, or gs://."""
    return epath.Path(path) if "://" in str(path) else epath.Path(Path(path).absolute())


def folder_of_stages(run: epath.Path, name: str, elsewhere: str) -> epath.Path:
    """Where the checkpoints of a run's stages are: in its folder, or under its name in `checkpoint.folder`."""
    return located(elsewhere) / name if elsewhere else run / "checkpoints"


def newest(stages: epath.Path) -> epath.Path | None:
    """The last training checkpoint of a run: of its last stage that has any."""
    for stage in reversed(STAGES):
        steps = [path for path in (stages / stage).glob("*") if path.name.isdigit()]
        if steps:
            return max(steps, key=lambda path: int(path.name))
    return None


def _sharding(dimensions: tuple[str, ...], shape: tuple[int, ...] | None = None) -> jax.sharding.Sharding:
    if has_mesh():
        return jax.NamedSharding(jax.sharding.get_mesh(), spec(*dimensions, shape=shape))
    return SingleDeviceSharding(jax.devices()[0])
