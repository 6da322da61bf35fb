"""Words of a text, and runs of words, as 64-bit hashes: cut by NumPy, because cutting them in Python costs most.

A word is a run of letters, digits, underscores and non-ASCII bytes; everything between words (white space, punctuation)
is left out, so that reformatting a text changes nothing. Words of up to eight bytes have hashes of their own, and so
has every other word and run of words as far as 64 bits go.
"""

from functools import cache

import numpy as np
from jaxtyping import Int64, UInt64

_WORD_BYTES = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz" + bytes(range(128, 256))
IN_WORD = bytes(byte in _WORD_BYTES for byte in range(256))  # for bytes.translate
_CHUNK = 8  # bytes hashed at once
_FIRST_BYTES = np.array([2 ** (8 * count) - 1 for count in range(_CHUNK + 1)], np.uint64)
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 2**64)


def to_bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def word_spans(content: bytes) -> tuple[Int64[np.ndarray, " W"], Int64[np.ndarray, " W"]]:
    """Where each word starts and ends, in bytes."""
    inside = np.frombuffer(b"\0" + content.translate(IN_WORD) + b"\0", np.bool_)
    turns = np.flatnonzero(inside[1:] != inside[:-1])
    return turns[0::2], turns[1::2]


def span_hashes(
    content: bytes, starts: Int64[np.ndarray, " W"], ends: Int64[np.ndarray, " W"]
) -> UInt64[np.ndarray, " W"]:
    """A hash of the bytes of each word: equal bytes, equal hash, wherever they stand. The bytes are never zero."""
    chunks = np.ndarray(len(content) + 1, "<u8", content + bytes(_CHUNK), strides=(1,))  # eight bytes from each on
    sizes = ends - starts
    hashes = mixed(chunks[starts] & _FIRST_BYTES[np.minimum(sizes, _CHUNK)])
    longer = np.flatnonzero(sizes > _CHUNK)
    if len(longer):
        counts = -(-sizes[longer] // _CHUNK)
        firsts = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) - np.repeat(firsts, counts)  # of a chunk in its word
        at = np.repeat(starts[longer], counts) + _CHUNK * place
        left = np.minimum(np.repeat(ends[longer], counts) - at, _CHUNK)
        parts = mixed(chunks[at] & _FIRST_BYTES[left]) * _powers(_BASE, int(counts.max()))[place]
        hashes[longer] = mixed(np.add.reduceat(parts, firsts))
    return hashes


def words(text: str) -> UInt64[np.ndarray, " W"]:
    """One hash a word."""
    content = to_bytes(text)
    return span_hashes(content, *word_spans(content))


def ngrams(hashes: UInt64[np.ndarray, " W"], n: int) -> UInt64[np.ndarray, " G"]:
    """One hash for every n words in a row; a text of fewer words is one n-gram, an empty one none.

    With the running sum S of hashes[i] base^i, (S[i + n] - S[i]) base^-i is the same polynomial wherever a run stands.
    """
    n = min(n, len(hashes))
    if n == 0:
        return np.empty(0, np.uint64)
    running = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=running[1:])
    runs = running[n:] - running[:-n]
    runs *= _powers(_INVERSE, len(runs))
    return mixed(runs)


def polynomials(rows: UInt64[np.ndarray, "R N"]) -> UInt64[np.ndarray, " R"]:
    """One hash a row, of its values in order."""
    return mixed((rows * _powers(_BASE, rows.shape[1])).sum(axis=1, dtype=np.uint64))


def first_uses(rows: UInt64[np.ndarray, "R N"]) -> Int64[np.ndarray, "R N"]:
    """For each value, the first place in its row that holds the same."""
    first = np.zeros(rows.shape, np.int64)
    for place in reversed(range(rows.shape[1])):
        np.putmask(first, rows == rows[:, place : place + 1], place)
    return first


def mixed(values: UInt64[np.ndarray, " *N"]) -> UInt64[np.ndarray, " *N"]:
    """Every bit of the result depends on every bit of the value (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _powers(base: int, count: int) -> UInt64[np.ndarray, " N"]:
    """base^0, base^1, … modulo 2^64; kept, grown by doubling."""
    return _power_table(base, 1 << max(count - 1, 1).bit_length())[:count]


@cache
def _power_table(base: int, size: int) -> UInt64[np.ndarray, " N"]:
    return np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(size - 1, base, np.uint64))])
