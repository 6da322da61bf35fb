"""The products of activations with stored parameters: sharded, and in eight bits where training asks for it.

Parameters that are stored in fewer bits, for serving, are `codelm.quantised`'s; no gradient goes to those.

On a mesh a parameter is gathered where it is used, in forward and again in backward, and its gradient is asked for
where the parameter is stored: XLA then sums it over devices piece by piece beside the product, without ever having it
whole. (Left to autodiff it would be summed whole on every device and then cut.)

In eight bits both sides are rounded, forward and in both products of backward: each side is scaled by its largest value
along what is summed over (a scale for each token, each output), so a product is of eight-bit numbers and the scales
multiply its result. Rounding and products are qwix's. Its own way in, which replaces the products of a running model,
drops out_sharding and so fails on a mesh; here are the three products.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from codelm import quantised
from codelm.quantised import CALIBRATION, Quantised, Stored
from codelm.sharding import gathered, has_mesh

DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}


def product(
    subscripts: str,
    x: Float[Array, "B S ..."],
    weight: Stored,
    dimensions: tuple[str, ...],
    matmuls: str = "",
    out_sharding: PartitionSpec | None = None,
) -> Float[Array, "B S ..."]:
    """einsum of x and a parameter as it is stored, whose dimensions mean `dimensions` (see `codelm.sharding`).

    In the dtype of x, or the bits that `matmuls` (see TrainConfig) asks for. Axes: x's own, those summed over, the
    weight's. out_sharding where what is summed over is split, so that parts add up across devices.
    """
    if isinstance(weight, Quantised):
        if weight.is_multiplied:
            return quantised.product(subscripts, x, weight).astype(x.dtype)
        # Gathered as it is stored: fewer bytes than what is made of it.
        weight = Quantised(gathered(weight.values, *dimensions), weight.scales).restored(x.dtype)
    if not matmuls and not has_mesh():
        left, right = subscripts.split("->")[0].split(",")
        if not right.startswith(left[2:]):
            return jnp.einsum(subscripts, x, weight.astype(x.dtype))
        # As a product of matrices: of two axes summed over, einsum has XLA copy the weight, transposed, every time.
        own, out = x.shape[:2], weight.shape[x.ndim - 2 :]
        return (x.reshape(*own, -1) @ weight.astype(x.dtype).reshape(-1, math.prod(out))).reshape(*own, *out)
    return _product(subscripts, dimensions, DTYPES[matmuls] if matmuls else "", out_sharding, x, weight)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _product(
    subscripts: str,
    dimensions: tuple[str, ...],
    dtype: str,
    out_sharding: PartitionSpec | None,
    x: Float[Array, "..."],
    weight: Float[Array, "..."],
) -> Float[Array, "..."]:
    return _multiply(subscripts, x, gathered(weight.astype(x.dtype), *dimensions), dtype, out_sharding)


def _forward(
    subscripts: str,
    dimensions: tuple[str, ...],
    dtype: str,
    out_sharding: PartitionSpec | None,
    x: Float[Array, "..."],
    weight: Float[Array, "..."],
) -> tuple[Float[Array, "..."], tuple[Float[Array, "..."], Float[Array, "..."]]]:
    return _product(subscripts, dimensions, dtype, out_sharding, x, weight), (x, weight)


def _backward(
    subscripts: str,
    dimensions: tuple[str, ...],
    dtype: str,
    out_sharding: PartitionSpec | None,
    kept: tuple[Float[Array, "..."], Float[Array, "..."]],
    gradient: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    x, weight = kept
    ins, out = subscripts.split("->")
    left, right = ins.split(",")
    whole = gathered(weight.astype(x.dtype), *dimensions)
    x_gradient = _multiply(f"{out},{right}->{left}", gradient, whole, dtype, _split_as(x))
    weight_gradient = _multiply(f"{left},{out}->{right}", x, gradient, dtype, _split_as(weight))
    return x_gradient, weight_gradient.astype(weight.dtype)


_product.defvjp(_forward, _backward)


def _multiply(
    subscripts: str,
    x: Float[Array, "..."],
    y: Float[Array, "..."],
    dtype: str,
    out_sharding: PartitionSpec | None,
) -> Float[Array, "..."]:
    """The product, of both sides rounded if to a dtype, then summed exactly (int8) or in float32; in the dtype of x."""
    if not dtype:
        return jnp.einsum(subscripts, x, y, out_sharding=out_sharding)
    qwix = quantised.qwix("train.matmuls")
    left, right = subscripts.split("->")[0].split(",")
    summed = [letter for letter in left if letter in right]
    sides = []
    for letters, side in ((left, x), (right, y)):
        own = [axis for axis, letter in enumerate(letters) if letter not in summed]
        # In float32: a bfloat16 scale, or a value over it, would be rounded before it is rounded.
        wide = side.astype(jnp.float32)
        sides.append(qwix.quantize(wide, dtype, channelwise_axes=own, calibration_method=CALIBRATION[dtype]))
    axes = tuple(tuple(letters.index(letter) for letter in summed) for letters in (left, right))
    return qwix.dot_general(*sides, (axes, ((), ())), out_sharding=out_sharding).astype(x.dtype)


def _split_as(x: Float[Array, "..."]) -> PartitionSpec | None:
    """A gradient is split over the mesh as what it is of."""
    return jax.typeof(x).sharding.spec if has_mesh() else None
