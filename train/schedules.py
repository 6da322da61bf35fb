"""What changes over a run by its config alone: the learning rate, and how large the batch is."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from codelm.config import TrainConfig

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def learning_rate(train: TrainConfig) -> Schedule:
    """The rate of the update of each step, counted from 0: it warms up to the peak, then does what the config says.

    What falls would arrive at `final_fraction` one step after the last: no update is made with a rate of 0.
    """
    warmup = optax.linear_schedule(0.0, train.learning_rate, max(train.warmup_steps, 1))
    after = _after_warmup(train)
    return lambda step: jnp.minimum(warmup(jnp.asarray(step) + 1), after(jnp.asarray(step)))


def _after_warmup(train: TrainConfig) -> Schedule:
    peak, final = train.learning_rate, train.final_fraction
    if train.schedule == "wsd":
        steps = round(train.steps * train.decay_fraction)
        decay = optax.linear_schedule(peak, peak * final, max(steps, 1))
        return lambda step: jnp.asarray(decay(step - (train.steps - steps)))
    if train.schedule == "cosine":
        decay = optax.cosine_decay_schedule(peak, max(train.steps - train.warmup_steps, 1), alpha=final)
        # A cosine is even: before its beginning it would fall as well.
        return lambda step: jnp.asarray(decay(jnp.maximum(step - train.warmup_steps, 0)))
    return lambda step: jnp.asarray(peak, jnp.float32)


def parts(train: TrainConfig, step: int) -> int:
    """Of how many of the `accumulate` parts the batch of this step is: one at step 0, all from `batch_warmup_steps`."""
    return sum(step >= first for first in _first_steps(train))


def parts_before(train: TrainConfig, step: int) -> int:
    """Parts of all steps before this one: where in the data its batch begins."""
    return sum(max(step - first, 0) for first in _first_steps(train))


def _first_steps(train: TrainConfig) -> list[int]:
    """For each part, the first step that has it."""
    more = train.accumulate - 1
    return [0, *(-(-n * train.batch_warmup_steps // more) for n in range(1, more + 1))]
