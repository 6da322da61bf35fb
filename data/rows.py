"""Documents side by side in a row of a batch."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float32, Int32

from codelm.formats import Role
from data.writing import Written

PADDING = -1  # the segment of positions that hold nothing; the model attends to and from none of them


class Arrays(TypedDict):
    """What the training step takes: a row, or rows on a leading axis."""

    tokens: Int32[np.ndarray, "*B S"]
    targets: Int32[np.ndarray, "*B S"]
    loss_weights: Float32[np.ndarray, "*B S"]
    positions: Int32[np.ndarray, "*B S"]
    segment_ids: Int32[np.ndarray, "*B S"]


def lay(documents: Sequence[Written], seq_len: int, pad: int, replies_only: Sequence[bool]) -> Arrays:
    """The row. Each position reads a token and learns the next of its document; of a conversation, replies only."""
    row = Arrays(
        tokens=np.full(seq_len, pad, np.int32),
        targets=np.full(seq_len, pad, np.int32),
        loss_weights=np.zeros(seq_len, np.float32),
        positions=np.zeros(seq_len, np.int32),
        segment_ids=np.full(seq_len, PADDING, np.int32),
    )
    at = 0
    for number, (document, replies) in enumerate(zip(documents, replies_only, strict=True)):
        stop = at + document.positions
        row["tokens"][at:stop] = document.ids[:-1]
        row["targets"][at:stop] = document.ids[1:]
        row["loss_weights"][at:stop] = np.equal(document.roles[1:], Role.ASSISTANT) if replies else 1.0
        row["positions"][at:stop] = np.arange(document.positions)
        row["segment_ids"][at:stop] = number
        at = stop
    return row


def copied(arrays: Arrays) -> Arrays:
    return Arrays(
        tokens=np.array(arrays["tokens"]),
        targets=np.array(arrays["targets"]),
        loss_weights=np.array(arrays["loss_weights"]),
        positions=np.array(arrays["positions"]),
        segment_ids=np.array(arrays["segment_ids"]),
    )


def stack(rows: Sequence[Arrays]) -> Arrays:
    return Arrays(
        tokens=np.stack([row["tokens"] for row in rows]),
        targets=np.stack([row["targets"] for row in rows]),
        loss_weights=np.stack([row["loss_weights"] for row in rows]),
        positions=np.stack([row["positions"] for row in rows]),
        segment_ids=np.stack([row["segment_ids"] for row in rows]),
    )
