"""One optimizer step: the gradient of a batch, in one or several parts, and the update it makes.

>>> steps = make_steps(config)
>>> state, metrics = steps.whole(state, batch)                         # a batch of one part
>>> sums = steps.first(state.model, parts[0])                          # … of several
>>> sums = steps.more(state.model, sums, parts[1])
>>> state, metrics = steps.update(state, sums)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from codelm.config import Config
from codelm.model import Transformer
from codelm.train_config import TrainConfig
from train.guard import chosen, judge
from train.losses import losses, with_balanced_routers
from train.optimizers import optimizer
from train.schedules import learning_rate
from train.state import State, Sums
from train.statistics import norms, square_sums

Batch = Mapping[str, Any]  # the arrays of data.rows.Arrays, "B S"
Metrics = dict[str, Float[Array, ""]]


class Steps(NamedTuple):
    """The jitted functions of a stage. What a state or sums were is gone after: their memory is used again."""

    whole: Callable[[State, Batch], tuple[State, Metrics]]
    first: Callable[[Transformer, Batch], Sums]
    more: Callable[[Transformer, Sums, Batch], Sums]
    update: Callable[[State, Sums], tuple[State, Metrics]]


def make_steps(config: Config) -> Steps:
    transform = optimizer(config.model, config.train)
    apply = partial(updated, config, transform)

    # Named, because traces and dumps name what they show by these.
    def whole(state: State, batch: Batch) -> tuple[State, Metrics]:
        return apply(state, first(state.model, batch))

    def first(model: Transformer, batch: Batch) -> Sums:
        return sums_of(config, model, batch)

    def more(model: Transformer, sums: Sums, batch: Batch) -> Sums:
        return cast(Sums, jax.tree.map(jnp.add, sums, first(model, batch)))

    def update(state: State, sums: Sums) -> tuple[State, Metrics]:
        return apply(state, sums)

    return Steps(
        whole=jax.jit(whole, donate_argnums=0),
        first=jax.jit(first),
        more=jax.jit(more, donate_argnums=1),
        update=jax.jit(update, donate_argnums=0),
    )


def through(
    train: TrainConfig, call: Callable[..., Any], state: State, parts: Sequence[Batch]
) -> tuple[State, Metrics]:
    """A step by the functions of `Steps`, which `call` calls by name."""
    if train.accumulate == 1:
        return call("whole", state, parts[0])
    sums = call("first", state.model, parts[0])
    for part in parts[1:]:
        sums = call("more", state.model, sums, part)
    return call("update", state, sums)


def sums_of(config: Config, model: Transformer, batch: Batch) -> Sums:
    """The gradient of the loss over some rows, times the tokens they teach."""

    def total(model: Transformer) -> tuple[Float[Array, ""], Any]:
        return losses(model, config.train, batch)

    (_, aux), gradient = jax.value_and_grad(total, has_aux=True)(model)
    load = None if aux.routing is None else aux.routing.load
    weight = aux.weight
    gradient, parts, load = jax.tree.map(lambda x: x.astype(jnp.float32) * weight, (gradient, aux.parts, load))
    return Sums(gradient, parts, load, weight)


def updated(config: Config, transform: optax.GradientTransformation, state: State, sums: Sums) -> tuple[State, Metrics]:
    """The state after the update, or the same one a step on where the guard leaves it out."""
    train, weight = config.train, jnp.where(sums.weight == 0, 1.0, sums.weight)
    gradient, parts, load = jax.tree.map(lambda x: x / weight, (sums.gradient, sums.parts, sums.load))
    metrics = parts | norms("grad_norm", square_sums(gradient))
    fine, guard = judge(state.guard, train.guard, parts["loss"], metrics["grad_norm"])
    shrink = jnp.minimum(1.0, train.grad_clip / jnp.maximum(metrics["grad_norm"], 1e-20))
    rate = learning_rate(train)(state.step)
    # Without the barrier XLA copies how these are computed into the loops over every array that they go into.
    fine, shrink, rate = jax.lax.optimization_barrier((fine, shrink, rate))
    gradient = jax.tree.map(lambda g: g * shrink, gradient)
    params: Any = state.model  # a module is a pytree, which optax's own types do not know
    direction, moments = transform.update(gradient, state.optimizer, params)
    direction = jax.tree.map(lambda d: rate * d, direction)
    model = with_balanced_routers(cast(Transformer, optax.apply_updates(params, direction)), load)
    metrics |= norms("update_norm", square_sums(direction))
    metrics |= norms("parameter_norm", square_sums(model))
    model, moments = chosen(fine, (model, moments), (state.model, state.optimizer))
    metrics |= {"learning_rate": rate, "learnt_tokens": sums.weight, "skipped": guard.skipped}
    metrics |= {"skipped_in_a_row": guard.in_a_row}
    return State(state.step + 1, model, moments, guard), metrics
