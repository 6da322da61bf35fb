"""Whether what was drawn came as often as it should have."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping

import numpy as np


def assert_drawn(draw: Callable[[np.random.Generator], Hashable], shares: Mapping, count: int = 20_000) -> None:
    """Nothing else than what is expected, each within five standard deviations; shares need not sum to one."""
    rng = np.random.default_rng(0)
    seen = Counter(draw(rng) for _ in range(count))
    assert set(seen) <= set(shares)
    total = sum(shares.values())
    for what, share in shares.items():
        p = share / total
        assert abs(seen[what] / count - p) <= 5 * (p * (1 - p) / count) ** 0.5, what
