"""Matrix products of training in eight bits: both sides are rounded, forward and in both products of backward.

Each side is scaled by its largest value along what is summed over (a scale for each token, each output), so a product
is of eight-bit numbers and the scales multiply its result. Rounding and products are qwix's. Its own way in, which
replaces the products of a running model, drops out_sharding and so fails on a mesh; here are the three products.
"""

from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from codelm.errors import UserError
from codelm.sharding import has_mesh

DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}
# What the largest value becomes the largest number by. For int8 qwix means 127.5, a tie that noise would decide.
CALIBRATION = {"int8": f"absmax,{127.5 / 127}", "float8_e4m3fn": "absmax"}


def product(
    subscripts: str,
    x: Float[Array, "B S ..."],
    weight: Float[Array, "..."],
    matmuls: str = "",
    out_sharding: PartitionSpec | None = None,
) -> Float[Array, "B S ..."]:
    """einsum, in the bits that `matmuls` (see TrainConfig) asks for. Axes: x's own, those summed over, the weight's."""
    if not matmuls:
        return jnp.einsum(subscripts, x, weight, out_sharding=out_sharding)
    return _rounded_product(subscripts, DTYPES[matmuls], out_sharding, x, weight)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _rounded_product(
    subscripts: str, dtype: str, out_sharding: PartitionSpec | None, x: Float[Array, "..."], weight: Float[Array, "..."]
) -> Float[Array, "..."]:
    return _multiply(subscripts, x, weight, dtype, out_sharding)


def _forward(
    subscripts: str, dtype: str, out_sharding: PartitionSpec | None, x: Float[Array, "..."], weight: Float[Array, "..."]
) -> tuple[Float[Array, "..."], tuple[Float[Array, "..."], Float[Array, "..."]]]:
    return _multiply(subscripts, x, weight, dtype, out_sharding), (x, weight)


def _backward(
    subscripts: str,
    dtype: str,
    out_sharding: PartitionSpec | None,
    kept: tuple[Float[Array, "..."], Float[Array, "..."]],
    gradient: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    x, weight = kept
    ins, out = subscripts.split("->")
    left, right = ins.split(",")
    x_gradient = _multiply(f"{out},{right}->{left}", gradient, weight, dtype, _split_as(x))
    return x_gradient, _multiply(f"{left},{out}->{right}", x, gradient, dtype, _split_as(weight))


_rounded_product.defvjp(_forward, _backward)


def _multiply(
    subscripts: str,
    x: Float[Array, "..."],
    y: Float[Array, "..."],
    dtype: str,
    out_sharding: PartitionSpec | None,
) -> Float[Array, "..."]:
    """The product of both sides rounded, summed exactly (int8) or in float32, in the dtype of x."""
    qwix = _qwix()
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


def _qwix() -> ModuleType:
    try:
        import qwix
    except ImportError as error:
        raise UserError('train.matmuls needs qwix: make install EXTRAS="quant", or leave it empty') from error
    return qwix
