"""JSON with one meaning or none: what a lenient parser would take is refused, by ValueError and nothing else."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.both_readers import parse_object


def nested(depth: int) -> bytes:
    """Return an object that is `depth` deep, with everything in it."""
    inside = "[" * (depth - 1) + "]" * (depth - 1)
    return f'{{"x":{inside}}}'.encode() if inside else b"{}"


def test_values_of_every_type() -> None:
    data = b' { "a" : [1, -2, 1.5, 1e3, true, false, null, "\\u00e9\\n"] , "b" : {} } '
    assert parse_object(data, depth=2) == {"a": [1, -2, 1.5, 1000.0, True, False, None, "é\n"], "b": {}}


def test_equal_names_in_different_objects_are_fine() -> None:
    assert parse_object(b'{"a":{"a":[{"a":1},{"a":2}]}}', depth=4)["a"] == {"a": [{"a": 1}, {"a": 2}]}


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_depth_counts_the_outermost_as_1(depth: int) -> None:
    parse_object(nested(depth), depth=depth)
    with pytest.raises(ValueError, match="deep"):
        parse_object(nested(depth + 1), depth=depth)


def test_brackets_in_strings_and_side_by_side_do_not_nest() -> None:
    inside = json.dumps({"a": "[" * 50 + '\\"{' * 50, "b[[[": 1, "c": [[], [], {}], "d": "\\"}).encode()
    assert parse_object(inside, depth=3)["c"] == [[], [], {}]


def test_a_long_text_is_counted_to_its_end() -> None:
    many = json.dumps(["[", '"{', "]]]\\"]).encode() + b","
    long = b'{"x":[' + many * 10_000 + b"[[{}]]]}"
    assert parse_object(long, depth=5)["x"] == [["[", '"{', "]]]\\"]] * 10_000 + [[[{}]]]
    with pytest.raises(ValueError, match="deep"):
        parse_object(long, depth=4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(nested(sys.getrecursionlimit() * 4), id="arrays"),
        pytest.param(b'{"x":' * 5000 + b"1" + b"}" * 5000, id="objects"),
        pytest.param(b'{"x":' + b"[" * 50_000, id="arrays that never end"),
        pytest.param(b'{"a":"\\"[","x":' + b"[" * 50_000, id="after a string with a quote"),
        pytest.param(b'{"a":"' + b"[" * 50_000, id="inside a string that never ends"),
        # A search that began again at each quote would take minutes for these.
        pytest.param(b"[" * 9 + b'"' + b'\\"' * 200_000, id="escaped quotes that never end"),
        pytest.param(b"[" * 9 + b'"' + b'\\"' * 200_000 + b"\\", id="escaped quotes up to a lone backslash"),
    ],
)
def test_nesting_never_reaches_the_parsers_recursion(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- any text of it
        parse_object(data, depth=8)


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"}", b"[]", b"1", b"null", b"{}{}", b"{} x", b"\xff", b'{"a":"\xc3"}', b"\xef\xbb\xbf{}",
        b"\xed\xa0\x80", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}',
        b'{"x":{"b":1,"b":2}}', b'{"x":[{"b":1,"b":2}]}', b"{'a':1}", b'{"a":1,}', b'{"a":01}', b'{"a":+1}',
        b'{"a":"\n"}',
        b'{"a":' + b"1" * 5000 + b"}", b'{"a":0x1}', b"{1:2}", b'{"a" "b"}', b"/**/{}",
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- any text of it
        parse_object(data, depth=8)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0a1 ', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_a_value_error(data: bytes) -> None:
    try:
        value = parse_object(data, depth=4)
    except ValueError:
        return
    assert value == json.loads(data)
