"""Weights in fewer bits, for serving: which there are, how they are rounded, and products with them.

The matrices of the layers are rounded: to int8 or fp8 (e4m3) with a scale for each output, to int4 with a scale for
each group of weights along what is summed over; the output table to int8. Everything else stays: routers, norms,
biases, and the table that tokens are looked up in, in the dtype that computes. A model with tied embeddings is untied.

Products compute with weights made whole again where they are used, which accelerators do inside the product. A CPU does
not, so there int8 is multiplied as it is: the other side is rounded to two int8 numbers, one for what the first leaves,
which together have 16 bits. Sums of integers are exact, so a row's result does not depend on the rows beside it.

Rounding is qwix's; whoever loads what was rounded does without it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Shaped

from codelm.config import ModelConfig
from codelm.errors import UserError
from codelm.parameters import Parameter, all_parameters
from codelm.sharding import has_mesh, platform

Bits = Literal["8", "4", "fp8"]
DTYPES: dict[Bits, str] = {"8": "int8", "4": "int4", "fp8": "float8_e4m3fn"}
# What the largest value becomes the largest number by. For integers qwix means a half more, a tie that noise would
# decide.
CALIBRATION = {"int8": f"absmax,{127.5 / 127}", "int4": f"absmax,{7.5 / 7}", "float8_e4m3fn": "absmax"}
GROUP = 32
OUTPUT = "head"  # the output table's name, in a model whose embeddings are not tied
_LARGEST, _REST = 127, 254  # of int8; what is left of a number rounded to it is at most half a step: 254 in a whole one


@dataclass(frozen=True)
class Quantisation:
    """In how many bits the weights of a model are."""

    bits: Bits
    group: int = 0
    """Weights that share a scale, of four bits; of others all that are summed for an output do."""
    output_table: bool = True
    """Whether the output table is too."""

    def check(self) -> None:
        if self.bits not in get_args(Bits):
            raise UserError(f"bits={self.bits!r}: weights can be in {', '.join(get_args(Bits))}")
        if self.bits == "4" and self.group < 2:
            raise UserError(f"group={self.group}: in four bits a few weights share a scale; 32 and 64 are usual")
        if self.bits != "4" and self.group:
            raise UserError(f"group={self.group} is for 4 bits: in {self.bits} all weights of an output share a scale")

    def dtype_of(self, name: str, parameter: Parameter) -> str:
        """What an array is rounded to; empty = it stays."""
        if name == OUTPUT and self.output_table:
            return "int8"  # each token has a scale of its own, and few bits tell in scores
        in_layers = name.startswith("blocks.") and parameter.is_product and not name.endswith("router")
        return DTYPES[self.bits] if in_layers else ""


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values", "scales"], meta_fields=[])
@dataclass(frozen=True)
class Quantised:
    """An array in fewer bits: values times scales, which have as many dimensions, each 1 or a divisor of the other."""

    values: Shaped[Array, "*D"]
    scales: Float[Array, "*d"]

    def __getitem__(self, index: Any) -> "Quantised":
        """Of arrays stacked along leading axes."""
        return replace(self, values=self.values[index], scales=self.scales[index])

    def restored(self, dtype: str | jnp.dtype) -> Float[Array, "*D"]:
        """An array again, on a mesh split as the values are."""
        scales = jax.reshard(self.scales, PartitionSpec()) if has_mesh() else self.scales
        for axis, (size, count) in enumerate(zip(self.values.shape, scales.shape, strict=True)):
            if 1 < count < size:
                scales = jnp.repeat(scales, size // count, axis)
        if has_mesh():
            split = jax.typeof(self.values).sharding.spec
            own = (part if size > 1 else None for part, size in zip(split, scales.shape, strict=True))
            scales = jax.reshard(scales, PartitionSpec(*own))
        return (self.values.astype(jnp.float32) * scales.astype(jnp.float32)).astype(dtype)

    @property
    def is_multiplied(self) -> bool:
        """Whether products take its values as they are, here."""
        return platform() == "cpu" and not has_mesh() and self.values.dtype == jnp.int8


Stored = Float[Array, "..."] | Quantised


# ---- products ----


def product(subscripts: str, x: Float[Array, "B ..."], weight: Quantised) -> Float[Array, "B ..."]:
    """einsum of x and values that are multiplied as they are, in float32. Axes: x's own, those summed over, or the
    weight's own first; the result's are x's own, then the weight's."""
    left, right = subscripts.split("->")[0].split(",")
    summed = tuple(axis for axis, letter in enumerate(left) if letter in right)
    wide = x.astype(jnp.float32)
    step = jnp.max(jnp.abs(wide), axis=summed, keepdims=True) / _LARGEST
    step = jnp.where(step == 0, 1, step)  # what is not a number stays that, and so does its row
    scaled = wide / step
    whole = jnp.round(scaled)
    rows = jnp.concatenate([whole, jnp.round((scaled - whole) * _REST)]).astype(jnp.int8)
    sums = jnp.einsum(subscripts, rows, weight.values, preferred_element_type=jnp.int32).astype(jnp.float32)
    of_whole, of_rest = jnp.split(sums, 2)
    sizes = dict(zip(right, weight.values.shape, strict=True))
    scales = weight.scales.reshape([size for letter, size in sizes.items() if letter not in left])
    steps = step.reshape(*(step.shape[axis] for axis in range(x.ndim) if axis not in summed), *[1] * scales.ndim)
    return (of_whole + of_rest / _REST) * steps * scales


# ---- models ----


def quantise(
    config: ModelConfig, values: Mapping[str, Any], how: Quantisation
) -> tuple[ModelConfig, dict[str, Stored]]:
    """A model's arrays as a `Quantisation` says, and the config they make a model with."""
    how.check()
    arrays = {name: value for name, value in values.items() if not isinstance(value, Quantised)}
    if len(arrays) < len(values):
        raise UserError("the model is quantised already: take the run or checkpoint that it was made from")
    if how.output_table and config.tied_embeddings:
        config, arrays[OUTPUT] = replace(config, tied_embeddings=False), arrays["embedding"]
    found: dict[str, Stored] = {}
    for name, parameter in _checked(config, how).items():
        dtype, value = how.dtype_of(name, parameter), arrays[name]
        found[name] = _rounded(value, parameter, how, dtype) if dtype else value.astype(_kept_in(config, name))
    return config, found


