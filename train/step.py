"""One optimizer step: next-token loss, AdamW, warm-up then linear decay."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from codelm.config import TrainConfig
from codelm.loss import cross_entropy
from codelm.model import Transformer
from codelm.moe import MoEStats, update_bias

Batch = Mapping[str, Any]  # the arrays of data.rows.Arrays, "B S"
Step = Callable[[Transformer, optax.OptState, Batch], tuple[Transformer, optax.OptState, Float[Array, ""]]]


def loss(model: Transformer, batch: Batch) -> Float[Array, ""]:
    """What training minimises."""
    return loss_and_routing(model, batch)[0]


def loss_and_routing(model: Transformer, batch: Batch) -> tuple[Float[Array, ""], MoEStats | None]:
    """Mean cross-entropy in nats a token plus the routers' terms, and each layer's routing statistics."""
    config, targets = model.config, batch["targets"]
    hidden, _, routing = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])
    head = {"logit_multiplier": config.logit_multiplier, "softcap": config.logit_softcap}
    total, _ = cross_entropy(hidden, model.output_table, targets, batch["loss_weights"], **head)
    if routing is not None:
        total += config.moe.router_z_weight * routing.z_loss.mean()
        if config.moe.balance == "loss":
            total += config.moe.balance_weight * routing.balance_loss.mean()
    return total, routing


def with_balanced_routers(model: Transformer, routing: MoEStats | None) -> Transformer:
    """The model with each router's bias moved towards an even load; nothing to do unless it balances by bias."""
    if routing is None or model.config.moe.balance != "bias":
        return model
    move = jax.vmap(partial(update_bias, rate=model.config.moe.balance_weight))
    model.blocks.router_bias[...] = move(model.blocks.router_bias[...], routing.load)
    return model


def schedule(train: TrainConfig) -> optax.Schedule:
    """Warm-up, stable, linear decay to zero over the last `decay_fraction` of the steps."""
    decay_steps = round(train.steps * train.decay_fraction)
    warmup = optax.linear_schedule(0.0, train.learning_rate, max(train.warmup_steps, 1))
    decay = optax.linear_schedule(train.learning_rate, 0.0, max(decay_steps, 1))
    return lambda step: jnp.minimum(warmup(step + 1), decay(step - (train.steps - decay_steps)))


def optimizer(train: TrainConfig) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(train.grad_clip),
        optax.adamw(schedule(train), train.beta1, train.beta2, weight_decay=train.weight_decay, mask=_decayed),
    )


def _decayed(params: Any) -> Any:
    """Weight decay is for matrices: norms, biases and the embedding keep their scale."""
    kept = ("norm", "bias", "embedding")
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not any(word in jax.tree_util.keystr(path) for word in kept), params
    )


def make_step(transform: optax.GradientTransformation) -> Step:
    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        model: Transformer, state: optax.OptState, batch: Batch
    ) -> tuple[Transformer, optax.OptState, Float[Array, ""]]:
        (value, routing), gradient = jax.value_and_grad(loss_and_routing, has_aux=True)(model, batch)
        params: Any = model  # a module is a pytree, which optax's own types do not know
        updates, state = transform.update(gradient, state, params)
        model = cast(Transformer, optax.apply_updates(params, updates))
        return with_balanced_routers(model, routing), state, value

    return step
