"""How many pages of keys and values there are, from a figure in bytes or from what the device has free."""

import os
from collections.abc import Mapping

import jax

from codelm.arithmetic import BYTES
from codelm.attention import explicit_axes
from codelm.config import ModelConfig
from codelm.errors import UserError
from codelm.windows import layer_windows

ROOM = 2  # times what running texts take at most: the rest is for what they and later ones share
SHARE = 0.25  # of a machine's memory, at most; its other programs want some too
ACCELERATOR_SHARE = 0.8  # of what is free once the weights are there: views and programs take theirs


def pages_of_one(config: ModelConfig, context: int, adds: int, page: int) -> dict[int, int]:
    """Pages that a text of full length takes in the layers of each window, when calls add so many tokens to it."""
    windows = sorted(set(layer_windows(config)))
    tokens = {window: min(window + adds, context + adds) if window else context + 1 for window in windows}
    return {window: -(-count // page) + bool(window) for window, count in tokens.items()}


def page_bytes(config: ModelConfig, window: int, page: int, dtype: str) -> int:
    """Bytes of a page in all layers with a window, on each device."""
    layers = layer_windows(config).count(window)
    head = config.head_dim * BYTES[dtype] + (4 if dtype == "int8" else 0)
    return layers * page * (config.kv_heads // explicit_axes().get("tensor", 1)) * 2 * head


def count_pages(
    config: ModelConfig, of_one: Mapping[int, int], rows: int, page: int, dtype: str, memory: int
) -> dict[int, int]:
    """Pages for the layers of each window: of a memory in bytes, or (0) for some rows of full length if there is room.

    At least one text of full length fits, or it is refused.
    """
    bytes_of_one = sum(count * page_bytes(config, window, page, dtype) for window, count in of_one.items())
    texts = (memory or min(ROOM * rows * bytes_of_one, _about(free_bytes()))) / bytes_of_one
    if texts < 1:
        raise UserError(
            f"{texts * bytes_of_one / 2**20:,.1f} MiB for keys and values do not hold one text of full length "
            f"({bytes_of_one / 2**20:,.1f} MiB): give more memory, or a smaller context"
        )
    return {window: int(count * texts) for window, count in of_one.items()}


def _about(size: int) -> int:
    """A little less, in three leading bits: programs are compiled for a number of pages, and free memory varies."""
    step = 1 << max(size.bit_length() - 3, 0)
    return size // step * step


def free_bytes() -> int:
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(ACCELERATOR_SHARE * (stats["bytes_limit"] - stats["bytes_in_use"]))
    return int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
