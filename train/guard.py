"""Which updates are left out: those whose loss or gradient is not finite, or far outside what the last steps had."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from codelm.train_config import GuardConfig

_AS_NORMAL = 1.4826  # deviations of a normal distribution in one median absolute deviation
_LEAST = 0.02  # of the median: a history that hardly varies does not make the next step an outlier


class Guard(NamedTuple):
    """The history of the steps that were taken."""

    losses: Float[Array, " W"]
    norms: Float[Array, " W"]
    taken: Int[Array, ""]
    skipped: Int[Array, ""]
    in_a_row: Int[Array, ""]
    """Of those left out, how many until now."""


def new_guard(window: int) -> Guard:
    history = [jnp.full(window, jnp.nan, jnp.float32) for _ in range(2)]
    return Guard(*history, *(jnp.zeros((), jnp.int32) for _ in range(3)))  # each its own memory, to be used again


def judge(
    guard: Guard, config: GuardConfig, loss: Float[Array, ""], norm: Float[Array, ""]
) -> tuple[Bool[Array, ""], Guard]:
    """Whether to take the step, and the history with it."""
    fine = jnp.isfinite(loss) & jnp.isfinite(norm)
    if config.deviations:
        known = guard.taken >= config.window // 2
        for value, history in ((loss, guard.losses), (norm, guard.norms)):
            fine &= ~(known & (value > _bound(history, config.deviations)))
    place = guard.taken % config.window
    return fine, Guard(
        losses=guard.losses.at[place].set(jnp.where(fine, loss, guard.losses[place])),
        norms=guard.norms.at[place].set(jnp.where(fine, norm, guard.norms[place])),
        taken=guard.taken + fine,
        skipped=guard.skipped + ~fine,
        in_a_row=jnp.where(fine, 0, guard.in_a_row + 1),
    )


def _bound(history: Float[Array, " W"], deviations: float) -> Float[Array, ""]:
    median = jnp.nanmedian(history)
    deviation = _AS_NORMAL * jnp.nanmedian(jnp.abs(history - median))
    return median + deviations * jnp.maximum(deviation, _LEAST * median)


def chosen[Tree](fine: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """The new values, or the old ones where the step is left out."""
    return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
