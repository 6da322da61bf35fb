"""Weights of Hugging Face folders, in both directions: from their tensors to our parameters and back.

Theirs is one tensor for each layer, expert and projection, a linear map stored [out, in]. Ours are stacked over layers
(and experts), stored [in, out] with heads apart. Each device's share is read straight from the files, tensor by tensor;
nothing is read before every tensor is known to be there with the right shape, nothing is half-written.

>>> config, family = read_config(folder)  # doctest: +SKIP
>>> parameters = load_parameters(folder, config, family)  # split over the mesh that is set  # doctest: +SKIP
>>> parameters["blocks.query"].shape  # layers, width, heads, head_dim  # doctest: +SKIP
(28, 3584, 28, 128)
"""

import contextlib
import functools
import json
import math
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from codelm.config import ModelConfig
from codelm.errors import UserError
from codelm.huggingface_config import to_huggingface
from codelm.huggingface_families import FAMILIES, HARMLESS_TENSORS, MODULES
from codelm.parameters import Parameter, block_parameters, outer_parameters
from codelm.safetensors_files import CODES, DTYPES, INDEX, SINGLE, StoredTensor, find_tensors, write_file
from codelm.sharding import has_mesh, spec

ROWS = 64  # transposed at a time: few enough to stay in cache
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Entry:
    """One of our parameters, stacked, and the tensors it is made of."""

    template: str
    """Name of the tensor, with {layer} and {expert} to fill in."""
    parameter: Parameter
    stacked: tuple[int, ...]
    """Layers, and experts: what has a tensor for each."""
    dimensions: tuple[str, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """Shape of what one tensor holds, as we lay it out."""
        return self.parameter.shape[self.parameter.dimensions[0] == "experts" :]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stacked + self.own

    @property
    def axes(self) -> tuple[int, ...]:
        """Our axes in the order of the tensor's: a linear map's outputs come first."""
        order = tuple(range(len(self.own)))
        split = self.parameter.fan_in if self.parameter.start in ("matrix", "residual") else 0
        return order[split:] + order[:split]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        if self.parameter.start in ("matrix", "residual"):
            inputs = math.prod(self.own[: self.parameter.fan_in])
            return (math.prod(self.own) // inputs, inputs)
        return self.own if self.parameter.start == "embedding" else (math.prod(self.own),)

    def name(self, place: tuple[int, ...]) -> str:
        return self.template.format(**dict(zip(("layer", "expert"), place, strict=False)))


def layout(config: ModelConfig, family: str) -> dict[str, Entry]:
    """Every parameter by its name, those of the layers under "blocks."."""
    entries = {}
    for name, parameter in outer_parameters(config).items():
        entries[name] = Entry(_template(name, family), parameter, (), parameter.dimensions)
    for name, parameter in block_parameters(config).items():
        experts = parameter.shape[: parameter.dimensions[0] == "experts"]
        template = "model.layers.{layer}." + _template(name, family)
        stacked, dimensions = (config.depth, *experts), ("layers", *parameter.dimensions)
        entries[f"blocks.{name}"] = Entry(template, parameter, stacked, dimensions)
    return entries


def _template(name: str, family: str) -> str:
    modules = {**MODULES, **FAMILIES[family].modules}
    module, kind = (name.removesuffix("_bias"), "bias") if name.endswith("_bias") else (name, "weight")
    if module not in modules:
        raise UserError(f"a {family} model has no parameter {name}")
    return f"{modules[module]}.{kind}"


# --- reading ----------------------------------------------------------------------------------------------------------


def load_parameters(folder: Path, config: ModelConfig, family: str) -> dict[str, Array]:
    """Every parameter by its name, of param_dtype, split over the mesh that is set (or on the one device)."""
    entries, tensors = layout(config, family), find_tensors(folder)
    _check_tensors(folder, config, entries, tensors)
    shardings = {name: _sharding(name, entry) for name, entry in entries.items()}
    dtype = DTYPES["F32"] if config.param_dtype == "float32" else DTYPES["BF16"]
    parameters = {}
    for name, entry in entries.items():
        read = functools.cache(functools.partial(_read, entry, tensors, dtype))  # once for all devices that share it
        sharding = shardings[name]
        if sharding is None:
            array = jax.device_put(read((slice(None),) * len(entry.shape)))
        else:
            array = jax.make_array_from_callback(entry.shape, sharding, read, dtype)
        parameters[name] = jax.block_until_ready(array)  # or the host would hold several
    return parameters


def _check_tensors(
    folder: Path, config: ModelConfig, entries: Mapping[str, Entry], tensors: Mapping[str, StoredTensor]
) -> None:
    """Refuse a folder that does not hold exactly what its config.json says."""
    expected = {e.name(place): e.stored for e in entries.values() for place in np.ndindex(e.stacked)}
    ignored = {"lm_head.weight"} if config.tied_embeddings else set()
    unknown = [n for n in tensors if n not in expected and n not in ignored and not n.endswith(HARMLESS_TENSORS)]
    if missing := [name for name in expected if name not in tensors]:
        hint = f"; it has {_some(unknown)} instead" if unknown else ""
        raise UserError(f"{folder} lacks tensor {_some(missing)}{hint}")
    if unknown:
        raise UserError(f"{folder} has tensor {_some(unknown)}, which a model of its config.json has not")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise UserError(
                f"{tensor.path}: tensor {name} has shape {list(tensor.shape)}, config.json says {list(shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise UserError(f"{tensor.path}: tensor {name} has dtype {tensor.dtype}; supported are {', '.join(DTYPES)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _sharding(name: str, entry: Entry) -> NamedSharding | None:
    if not has_mesh():
        return None
    sharding = NamedSharding(jax.sharding.get_mesh(), spec(*entry.dimensions))
    for size, dimension, axes in zip(entry.shape, entry.dimensions, sharding.spec, strict=True):
        axes = (axes,) if isinstance(axes, str) else axes or ()
        if size % math.prod(sharding.mesh.shape[axis] for axis in axes):
            shown = " x ".join(f"{axis}={sharding.mesh.shape[axis]}" for axis in axes)
            raise UserError(f"mesh {shown} does not divide {dimension}={size} of {name}")
    return sharding


def _read(entry: Entry, tensors: Mapping[str, StoredTensor], dtype: np.dtype, index: Index) -> np.ndarray:
    """A part of a parameter; reads what is in it, one tensor at a time."""
    ranges = [range(*part.indices(size)) for part, size in zip(index, entry.shape, strict=True)]
    part = _empty(tuple(map(len, ranges)), dtype)
    depth = len(entry.stacked)
    for at in np.ndindex(part.shape[:depth]):
        place = tuple(ranges[axis][i] for axis, i in enumerate(at))
        view = tensors[entry.name(place)].open().reshape([entry.own[axis] for axis in entry.axes])
        source, target = view[tuple(index[depth + axis] for axis in entry.axes)], part[at].transpose(entry.axes)
        step = max(ROWS // math.prod(source.shape[1:-1]), 1) if source.ndim > 1 else len(source)
        for row in range(0, len(source), step):
            target[row : row + step] = source[row : row + step]
    return part


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Aligned to a page, so that the CPU backend takes it over rather than making a second copy."""
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return np.frombuffer(memory, dtype).reshape(shape)


# --- writing ----------------------------------------------------------------------------------------------------------


def save_parameters(
    parameters: Mapping[str, Array],
    config: ModelConfig,
    family: str,
    folder: Path,
    *,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    dtype: str = "",
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a Hugging Face folder, whole or not at all.

    extra  further fields of config.json: token ids
    files  further files: the tokenizer
    dtype  of the tensors: bfloat16, float16 or float32; empty = param_dtype
    """
    content: dict[str, Any] = {**to_huggingface(config, family), "dtype": dtype or config.param_dtype}
    if clash := sorted(set(extra or {}) & set(content)):
        raise UserError(f"config.json's {', '.join(clash)} follow from the model and cannot be set")
    if content["dtype"] not in CODES:
        raise UserError(f"dtype {dtype} is not supported; supported are {', '.join(CODES)}")
    kind, entries = DTYPES[CODES[content["dtype"]]], layout(config, family)
    _check_parameters(parameters, entries)
    shards = _shards(entries, kind.itemsize, max_shard_bytes)
    with _new_folder(folder) as part:
        index: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else SINGLE
            shapes = {name: entries[own].stored for name, (own, _) in shard.items()}
            write_file(part / file, shapes, kind, _stored_values(shard, parameters, entries, kind))
            index |= dict.fromkeys(shapes, file)
        if len(shards) > 1:
            total = sum(math.prod(entry.shape) for entry in entries.values())
            metadata = {"total_parameters": total, "total_size": total * kind.itemsize}
            (part / INDEX).write_text(_json({"metadata": metadata, "weight_map": index}))
        (part / "config.json").write_text(_json(content | dict(extra or {})))
        for name, data in (files or {}).items():
            (part / name).write_bytes(data)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _check_parameters(parameters: Mapping[str, Array], entries: Mapping[str, Entry]) -> None:
    for name in sorted(set(parameters) ^ set(entries)):
        raise UserError(f"parameter {name} is " + ("missing" if name in entries else "not one of this model's"))
    for name, entry in entries.items():
        if parameters[name].shape != entry.shape:
            raise UserError(f"parameter {name} has shape {parameters[name].shape}, the model says {entry.shape}")


def _shards(entries: Mapping[str, Entry], itemsize: int, limit: int) -> list[dict[str, tuple[str, tuple[int, ...]]]]:
    """The tensors of each file: name → parameter and place in it. Layer by layer, embedding first."""
    order = [(place[:1] or ((-1,) if own == "embedding" else (math.inf,)), number, place, own)
             for number, (own, entry) in enumerate(entries.items()) for place in np.ndindex(entry.stacked)]  # fmt: skip
    shards, size = [{}], 0
    for _, _, place, own in sorted(order):
        entry = entries[own]
        bytes_ = math.prod(entry.stored) * itemsize
        if shards[-1] and size + bytes_ > limit:
            shards.append({})
            size = 0
        shards[-1][entry.name(place)] = (own, place)
        size += bytes_
    return shards


def _stored_values(
    shard: Mapping[str, tuple[str, tuple[int, ...]]],
    parameters: Mapping[str, Array],
    entries: Mapping[str, Entry],
    dtype: np.dtype,
) -> Iterator[np.ndarray]:
    """The tensors of a file, one at a time; a layer of a parameter is fetched once for all its experts."""

    @functools.lru_cache(1)
    def fetch(own: str, layer: tuple[int, ...]) -> np.ndarray:
        array = parameters[own]
        return np.asarray(array[layer] if layer else array)

    for name, (own, place) in shard.items():
        value = fetch(own, place[:1])[place[1:]].transpose(entries[own].axes).reshape(entries[own].stored)
        with np.errstate(over="ignore"):
            stored = value.astype(dtype)
        if dtype == DTYPES["F16"] and np.isinf(stored).any() and not np.isinf(value).any():
            raise UserError(f"{name} has values that float16 cannot hold; write bfloat16 or float32")
        yield stored


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes the one asked for when all went well."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; choose another name")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
