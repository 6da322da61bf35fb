"""What training carries from step to step, and nothing else: contract 4."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from codelm.model import Transformer
from train.guard import Guard, new_guard


class State(NamedTuple):
    """A pytree; its arrays are where the mesh that is set puts them."""

    step: Int[Array, ""]
    """Updates done or left out."""
    model: Transformer
    optimizer: Any
    guard: Guard


def new_state(model: Transformer, transform: optax.GradientTransformation, window: int) -> State:
    params: Any = model  # a module is a pytree, which optax's own types do not know
    return State(jnp.zeros((), jnp.int32), model, jax.jit(transform.init)(params), new_guard(window))


class Sums(NamedTuple):
    """Gradients of some rows, and what else adds up over the parts of a batch: each weighted by the tokens learnt."""

    gradient: Any
    """Shaped like the model."""
    parts: dict[str, Float[Array, ""]]
    """The terms of the loss and what is watched beside them."""
    load: Float[Array, "L E"] | None
    """Of routers, where there are any."""
    weight: Float[Array, ""]
    """Tokens learnt."""