def _rounded(value: Float[Array, "..."], parameter: Parameter, how: Quantisation, dtype: str) -> Quantised:
    summed, group = summed_axes(parameter), group_of(how, dtype)
    own = [axis for axis in range(value.ndim) if axis not in (summed[-1:] if group else summed)]
    tiled = {summed[-1]: group} if group else {}
    # In float32: a bfloat16 scale, or a value over it, would be rounded before it is rounded.
    found = qwix("codelm quantize").quantize(
        value.astype(jnp.float32), dtype, channelwise_axes=own, tiled_axes=tiled, calibration_method=CALIBRATION[dtype]
    )
    return Quantised(found.qvalue, found.scale.astype(_scale_dtype(group)))


def summed_axes(parameter: Parameter) -> tuple[int, ...]:
    """Of a stored array, the axes that its product sums over."""
    if parameter.start == "embedding":
        return (1,)
    return tuple(range(parameter.stacked, parameter.stacked + parameter.fan_in))


def group_of(how: Quantisation, dtype: str) -> int:
    return how.group if dtype == "int4" else 0


def _scale_dtype(group: int) -> str:
    """Scales of groups are many, and next to four bits eight of their own are enough."""
    return "bfloat16" if group else "float32"


def _kept_in(config: ModelConfig, name: str) -> str:
    """Of what is not rounded. Tokens are looked up in the dtype that computes."""
    return "bfloat16" if name == "embedding" and config.compute_dtype == "bfloat16" else config.param_dtype


def _checked(config: ModelConfig, how: Quantisation) -> dict[str, Parameter]:
    """The parameters, when groups fit all of them."""
    parameters = all_parameters(config)
    for name, parameter in parameters.items():
        group = group_of(how, how.dtype_of(name, parameter))
        size = parameter.shape[summed_axes(parameter)[-1]] if group else 0
        if group and size % group:
            raise UserError(f"group={group} does not divide the {size} weights that {name} sums over: choose another")
    return parameters


def layout(config: ModelConfig, how: Quantisation) -> dict[str, Any]:
    """What the arrays of a model are, by name, without them."""
    array: Any = jax.ShapeDtypeStruct
    found: dict[str, Any] = {}
    for name, parameter in _checked(config, how).items():
        shape, dtype = parameter.shape, how.dtype_of(name, parameter)
        if not dtype:
            found[name] = array(shape, _kept_in(config, name))
            continue
        group, summed = group_of(how, dtype), summed_axes(parameter)
        counts = list(shape)
        for axis in summed:
            counts[axis] = 1 if not group else counts[axis] // group if axis == summed[-1] else counts[axis]
        found[name] = Quantised(array(shape, dtype), array(tuple(counts), _scale_dtype(group)))
    return found


def qwix(asked: str) -> ModuleType:
    try:
        import qwix
    except ImportError as error:
        raise UserError(f'{asked} needs qwix: make install EXTRAS="quant"') from error
    return qwix
