"""Plain data goes through as it is, nothing else does, and no text harms who reads it."""

import collections
import contextlib
import datetime
import decimal
import fractions
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codelm.sandbox_codec import Malformed, NotPlain, decode, decode_strings, encode, receive, send

_keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
_plain = st.recursive(
    _keys | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(_keys)
        | st.frozensets(_keys)
        | st.dictionaries(_keys, inner)
        | st.lists(inner).map(collections.deque)
    ),
    max_leaves=20,
)


@settings(max_examples=50)
@given(_plain)
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        collections.Counter("aab"),
        collections.OrderedDict(b=1, a=2),
        range(3, 30, 4),
        {1: 2}.keys(),
        int,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
        decimal.Decimal("0.10"),
        fractions.Fraction(1, 3),
        -0.0,
        math.inf,
        "\ud800\0\n ",
        bytearray(b"\0"),
    ],
)
def test_so_do_common_containers_and_numbers(value: object) -> None:
    back = decode(encode(value))
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)


def test_huge_ints_and_nan() -> None:
    assert decode(encode(7**9999)) == 7**9999
    nan = decode(encode(math.nan))
    assert isinstance(nan, float)
    assert math.isnan(nan)


class _Str(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("value", [object(), _Str("a"), [_Str("a")], {_Str("a"): 1}, len, collections, type, _Str])
def test_what_is_no_plain_data_is_refused(value: object) -> None:
    with pytest.raises(NotPlain):
        encode(value)


@given(st.text(alphabet="ilstdefgzqokvcrnhNTFbyu0123456789abcdef- :", max_size=40))
def test_any_text_is_a_value_or_malformed(text: str) -> None:
    with contextlib.suppress(Malformed):
        decode(text)


@pytest.mark.parametrize(
    "text",
    ["", "i", "ixyz", "l2 i1", "l99999999999 i1", "l1 " * 99 + "i1", "i1 i2", "e1 l0", "h61", "x", "nos:00", "l-1"],
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decode(text)


def test_strings_alone() -> None:
    assert decode_strings(encode(("é", "", "\ud800"))) == ("é", "", "\ud800")
    for text in ("", "t0 s61", "t2 s61", "t1 i1", "s61", "l1 s61", "t1 sxx", "t1 sff"):
        with pytest.raises(Malformed):
            decode_strings(text)


@pytest.mark.parametrize("text", ["nFraction:" + b"1e9999999999".hex(), "nFraction:" + b"1/0".hex()])
def test_no_number_is_computed_from_text(text: str) -> None:
    with pytest.raises(Malformed):
        decode(text)


def test_messages_keep_their_bounds() -> None:
    out, into = os.pipe()
    send(into, encode([1, "a"]))
    assert receive(out) == "l2 i1 s61"
    os.write(into, b"\xff\xff\xff\xff")
    with pytest.raises(Malformed):
        receive(out)
    os.close(into)
    assert receive(out) is None
    os.close(out)
