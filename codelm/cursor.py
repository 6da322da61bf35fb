"""How much of a file to keep around a cursor, in training data and requests alike."""

_BEFORE_PERCENT = 70


def window(before: int, after: int, budget: int) -> tuple[int, int]:
    """How much of what is before and after the middle to keep within a budget, in whatever unit all three are.

    Seventy percent is for what is before; what one side leaves, the other may have.

    >>> window(1000, 1000, 100)
    (70, 30)
    >>> window(1000, 10, 100)
    (90, 10)
    """
    budget = max(budget, 0)
    for_before = budget * _BEFORE_PERCENT // 100
    kept_before = min(before, max(for_before, budget - after))
    return kept_before, min(after, budget - kept_before)
