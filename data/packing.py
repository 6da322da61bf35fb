"""Which segments share a row."""

import numpy as np
from jaxtyping import Int, UInt32

WINDOW = 1 << 17  # segments packed together: bounds memory, and keeps rows from being sorted by length over a corpus


def best_fit(
    lengths: Int[np.ndarray, " N"], capacity: int, window: int = WINDOW
) -> tuple[UInt32[np.ndarray, " N"], Int[np.ndarray, " R"]]:
    """Rows of at most `capacity`: the longest first, each into the row where it leaves the least space.

    Returns the items row by row, and how many each row has.
    """
    orders, counts = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    for start in range(0, len(lengths), window):
        rows = _rows_of(lengths[start : start + window], capacity)
        by_row = np.argsort(rows, kind="stable")
        orders.append((start + by_row).astype(np.uint32))
        counts.append(np.bincount(rows))
    return np.concatenate(orders), np.concatenate(counts)


def _rows_of(lengths: Int[np.ndarray, " N"], capacity: int) -> Int[np.ndarray, " N"]:
    """The row of each item."""
    rows, count = np.empty(len(lengths), np.int64), 0
    with_space: dict[int, list[int]] = {}  # space → rows that have it
    spaces = 0  # bit s: some row has space s
    order = np.argsort(-lengths, kind="stable")
    for item, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if fitting := spaces >> length:
            space = length + (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space, row, count = capacity, count, count + 1
        rows[item] = row
        if left := space - length:
            with_space.setdefault(left, []).append(row)
            spaces |= 1 << left
    return rows
