"""What devices can do at best, as their makers publish it: peaks that MFU divides by, and the rates of a roofline."""

import functools
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

GB, GIB = 1e9, 2**30


@dataclass(frozen=True)
class Chip:
    """One device as JAX counts them: of TPU7x, and of v4 without megacore, a chip is two."""

    flops: float
    """Dense bfloat16, a second."""
    memory: float
    """Bytes that a program can have; of TPUs as their compiler tells it."""
    bandwidth: float
    """Of its memory, bytes a second."""
    link: float
    """To one neighbour, or of a GPU to all that share its switch; one way, bytes a second."""
    network: float
    """Out of its slice or its machine, one way, bytes a second."""
    wraps: int = 0
    """A dimension of the torus that its neighbours form is closed where it is a multiple of this; 0 = a switch."""


# By what `device_kind` holds; v5e and v6e call themselves "lite". From Google's pages on each TPU and NVIDIA's data
# sheets (SXM). Networks: v4's is not published, so it is taken to be v5p's; GPUs have one 400 Gbit/s card each.
CHIPS = {
    "TPU v4": Chip(275e12, 30.5 * GIB, 1228 * GB, 50 * GB, 6.25 * GB, 4),
    "TPU v5 lite": Chip(197e12, 15.75 * GIB, 819 * GB, 50 * GB, 3.125 * GB, 16),
    "TPU v5": Chip(459e12, 95.73 * GIB, 2765 * GB, 100 * GB, 6.25 * GB, 4),
    "TPU v6 lite": Chip(918e12, 31.24 * GIB, 1600 * GB, 100 * GB, 12.5 * GB, 16),
    "TPU7x": Chip(1153.5e12, 94.74 * GIB, 3690 * GB, 50 * GB, 6.25 * GB, 4),
    "A100": Chip(312e12, 80 * GB, 2039 * GB, 300 * GB, 25 * GB),
    "H100": Chip(989e12, 80 * GB, 3350 * GB, 450 * GB, 50 * GB),
    "H200": Chip(989e12, 141 * GB, 4800 * GB, 450 * GB, 50 * GB),
    "B200": Chip(2250e12, 180 * GB, 8000 * GB, 900 * GB, 50 * GB),
}


def chip_of(device_kind: str) -> tuple[str, Chip] | None:
    """The one whose name is in a device's kind, the longest if several are."""
    found = [(name, chip) for name, chip in CHIPS.items() if name in device_kind]
    return max(found, key=lambda pair: len(pair[0]), default=None)


def peak_flops(device: jax.Device) -> tuple[float, str]:
    """FLOP/s of one device, and where the figure is from; 0 where nobody knows."""
    if device.platform == "cpu":
        return _measured(), "measured: a product of two float32 matrices of 1024"
    if found := chip_of(device.device_kind):
        return found[1].flops, f"published: {found[0]}, dense bfloat16"
    return 0.0, f"unknown device {device.device_kind!r}"


@functools.cache  # what is measured differs a little each time, and all figures of a process divide by one
def _measured() -> float:
    """Of the processor we run on. All simulated devices share it, so this is for the one process."""
    x = jnp.ones((1024, 1024), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(x).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)
