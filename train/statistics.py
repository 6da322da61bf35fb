"""Norms by group of parameters: attention, feed-forward, embeddings and the rest apart."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ATTENTION = ("query", "key", "value", "out")


def group(path: str) -> str:
    """The group of a parameter by its name."""
    name = path.split(".")[-1]
    if "norm" in name:
        return "norms"
    if path.startswith("mtp"):
        return "mtp"
    if name in ("embedding", "head") or name.startswith("router"):
        return name.split("_")[0]
    return "attention" if name.split("_")[0] in _ATTENTION else "mlp"


def square_sums(tree: Any) -> dict[str, Float[Array, ""]]:
    """Sums of squares by group, of a tree shaped like the model."""
    sums: dict[str, Float[Array, ""]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = group(jax.tree_util.keystr(path).removesuffix(".value").lstrip("."))
        sums[name] = sums.get(name, jnp.zeros(())) + jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    return sums


def norms(prefix: str, sums: dict[str, Float[Array, ""]]) -> dict[str, Float[Array, ""]]:
    """The norm of everything and of each group."""
    whole = jnp.sqrt(sum(sums.values(), jnp.zeros(())))
    return {prefix: whole, **{f"{prefix}/{name}": jnp.sqrt(value) for name, value in sorted(sums.items())}}
