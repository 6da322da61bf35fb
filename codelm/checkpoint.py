"""A model on disk: codelm.json (version, family, config), parameters (Orbax), and its tokenizer.

    FOLDER/codelm.json  FOLDER/parameters/  FOLDER/tokenizer.model | tokenizer.json

A folder is published whole: it is written beside its place and renamed. Training writes checkpoints of its own
(`train.checkpoints`), RUN/checkpoints/STAGE/STEP, whose parameters are read here too.
"""

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array
from orbax.checkpoint import v1 as ocp

from codelm.config import ModelConfig, checked
from codelm.config_io import from_dict
from codelm.errors import UserError
from codelm.parameters import all_parameters
from codelm.sharding import has_mesh, spec

VERSION = 1
TRAINING_VERSION = 1
STAGES = ("pretrain", "midtrain")  # of a run's training, in order
DESCRIPTION = "codelm.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def save(
    folder: Path, config: ModelConfig, family: str, values: Mapping[str, Array], tokenizer: Path | None = None
) -> None:
    """Write a new checkpoint; `tokenizer` is a file to keep with it."""
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        arrays: Any = dict(values)
        ocp.save(str(part.absolute() / "parameters"), arrays)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, part / f"tokenizer{tokenizer.suffix}")
        content = {"codelm_checkpoint": VERSION, "family": family, "model": dataclasses.asdict(config)}
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


def read_description(folder: Path) -> tuple[ModelConfig, str]:
    """The model of a checkpoint and its family."""
    path = folder / DESCRIPTION
    try:
        content: Any = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    version = content.get("codelm_checkpoint") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(f"{path} has version {version!r}; this codelm reads version {VERSION}")
    config = checked(from_dict(ModelConfig, content.get("model"), "model"), "model", ModelConfig)
    return config, str(content.get("family"))


def read_parameters(folder: Path, config: ModelConfig) -> dict[str, Array]:
    """The arrays, each straight into its place on the mesh that is set."""
    wanted: Any = {
        name: jax.ShapeDtypeStruct(parameter.shape, config.param_dtype, sharding=_sharding(parameter.dimensions))
        for name, parameter in all_parameters(config).items()
    }
    path = (folder / "parameters").absolute()
    try:
        if is_training(folder):  # whose parts Orbax reads only together
            parts: Any = ocp.load_checkpointables(str(folder.absolute()), {"parameters": wanted})
            return parts["parameters"]
        loaded: Any = ocp.load(str(path), wanted)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a missing or damaged array
        reason = describe_damage(error)
        raise UserError(f"{path} does not hold the model's parameters, or is damaged: {reason}") from error
    return loaded


def describe_damage(error: BaseException) -> str:
    """What went wrong at the bottom of a library's chain of errors, in one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    said = (str(error).strip() or type(error).__name__).splitlines()[0].split(" [tensorstore_spec")[0]
    said = re.sub(r" \[source locations.*", "", said)
    return said if len(said) <= 300 else f"{said[:100]} … {said[-190:]}"


def read_training_description(folder: epath.Path) -> dict[str, Any]:
    """What training wrote beside its arrays: the config, what it was trained on, sums over bits."""
    try:
        description: Any = ocp.checkpointables_metadata(str(folder)).custom_metadata
    except Exception as error:  # as above
        raise UserError(f"{folder} is not a checkpoint of training, or is damaged: {describe_damage(error)}") from error
    version = description.get("codelm_training") if isinstance(description, dict) else None
    if version != TRAINING_VERSION:
        raise UserError(f"{folder} has version {version!r}; this codelm reads version {TRAINING_VERSION}")
    return description


def is_training(folder: Path) -> bool:
    """Whether training wrote this checkpoint, with the rest of its state."""
    return (folder / "_CHECKPOINT_METADATA").exists()


def newest(run: Path) -> Path | None:
    """The last training checkpoint of a run: of its last stage that has any."""
    for stage in reversed(STAGES):
        steps = [path for path in (run / "checkpoints" / stage).glob("*") if path.name.isdigit()]
        if steps:
            return max(steps, key=lambda path: int(path.name))
    return None


def _sharding(dimensions: tuple[str, ...]) -> jax.sharding.Sharding:
    if has_mesh():
        return jax.NamedSharding(jax.sharding.get_mesh(), spec(*dimensions))
    return SingleDeviceSharding(jax.devices()[0])
