"""What training minimises on a batch, and the figures that say how it went.

    (total, aux), gradient = jax.value_and_grad(losses, has_aux=True)(model, config.train, batch)

Every term but the routers' is a sum over tokens divided by the tokens learnt (aux.weight), so that batches add up: the
means of the parts of a batch, weighted by their aux.weight, are the mean of the batch, and so are the gradients.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from codelm.config import ModelConfig, TrainConfig
from codelm.loss import cross_entropy
from codelm.model import PAD, Transformer, look_ahead
from codelm.moe import MoEStats, update_bias
from codelm.sharding import place

Batch = Mapping[str, Any]  # the arrays of data.rows.Arrays, "B S"
Parts = dict[str, Float[Array, ""]]


class Aux(NamedTuple):
    """What goes with the total of a batch."""

    parts: Parts
    """Figures to write down, float32."""
    weight: Float[Array, ""]
    """Tokens learnt."""
    routing: MoEStats | None
    """Each layer's, stacked."""


def losses(model: Transformer, train: TrainConfig, batch: Batch) -> tuple[Float[Array, ""], Aux]:
    """The total to minimise, in nats a token, and its parts:

    loss        cross-entropy of the next token
    accuracy    share of tokens whose likeliest next token is right
    z_loss      train.z_loss times the mean squared log-partition
    mtp_loss/n  cross-entropy of the head that predicts the n-th next token, where the document has one
    moe/…       see `routing_losses`
    """
    config, options = model.config, _head_options(model.config)
    if train.matmuls:
        model = Transformer(config, model.arrays(), train.matmuls)
    hidden, _, routing = model.hidden(batch["tokens"], batch["positions"], batch["segment_ids"])
    targets, weights = jnp.asarray(batch["targets"]), jnp.asarray(batch["loss_weights"])
    total, stats = cross_entropy(hidden, model.output_table, targets, weights, z_weight=train.z_loss, **options)
    tokens = jnp.where(stats.weight == 0, 1.0, stats.weight)
    parts = {"loss": stats.cross_entropy / tokens, "accuracy": stats.correct / tokens, "z_loss": stats.z / tokens}
    if routing is not None:
        routed, figures = routing_losses(config, routing)
        total, parts = total + routed, parts | figures
    if config.mtp_heads:
        ahead = ahead_losses(model, hidden, batch) / tokens
        total += train.mtp_weight * ahead.mean()
        parts |= {f"mtp_loss/{head + 2}": ahead[head] for head in range(config.mtp_heads)}
    return total, Aux(parts, stats.weight, routing)


def routing_losses(config: ModelConfig, routing: MoEStats) -> tuple[Float[Array, ""], Parts]:
    """The routers' terms of the total, and figures over all layers.

    moe/balance   1 when the load is even, up to the number of experts when one has it all
    moe/z         mean squared log-partition of the routers
    moe/dropped   share of the assignments that found their expert full
    moe/max_load  the busiest expert's load, in even shares
    """
    moe = config.moe
    parts = {
        "moe/balance": routing.balance_loss.mean(),
        "moe/z": routing.z_loss.mean(),
        "moe/dropped": routing.dropped.mean(),
        "moe/max_load": routing.load.max() * moe.experts,
    }
    balance = moe.balance_weight * parts["moe/balance"] if moe.balance == "loss" else 0.0
    return moe.router_z_weight * parts["moe/z"] + balance, parts


def ahead_losses(model: Transformer, hidden: Float[Array, "B S D"], batch: Batch) -> Float[Array, " heads"]:
    """Cross-entropy, summed over tokens, of each head that looks further ahead.

    The heads are scanned over: one at a time has a chunk of logits and one gradient of the table is kept, not many.
    """
    table, options = model.output_table, _head_options(model.config)
    ahead = [targets_ahead(batch, head + 1) for head in range(model.config.mtp_heads)]
    targets, weights = (place(jnp.stack(each), "layers", "batch", "sequence") for each in zip(*ahead, strict=True))

    def head(carry: None, own: tuple[Array, Array, Array, Array]) -> tuple[None, Float[Array, ""]]:
        up, down, targets, weights = own
        # Computed anew for backward: next to the product with the table it costs little, and keeping it much.
        stream = jax.checkpoint(look_ahead, prevent_cse=False)(hidden, up, down)
        mean, stats = cross_entropy(stream, table, targets, weights, **options)
        return carry, mean * stats.weight

    return jax.lax.scan(head, None, (model.mtp_up[...], model.mtp_down[...], targets, weights))[1]


def with_balanced_routers(model: Transformer, load: Float[Array, "L E"] | None) -> Transformer:
    """The model with each router's bias moved towards an even load; nothing to do unless it balances by bias.

    No gradient moves these biases, so this comes after the update; `load` is that of Aux.routing.
    """
    if load is None or model.config.moe.balance != "bias":
        return model
    move = jax.vmap(partial(update_bias, rate=model.config.moe.balance_weight))
    model.blocks.router_bias[...] = move(model.blocks.router_bias[...], load)
    return model


def targets_ahead(batch: Batch, further: int) -> tuple[Int[Array, "B S"], Float[Array, "B S"]]:
    """The target that is `further` positions on, and its weight: 0 where the document ends before it."""
    # Whole along the sequence while they are moved along it, whatever the mesh: these are small.
    names = ("targets", "loss_weights", "segment_ids")
    targets, weights, segments = (place(jnp.asarray(batch[name]), "batch", "slots") for name in names)

    def later(x: Array, fill: int) -> Array:
        return jnp.pad(x, ((0, 0), (0, further)), constant_values=fill)[:, further:]

    same = later(segments, PAD) == segments
    return later(targets, 0), jnp.where(same, later(weights, 0), 0.0)


def _head_options(config: ModelConfig) -> dict[str, Any]:
    """How the output table turns a stream into logits."""
    return {"logit_multiplier": config.logit_multiplier, "softcap": config.logit_softcap}
