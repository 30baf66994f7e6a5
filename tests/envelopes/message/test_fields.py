"""Fields of records: ranges for makers (`SealError`), types and exact keys for readers (`EnvelopeError`)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.message.fields import (
    RecordMap,
    check_bytes,
    check_proof,
    check_text,
    check_texts,
    check_uint,
    parse_proof,
)
from sealbus.envelopes.trust.proof import Proof

PROOF = Proof(2, 1, (b"n" * 32,), b"s" * 64)


@pytest.mark.parametrize("value", [0, 7, 2**53 - 1])
def test_uint_accepts_its_range(value: int) -> None:
    check_uint("x", value)


@pytest.mark.parametrize("value", [-1, 2**53, True])
def test_uint_refuses_what_is_outside(value: int) -> None:
    with pytest.raises(SealError, match="x is not an integer"):
        check_uint("x", value)


def test_uint_has_a_least() -> None:
    check_uint("x", 1, least=1)
    with pytest.raises(SealError):
        check_uint("x", 0, least=1)


@pytest.mark.parametrize("value", ["", "a" * 256, "é" * 128])
def test_text_accepts_up_to_256_bytes(value: str) -> None:
    check_text("x", value)


@pytest.mark.parametrize("value", ["a" * 257, "é" * 129, "a\n", "\x7f", "\x85", "\ud800"])
def test_text_refuses_length_control_characters_and_surrogates(value: str) -> None:
    with pytest.raises(SealError):
        check_text("x", value)


def test_text_has_a_least() -> None:
    with pytest.raises(SealError):
        check_text("x", "", least=1)


def test_texts_are_at_most_32_each_checked() -> None:
    check_texts("x", ["a"] * 32)
    with pytest.raises(SealError, match="over 32"):
        check_texts("x", ["a"] * 33)
    with pytest.raises(SealError):
        check_texts("x", ["\n"])


def test_bytes_have_least_and_most() -> None:
    check_bytes("x", b"12", most=2)
    for wrong in (b"", b"123"):
        with pytest.raises(SealError, match="x is not 1 to 2 bytes"):
            check_bytes("x", wrong, most=2)


def test_a_proof_within_limits_passes() -> None:
    check_proof("p", PROOF)
    check_proof("p", Proof(1, 0, (), b"s" * 64))
    check_proof("p", Proof(4096, 4095, (b"n" * 32,) * 12, b"s" * 64))


@pytest.mark.parametrize(
    "proof",
    [
        PROOF._replace(size=0),
        PROOF._replace(size=4097),
        PROOF._replace(index=-1),
        PROOF._replace(index=2),
        PROOF._replace(path=(b"n" * 32,) * 13),
        PROOF._replace(path=(b"n" * 31,)),
        PROOF._replace(signature=b"s" * 63),
    ],
)
def test_a_proof_beyond_limits_is_refused(proof: Proof) -> None:
    with pytest.raises(SealError):
        check_proof("p", proof)
    with pytest.raises(EnvelopeError, match="malformed: record: p"):
        parse_proof("p", [proof.size, proof.index, list(proof.path), proof.signature])


def test_a_proof_is_parsed() -> None:
    assert parse_proof("p", [2, 1, [b"n" * 32], b"s" * 64]) == PROOF


@pytest.mark.parametrize(
    "value",
    [
        {},
        [2, 1, []],
        [True, 0, [], b"s" * 64],
        [2, True, [], b"s" * 64],
        [2, 1, b"", b"s" * 64],
        [2, 1, ["n" * 32], b"s" * 64],
        [2, 1, [], "s" * 64],
    ],
)
def test_a_proof_of_other_types_is_refused(value: Value) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_proof("p", value)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


def filled(**keys: Value) -> RecordMap:
    return RecordMap({"v": 1, **keys})


@pytest.mark.parametrize("value", [[], [["v", 1]], {}, {"v": 2}, {"v": True}, {"v": "1"}])
def test_a_record_is_a_map_of_version_1(value: Value) -> None:
    with pytest.raises(EnvelopeError):
        RecordMap(value)


def test_keys_are_taken_once_and_nothing_may_be_left() -> None:
    keys = filled(a=1)
    assert "a" in keys
    assert keys.uint("a") == 1
    assert "a" not in keys
    keys.end()
    with pytest.raises(EnvelopeError, match="record: a"):
        keys.uint("a")
    with pytest.raises(EnvelopeError, match="unknown key"):
        filled(secret=1).end()


def test_the_callers_map_is_left_alone() -> None:
    value: dict[str, Value] = {"v": 1, "a": 1}
    RecordMap(value).uint("a")
    assert value == {"v": 1, "a": 1}


TAKERS: list[tuple[Callable[[RecordMap], object], Value, object, list[Value]]] = [
    (lambda m: m.uint("a"), 5, 5, ["5", True]),
    (lambda m: m.flag("a"), False, False, [0, "x"]),
    (lambda m: m.text("a"), "x", "x", [b"x", 1]),
    (lambda m: m.octets("a"), b"x", b"x", ["x", 1]),
    (lambda m: m.code("a"), "denied", Code.DENIED, [b"denied", "Nonsense", "", "a" * 65, "a-b"]),
    (lambda m: m.proof("a"), [1, 0, [], b"s" * 64], Proof(1, 0, (), b"s" * 64), [1]),
    (lambda m: m.some_texts("a"), ["x", "y"], ("x", "y"), [[], "x", [b"x"]]),
    (lambda m: m.some_octets("a"), [b"x"], (b"x",), [[], b"x", ["x"]]),
    (lambda m: m.counts("a"), {"denied": 3}, {Code.DENIED: 3}, [[], {"denied": True}, {"Nonsense": 1}]),
]


@pytest.mark.parametrize(("take", "value", "expected", "wrong"), TAKERS)
def test_each_taker_knows_its_type(
    take: Callable[[RecordMap], object], value: Value, expected: object, wrong: list[Value]
) -> None:
    assert take(filled(a=value)) == expected
    for other in wrong:
        with pytest.raises(EnvelopeError, match="malformed: record: a"):
            take(filled(a=other))


def test_absent_arrays_are_empty() -> None:
    assert filled().some_texts("a") == ()
    assert filled().some_octets("a") == ()
