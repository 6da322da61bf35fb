"""What devices can do at best: the peak that MFU divides by."""

import functools
import time

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s of one device as its maker publishes it; TPU v5e and v6e call themselves "lite".
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}


def peak_flops(device: jax.Device) -> tuple[float, str]:
    """FLOP/s of one device, and where the figure is from; 0 where nobody knows."""
    if device.platform == "cpu":
        return _measured(), "measured: a product of two float32 matrices of 1024"
    for name, flops in sorted(PEAKS.items(), key=lambda item: -len(item[0])):
        if name in device.device_kind:
            return flops, f"published: {name}, dense bfloat16"
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
