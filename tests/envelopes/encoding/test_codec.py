"""The canonical encoding (SPEC.md section 1): what it is, and everything that it is not."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import msgpack  # type: ignore[import-untyped]  # it has no types
import pytest
from support.both_readers import decode

from sealbus.envelopes.encoding import codec
from sealbus.envelopes.encoding.codec import Value, array_length, encode, is_text, pack, unpack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError

MAX = 2**53 - 1

VALUES: list[tuple[Value, str]] = [
    (0, "00"),
    (127, "7f"),
    (128, "cc80"),
    (255, "ccff"),
    (256, "cd0100"),
    (65_535, "cdffff"),
    (65_536, "ce00010000"),
    (2**32 - 1, "ceffffffff"),
    (2**32, "cf0000000100000000"),
    (MAX, "cf001fffffffffffff"),
    (True, "c3"),
    (False, "c2"),
    ("", "a0"),
    ("a" * 31, "bf" + "61" * 31),
    ("a" * 32, "d920" + "61" * 32),
    ("a" * 256, "da0100" + "61" * 256),
    ("é", "a2c3a9"),
    (b"", "c400"),
    (b"\x00" * 255, "c4ff" + "00" * 255),
    (b"\x00" * 256, "c50100" + "00" * 256),
    ([], "90"),
    ([1, "a", b"b", True], "9401a161c40162c3"),
    (cast("Value", list(range(16))), "dc0010" + "".join(f"{n:02x}" for n in range(16))),
    ({}, "80"),
    ({"": 1, "a": 2, "aa": 3, "b": 4}, "84a001a16102a2616103a16204"),
]


@pytest.mark.parametrize(("value", "encoded"), VALUES, ids=[encoded[:16] for _, encoded in VALUES])
def test_one_value_has_one_encoding(value: Value, encoded: str) -> None:
    assert encode(value).hex() == encoded
    assert decode(bytes.fromhex(encoded)) == value


def refused(data: bytes, **options: int) -> EnvelopeError:
    with pytest.raises(EnvelopeError) as caught:
        decode(data, **options)  # type: ignore[arg-type]
    assert caught.value.code is Code.MALFORMED
    return caught.value


NOT_CANONICAL = {
    "nothing": "",
    "trailing byte": "0100",
    "two values": "0101",
    "uint8 for a fixint": "cc01",
    "uint16 for a uint8": "cd00ff",
    "uint32 for a uint16": "ce0000ffff",
    "uint64 for a uint32": "cf00000000ffffffff",
    "int8 for a fixint": "d001",
    "int16 for a uint8": "d100ff",
    "int16 for a uint16, just as long": "d10100",
    "int32 for a uint16": "d200000100",
    "int32 for a uint32, just as long": "d200010000",
    "int64 for a uint64, just as long": "d30000000100000000",
    "str8 for a fixstr": "d90161",
    "str16 for a str8": "da0020" + "61" * 32,
    "str32 for a fixstr": "db0000000161",
    "bin16 for a bin8": "c5000161",
    "bin32 for a bin8": "c60000000161",
    "array16 for a fixarray": "dc000101",
    "array32 for a fixarray": "dd0000000101",
    "map16 for a fixmap": "de0001a16101",
    "map32 for a fixmap": "df00000001a16101",
    "duplicate key": "82a16101a16102",
    "keys out of order": "82a16201a16101",
    "a longer key first": "82a2616101a16101",
    "integer key": "810101",
    "bytes key": "81c4016101",
    "nil key": "81c001",
    "array key": "819001",
    "control character in a key": "81a10a01",
    "nil before what may be": "92c001",
    "nil in a map before what may be": "82a161c0a16201",
    "truncated integer": "cd01",
    "truncated text": "a26",
    "truncated bytes": "c40261",
    "truncated array": "9201",
    "truncated map": "81a161",
    "declared length beyond the data": "dd7fffffff",
    "declared map beyond the data": "dfffffffff",
    "declared bytes beyond the data": "c6ffffffff",
    "declared text beyond the data": "dbffffffff",
    "never used byte": "c1",
    "float 32": "ca3f800000",
    "float 64": "cb3ff0000000000000",
    "not a number": "cb7ff8000000000000",
    "fixext 1": "d40101",
    "ext 8": "c70101ff",
    "timestamp": "d6ff00000000",
    "timestamp 64": "d7ff0000000000000000",
    "timestamp beyond its range": "d7ffffffffffffffffff",
    "timestamp of a wrong size": "d5ff0000",
    "nil": "c0",
    "nil in a map": "81a161c0",
    "negative fixint": "ff",
    "negative int64": "d3ffe0000000000001",
    "2^53": "cf0020000000000000",
    "2^64-1": "cfffffffffffffffff",
    "invalid UTF-8": "a1ff",
    "overlong UTF-8": "a2c0af",
    "a surrogate": "a3eda080",
    "beyond U+10FFFF": "a4f4908080",
    "truncated UTF-8": "a1c3",
}


@pytest.mark.parametrize("encoded", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_everything_else_is_malformed(encoded: str) -> None:
    assert refused(bytes.fromhex(encoded if len(encoded) % 2 == 0 else encoded[:-1])).step == 1


def test_the_step_is_the_callers() -> None:
    assert refused(b"\xc0", step=7).step == 7
    assert refused(b"\xcc\x01", step=2).step == 2


@pytest.mark.parametrize("code_point", [*range(0x20), *range(0x7F, 0xA0)])
def test_control_characters_are_refused_both_ways(code_point: int) -> None:
    text = f"a{chr(code_point)}"
    refused(msgpack.packb(text))
    with pytest.raises(SealError, match="text"):
        encode(text)
    with pytest.raises(SealError, match="text"):
        encode(["é", text + "é"])


@pytest.mark.parametrize(
    "text", [" ", "~", "\u00a0", "\u00ad", "\u200b", "\u2028", "\ufeff", "\ufffe", "\U0010ffff", "e\u0301"]
)
def test_nothing_else_is_refused_and_nothing_is_normalized(text: str) -> None:
    assert decode(encode(text)) == text


def test_surrogates_cannot_be_encoded() -> None:
    with pytest.raises(SealError, match="text"):
        encode("\ud800")


def test_text_is_bounded_by_its_bytes() -> None:
    assert is_text("é" * 128)
    assert not is_text("é" * 128 + "a")
    assert not is_text("a" * 257)
    assert not is_text("é" * 257)
    assert decode(encode("a" * 300, text_bytes=300), text_bytes=300) == "a" * 300
    refused(msgpack.packb("a" * 257))
    refused(msgpack.packb({"a" * 257: 1}))
    refused(msgpack.packb("a" * 301), text_bytes=300)


def test_negative_integers_and_nil_only_where_asked_for() -> None:
    assert decode(encode(-MAX), negative=True) == -MAX
    assert decode(encode([-1, {"a": -32}, -33]), negative=True) == [-1, {"a": -32}, -33]
    assert decode(encode([None, {"a": None}]), nil=True) == [None, {"a": None}]
    refused(msgpack.packb(-(2**53)), negative=True)
    refused(b"\xd0\xff", negative=True)
    refused(b"\xc0", negative=True)
    refused(b"\xff", nil=True)


def nested(depth: int) -> Value:
    value: Value = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_arrays_and_maps_nest_at_most_five_deep() -> None:
    assert decode(encode(nested(5))) == nested(5)
    assert refused(msgpack.packb(nested(6))).detail == "nested too deep"
    with pytest.raises(SealError, match="nested too deep"):
        encode(nested(6))


def test_arrays_and_maps_are_bounded() -> None:
    many: Value = [1] * 32
    wide: Value = {f"{n:03}": 1 for n in range(32)}
    assert decode(encode(many)) == many
    assert decode(encode(wide)) == wide
    assert decode(encode([1] * 33), items=33) == [1] * 33
    refused(encode([1] * 33))
    refused(encode({f"{n:03}": 1 for n in range(33)}))
    refused(encode([1, 2]), items=1)
    refused(encode({"a": 1, "b": 2}), entries=1)
    refused(encode({}), entries=0)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        (1,),
        {1: 2},
        {b"a": 1},
        {1: 1, "a": 1},
        {"a": 1, 1: 1},
        MAX + 1,
        -MAX - 1,
        pytest.param(object(), id="an object"),
        {"a": {1: 1}},
        [float("nan")],
        bytearray(b"a"),
        {"\n": 1},
    ],
    ids=str,
)
def test_what_format_1_cannot_hold_is_not_sealed(value: object) -> None:
    with pytest.raises(SealError):
        encode(cast("Value", value))


def test_subclasses_are_not_sealed() -> None:
    class Text(str):
        __slots__ = ()

    with pytest.raises(SealError):
        encode(Text("a"))
    with pytest.raises(SealError):
        encode({Text("a"): 1})


def test_keys_are_sorted_by_their_bytes() -> None:
    assert encode({"é": 1, "z": 2, "\U00010000": 3, "\uffff": 4}) == msgpack.packb(
        {"z": 2, "é": 1, "\uffff": 4, "\U00010000": 3}
    )


MAPS = b"\x80"
for _ in range(4):
    MAPS = b"\xdc\x00\x18" + MAPS * 24


def test_keys_are_sorted_at_every_level() -> None:
    maps: Value = {"b": 1, "a": 2}
    for depth in range(1, 6):
        decoded = decode(encode(maps))
        for _ in range(1, depth):
            assert isinstance(decoded, dict)
            assert list(decoded) == ["b", "c"]
            decoded = decoded["c"]
        assert isinstance(decoded, dict)
        assert list(decoded) == ["a", "b"]
        maps = {"c": maps, "b": 1}
    assert encode([[[[{"b": 1, "a": 2}]]]]) == msgpack.packb([[[[{"a": 2, "b": 1}]]]])


HOSTILE = {
    "arrays in arrays, fixed": b"\x91" * 1_000_000,
    "arrays in arrays, each declaring the most": b"\xdd\x00\x0f\x42\x40" * 200_000,
    "arrays in arrays, each declaring what is allowed": b"\xdc\x00\x20" * 333_333,
    "maps in maps": b"\x81\xa1a" * 333_333,
    "maps in maps, each declaring the most": b"\xdf\xff\xff\xff\xff" * 200_000,
    "empty maps in arrays, below the sixth level": b"\x91\x91" + MAPS,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_megabyte_costs_tens_at_most(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(EnvelopeError):
            codec.decode(data)
        with pytest.raises(EnvelopeError):
            unpack(data, items=32, entries=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000


def test_many_items_allowed_still_bound_what_nested_headers_allocate() -> None:
    data = b"\xdd\x00\x00\x10\x00" * 200_000
    tracemalloc.start()
    try:
        with pytest.raises(EnvelopeError):
            codec.decode(data, items=4096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64_000_000


def test_unpack_checks_form_only() -> None:
    assert unpack(msgpack.packb([1.5, None, -1, "\n"]), items=4, entries=0) == (1.5, None, -1, "\n")
    assert unpack(msgpack.packb([[1]]), items=1, entries=0, lists=True) == [[1]]
    with pytest.raises(EnvelopeError) as caught:
        unpack(b"\xcc\x01", items=1, entries=1, step=2)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 2)
    with pytest.raises(EnvelopeError) as caught:
        unpack(b"\x80", items=1, entries=0)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 1)


def test_pack_leaves_no_trace_of_a_failure() -> None:
    with pytest.raises(TypeError):
        pack([b"half of it", object()])
    assert pack([1]) == b"\x91\x01"


def test_packers_in_several_threads_do_not_mix() -> None:
    values = [{"thread": number, "data": bytes([number]) * 2000} for number in range(8)]
    expected = [msgpack.packb(value) for value in values]

    def pack_often(number: int) -> bool:
        return all(pack(values[number]) == expected[number] for _ in range(200))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(pack_often, range(8)))


def test_array_length_reads_what_is_declared() -> None:
    data = msgpack.packb([1, b"x", [1] * 100, 5])
    assert array_length(data, 4, 2) == 100
    assert array_length(data, 3, 2) is None
    assert array_length(data, 4, 3) is None
    assert array_length(data[:4], 4, 2) is None
    assert array_length(b"", 4, 2) is None
    assert array_length(b"\x91" * 100_000, 1, 2) is None
    assert array_length(b"\x92\x01\xdd\x7f\xff\xff\xff", 2, 1) in (None, 0x7FFFFFFF)


@pytest.mark.parametrize("encoded", ["d0e0", "d1ff80", "d2ffff8000", "d3ffffffff80000000"])
def test_a_negative_number_of_a_longer_form_than_it_needs(encoded: str) -> None:
    with pytest.raises(EnvelopeError):
        decode(bytes.fromhex(encoded), negative=True)


def test_the_longest_array_of_one_byte_and_a_number_six_deep() -> None:
    assert decode(b"\x9f" + bytes(15)) == [0] * 15
    assert decode(b"\x91" * 5 + b"\x01") == [[[[[1]]]]]
    refused(b"\x91" * 5 + b"\x90")
