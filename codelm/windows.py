"""Which layers slide: the attention window of each layer, and how a scan goes through them."""

import itertools

from codelm.config import ModelConfig


def layer_windows(config: ModelConfig) -> tuple[int, ...]:
    """The attention window of each layer; 0 = none."""
    every, first = config.full_attention_every, config.window_from_layer
    slides = [i >= first and not (every and (i + 1) % every == 0) for i in range(config.depth)]
    return tuple(config.sliding_window if slide else 0 for slide in slides)


def layer_runs(windows: tuple[int, ...]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Runs (first, last, pattern) of layers that one scan can do: one if the windows repeat, else runs of equals."""
    depth = len(windows)
    for period in range(1, depth // 2 + 1):
        if depth % period == 0 and windows == windows[:period] * (depth // period):
            return [(0, depth, windows[:period])]
    bounds = [0, *(i for i in range(1, depth) if windows[i] != windows[i - 1]), depth]
    return [(a, b, (windows[a],)) for a, b in itertools.pairwise(bounds)]
