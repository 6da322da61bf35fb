"""Which host is slow.

A step ends for all at once, so what tells is each host's own work: making batches, dispatching.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

_FAR = 2.0  # times the median


def slowest(busy: float) -> str | None:
    """The host that is far slower than the others, by the seconds each was busy; one small gather, on all hosts."""
    if jax.process_count() == 1:
        return None
    return told(np.asarray(multihost_utils.process_allgather(np.float32(busy))).reshape(-1))


def told(seconds: Float[np.ndarray, " H"]) -> str | None:
    worst, median = int(seconds.argmax()), float(np.median(seconds))
    if seconds[worst] <= _FAR * median:
        return None
    return f"host {worst} is slow: busy {seconds[worst]:.2f} s where the median is {median:.2f} s"
