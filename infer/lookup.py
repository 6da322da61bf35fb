"""Drafts by looking back: what followed the last time that a text's last tokens were there.

>>> lookup = Lookup([[7, 8, 9]], [1, 2, 3, 1, 2])
>>> lookup.draft(3)
([3, 1, 2], 2)
>>> lookup.add([8])  # seen once, in the other text
>>> lookup.draft(3)
([9], 1)
"""

from collections.abc import Sequence

import numpy as np

LONGEST = 16  # tokens that are compared: longer matches are no better
BREAK = -1  # between texts


class Lookup:
    def __init__(self, texts: Sequence[Sequence[int]], own: Sequence[int]) -> None:
        """Texts to look in, and the beginning of the one that is written. Of equal matches the last one counts."""
        self._ids = np.concatenate([np.asarray([*text, BREAK], np.int32) for text in [*texts, own]])
        self._size = len(self._ids) - 1

    def add(self, tokens: Sequence[int]) -> None:
        """They were written."""
        size = self._size + len(tokens)
        if size > len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros(len(self._ids) + len(tokens), np.int32)])
        self._ids[self._size : size] = tokens
        self._size = size

    def draft(self, most: int) -> tuple[list[int], int]:
        """At most so many tokens that may come next, and how many of the last ones were found in front of them."""
        ids = self._ids[: self._size]
        ends = np.flatnonzero(ids[:-1] == ids[-1])
        if not ends.size or ids[-1] == BREAK:
            return [], 0
        matched = 1
        while matched < min(LONGEST, len(ids)):
            longer = ends[ends >= matched]
            longer = longer[ids[longer - matched] == ids[-1 - matched]]
            if not longer.size or ids[-1 - matched] == BREAK:
                break
            ends, matched = longer, matched + 1
        drafted: list[int] = []
        for at in range(ends[-1] + 1, ends[-1] + 1 + most):
            token = int(ids[at]) if at < len(ids) else drafted[at - len(ids)]  # what repeats goes on repeating
            if token == BREAK:
                break
            drafted.append(token)
        return drafted, matched
