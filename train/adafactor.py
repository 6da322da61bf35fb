"""Adafactor: Adam's second moment, kept as one number a row and one a column of each matrix (Shazeer & Stern 2018).

optax's takes an array's two largest axes for the matrix, which in a stack of layers they are not: query is stored
[layers, width, heads, head_dim]. Here the parameter table says which axes are summed over and which come out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from codelm.parameters import Parameter

DECAY = 0.8  # the moments of step t remember 1 - t^-0.8
TINY = 1e-30
LARGEST = 1.0  # root mean square of an update


class AdafactorState(NamedTuple):
    count: Int[Array, ""]
    rows: dict[str, Array]
    """Of matrices: mean squares over what comes out."""
    columns: dict[str, Array]
    """… over what is summed over."""
    whole: dict[str, Array]
    """Squares, of what is no matrix."""


def init(params: dict[str, Array], table: Mapping[str, Parameter]) -> AdafactorState:
    matrices = {name: x for name, x in params.items() if table[name].start not in ("one", "zero")}
    return AdafactorState(
        count=jnp.zeros((), jnp.int32),
        rows={name: jnp.zeros_like(x.sum(_outputs(table[name]))) for name, x in matrices.items()},
        columns={name: jnp.zeros_like(x.sum(_inputs(table[name]))) for name, x in matrices.items()},
        whole={name: jnp.zeros_like(x) for name, x in params.items() if name not in matrices},
    )


def update(
    gradients: dict[str, Array], state: AdafactorState, table: Mapping[str, Parameter]
) -> tuple[dict[str, Array], AdafactorState]:
    """Directions (uphill, as optax's) for arrays by name, each a stack of matrices or vectors as the table says.

    No first moment, and no step in proportion to the weights: entries move by about one at most, as Adam's do.
    """
    count = state.count + 1
    keep = 1.0 - count.astype(jnp.float32) ** -DECAY
    squares = {name: jnp.square(gradient) + TINY for name, gradient in gradients.items()}

    def moved(old: Array, new: Array) -> Array:
        return keep * old + (1.0 - keep) * new

    state = AdafactorState(
        count,
        rows={name: moved(old, squares[name].mean(_outputs(table[name]))) for name, old in state.rows.items()},
        columns={name: moved(old, squares[name].mean(_inputs(table[name]))) for name, old in state.columns.items()},
        whole={name: moved(old, squares[name]) for name, old in state.whole.items()},
    )
    return {name: _direction(gradient, table[name], name, state) for name, gradient in gradients.items()}, state


def _direction(gradient: Float[Array, "..."], parameter: Parameter, name: str, state: AdafactorState) -> Array:
    own = tuple(range(parameter.stacked, gradient.ndim))  # the axes of one matrix or vector
    if name in state.whole:
        out = gradient * jax.lax.rsqrt(state.whole[name])
    else:
        rows = jnp.expand_dims(state.rows[name], _outputs(parameter))
        columns = jnp.expand_dims(state.columns[name], _inputs(parameter))
        out = gradient * jax.lax.rsqrt(rows / rows.mean(own, keepdims=True)) * jax.lax.rsqrt(columns)
    rms = jnp.sqrt(jnp.mean(jnp.square(out), axis=own, keepdims=True))
    return out / jnp.maximum(1.0, rms / LARGEST)


def _inputs(parameter: Parameter) -> tuple[int, ...]:
    return tuple(range(parameter.stacked, parameter.stacked + parameter.fan_in))


def _outputs(parameter: Parameter) -> tuple[int, ...]:
    return tuple(range(parameter.stacked + parameter.fan_in, len(parameter.shape)))
