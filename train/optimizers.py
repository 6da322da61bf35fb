"""From gradients to what is added to the parameters, for each unit of learning rate: AdamW, Muon, Adafactor.

No rate, schedule or clipping here. Moments are float32, by name of the parameter, and split over a mesh as it is.

Weight decay is decoupled, and of what multiplies the stream: matrices and an output head of its own. Norms, biases and
the embedding have none.

Learning rates that carry over from width to width (muP, Yang et al. 2022): with `train.mup_base_width` the config
multiplies logits by base / width, and here what is added is multiplied so that each entry of a layer's output changes
by as much at any width. A model as wide as the base is trained as without.

    matrices        a sum over width, heads or feed-forward, whose terms pull one way: base / width where entries move
                    by about the rate (AdamW, Adafactor). The router is one of them.
    … by Muon       the change has singular values in proportion to the root of the width: sqrt(base / width)
    embedding       picks a row, sums nothing: 1. As a tied output table it is a sum over the width, but the multiplier
                    of the logits has divided by the width already: 1 again
    head            1, for the same reason; its start, the same at all widths, is right as well
    norms, biases   1
    decay           1: how much of a matrix is forgotten in a step does not depend on its width, or rates do not carry
                    over in long runs (Kosson et al. 2025, arXiv:2510.19093)

It holds when heads and feed-forward widen with the stream and head_dim stays the same. AdamW's epsilon must stay below
gradients of matrices, which shrink with the width.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array

from codelm.config import ModelConfig, TrainConfig
from codelm.parameters import Parameter, all_parameters
from train import adafactor, muon

Arrays = dict[str, Array]  # by name, as in codelm.parameters


class Rule(NamedTuple):
    """From gradients to directions, uphill, as optax's are; the state is a tree of arrays."""

    init: Callable[[Arrays], Any]
    update: Callable[[Arrays, Any], tuple[Arrays, Any]]


def optimizer(model: ModelConfig, train: TrainConfig) -> optax.GradientTransformation:
    """update(gradients, state, parameters) gives what to add to the parameters, times the learning rate, in float32.

    Gradients and parameters are trees of the model's arrays: a Transformer, or a dictionary by name.
    """
    table, rule = all_parameters(model), _rule(model, train)
    share = {name: _share(p, model, train) for name, p in table.items()}
    decay = {name: train.weight_decay if decays(name, p) else 0.0 for name, p in table.items()}

    def init(params: Any) -> Any:
        return rule.init(_by_name(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        uphill, state = rule.update(_by_name(updates), state)
        # By name of the weights, in the order of the tree's leaves: dictionaries that went through jax are sorted.
        added = [-share[name] * uphill[name] - decay[name] * weight for name, weight in _by_name(params).items()]
        return jax.tree.unflatten(jax.tree.structure(updates), added), state

    return optax.GradientTransformation(init, update)


def decays(name: str, parameter: Parameter) -> bool:
    """Whether weight decay is for it."""
    return parameter.is_product or name == "head"


def orthogonalised(parameter: Parameter) -> bool:
    """Whether Muon is for it: matrices of layers, except the router, which like a head ends in choices.

    The router is what is stored whole, "stream" by "stream".
    """
    return parameter.is_product and parameter.dimensions[0] == "layers" and "stream" not in parameter.dimensions


def _share(parameter: Parameter, model: ModelConfig, train: TrainConfig) -> float:
    """What muP multiplies an update by."""
    if not train.mup_base_width or not parameter.is_product:
        return 1.0
    narrower = train.mup_base_width / model.width
    return narrower**0.5 if train.optimizer == "muon" and orthogonalised(parameter) else narrower


def _rule(model: ModelConfig, train: TrainConfig) -> Rule:
    table = all_parameters(model)
    if train.optimizer == "adafactor":
        return Rule(partial(adafactor.init, table=table), partial(adafactor.update, table=table))
    scale_by_adam: Any = optax.scale_by_adam(train.beta1, train.beta2, train.epsilon)
    adam = Rule(scale_by_adam.init, scale_by_adam.update)
    if train.optimizer == "adamw":
        return adam
    settings: dict[str, Any] = {"table": table, "momentum": train.momentum, "dtype": model.compute_dtype}
    chosen = {name for name, parameter in table.items() if orthogonalised(parameter)}
    return _either(chosen, Rule(muon.init, partial(muon.update, **settings)), adam)


def _either(chosen: Collection[str], one: Rule, other: Rule) -> Rule:
    """One for the arrays chosen, the other for the rest. optax.partition's state has nodes of its own in the gaps."""

    def apart(arrays: Arrays) -> tuple[Arrays, Arrays]:
        rest = {name: x for name, x in arrays.items() if name not in chosen}
        return {name: x for name, x in arrays.items() if name in chosen}, rest

    def init(params: Arrays) -> tuple[Any, Any]:
        mine, rest = apart(params)
        return one.init(mine), other.init(rest)

    def update(gradients: Arrays, state: tuple[Any, Any]) -> tuple[Arrays, tuple[Any, Any]]:
        mine, rest = apart(gradients)
        mine, first = one.update(mine, state[0])
        rest, second = other.update(rest, state[1])
        return mine | rest, (first, second)

    return Rule(init, update)


def _by_name(tree: Any) -> Arrays:
    """The arrays of a model, or of its gradient, in float32."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda node: isinstance(node, nnx.Variable))
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf[...] for path, leaf in leaves}
    return {name: jnp.asarray(array, jnp.float32) for name, array in named.items()}
