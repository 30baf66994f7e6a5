"""Step 1: the envelope on the wire (SPEC.md section 2)."""

from __future__ import annotations

import tracemalloc
from typing import TypeAlias

import pytest
from support import both_readers

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.message.wire import (
    FORMATS,
    Ancestor,
    Envelope,
    Statement,
    check_attached,
    encode_envelope,
    parse_envelope,
)
from sealbus.envelopes.trust.proof import Credential, Proof

Array: TypeAlias = "tuple[object, ...]"

PROOF: Array = (1, 0, (), bytes(64))
CREDENTIAL: Array = (1, b"token")
STATEMENT: Array = (b"payload", PROOF, CREDENTIAL)
ANCESTOR: Array = (b"header", PROOF, CREDENTIAL)
ENVELOPE: Array = (1, b"header", b"body", PROOF, CREDENTIAL, None, ())


def envelope(**changes: object) -> Array:
    """Return an envelope as nested tuples, with elements changed by their name."""
    names = ("format", "header", "body", "proof", "credential", "context", "ancestors")
    return tuple(changes.get(name, element) for name, element in zip(names, ENVELOPE, strict=True))


def changed(array: Array, index: int, value: object) -> Array:
    return (*array[:index], value, *array[index + 1 :])


def refused(data: bytes, formats: frozenset[int] = FORMATS) -> Code:
    with pytest.raises(EnvelopeError) as caught:
        parse_envelope(data, formats)
    assert caught.value.step == 1
    return caught.value.code


def test_step_1_every_element_has_its_place() -> None:
    parsed = parse_envelope(pack(envelope(context=STATEMENT, ancestors=(ANCESTOR, ANCESTOR))))
    proof, credential = Proof(1, 0, (), bytes(64)), Credential(1, b"token")
    ancestor = Ancestor(b"header", proof, credential)
    assert parsed == Envelope(
        1, b"header", b"body", proof, credential, Statement(b"payload", proof, credential), (ancestor, ancestor)
    )
    assert isinstance(parsed.proof, Proof)
    assert isinstance(parsed.credential, Credential)
    assert isinstance(parsed.context, Statement)
    assert isinstance(parsed.context.proof, Proof)
    assert isinstance(parsed.context.credential, Credential)
    assert isinstance(parsed.ancestors[1], Ancestor)
    assert isinstance(parsed.ancestors[1].proof, Proof)
    assert isinstance(parsed.ancestors[1].credential, Credential)
    assert encode_envelope(parsed) == pack(envelope(context=STATEMENT, ancestors=(ANCESTOR, ANCESTOR)))


def test_step_1_without_context_and_ancestors() -> None:
    parsed = parse_envelope(pack(ENVELOPE))
    assert parsed.context is None
    assert parsed.ancestors == ()
    assert encode_envelope(parsed) == pack(ENVELOPE)


def test_payloads_and_tokens_are_not_shown() -> None:
    parsed = parse_envelope(pack(envelope(context=STATEMENT, ancestors=(ANCESTOR,))))
    for value in (parsed, parsed.credential, parsed.context, parsed.ancestors[0]):
        shown = f"{value!r} {value!s}"
        for secret in ("token'", "body", "payload"):
            assert secret not in shown


FORMAT_2 = [
    ("as an array of seven", pack(envelope(format=2))),
    ("as an array of one", b"\x91\x02"),
    ("as an array of 15", b"\x9f\x02"),
    ("as an array of 16", b"\xdc\x00\x10\x02"),
    ("as an array of 65,536", b"\xdd\x00\x01\x00\x00\x02"),
    ("as a number of two bytes", b"\x97\xcc\x80"),
    ("as a number of three bytes", b"\x97\xcd\x01\x00"),
    ("as a number of five bytes", b"\x97\xce\x00\x01\x00\x00"),
    ("as a number of nine bytes", b"\x97\xcf" + b"\xff" * 8),
    ("format 0", b"\x97\x00"),
    ("format 127", b"\x97\x7f"),
    ("as a number of two bytes before others", b"\x97\xcc\x80\x00"),
    ("before rubbish", b"\x97\x02\xc1\xff"),
    ("before too much", b"\x97\x02" + bytes(2_000_000)),
]


@pytest.mark.parametrize("data", [data for _, data in FORMAT_2], ids=[name for name, _ in FORMAT_2])
def test_step_1_element_0_is_judged_first(data: bytes) -> None:
    assert refused(data) is Code.UNSUPPORTED_FORMAT


def test_step_1_a_format_must_be_configured_and_known() -> None:
    assert refused(pack(ENVELOPE), frozenset()) is Code.UNSUPPORTED_FORMAT
    assert refused(pack(ENVELOPE), frozenset({2})) is Code.UNSUPPORTED_FORMAT
    assert refused(pack(envelope(format=2)), frozenset({1, 2})) is Code.UNSUPPORTED_FORMAT
    assert parse_envelope(pack(ENVELOPE), frozenset({1, 2})).format == 1


NO_FORMAT = [
    b"",
    b"\x90",
    b"\x97",
    b"\x97\xcc",
    b"\x97\xcd\x01",
    b"\xdc\x00\x10",
    b"\xdd\x00\x00",
    b"\x01",
    b"\xc4\x02\x97\x01",
    b"\xa0\x02",
    b"\xde\x00\x02\x02",
    b"\x87\x01",
    b"GET / HTTP/1.1\r\n\r\n",
    b"{}",
    b"\xff" * 100,
]


@pytest.mark.parametrize("data", NO_FORMAT)
def test_step_1_what_has_no_format_is_malformed(data: bytes) -> None:
    assert refused(data) is Code.MALFORMED


@pytest.mark.parametrize("value", [True, False, -1, -2, "1", b"1", None, 1.0, (), (1,), {}])
def test_step_1_a_format_is_a_uint(value: object) -> None:
    assert refused(pack(envelope(format=value))) is Code.MALFORMED


def test_step_1_a_format_in_another_form_is_malformed() -> None:
    rest = pack(ENVELOPE)[2:]
    for start in (
        b"\x97\xcc\x01",
        b"\x97\xd0\x01",
        b"\x97\xcd\x00\x01",
        b"\xdc\x00\x07\x01",
        b"\xdd\x00\x00\x00\x07\x01",
    ):
        assert refused(start + rest) is Code.MALFORMED


def test_step_1_an_envelope_has_seven_elements() -> None:
    assert refused(pack(ENVELOPE[:6])) is Code.MALFORMED
    assert refused(pack((*ENVELOPE, 1))) is Code.MALFORMED
    assert refused(pack((1,))) is Code.MALFORMED
    assert refused(pack((1, *[b""] * 14))) is Code.MALFORMED
    assert refused(pack(ENVELOPE) + b"\x00") is Code.MALFORMED
    assert refused(pack(ENVELOPE)[:-1]) is Code.MALFORMED


WRONG: list[object] = [1, True, "text", b"bytes", 1.5, (), {}, None, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]


@pytest.mark.parametrize("name", ["header", "body", "proof", "credential", "context", "ancestors"])
def test_step_1_each_element_has_its_type(name: str) -> None:
    right: dict[str, object] = {"header": b"bytes", "body": b"bytes", "context": None, "ancestors": ()}
    for value in WRONG:
        if name not in right or type(value) is not type(right[name]) or value != right[name]:
            assert refused(pack(envelope(**{name: value}))) is Code.MALFORMED, value


def put(place: str, proof: Array = PROOF, credential: Array = CREDENTIAL) -> bytes:
    """Return an envelope with this proof and credential of its own, of its context, or of its second ancestor."""
    if place == "message":
        return pack(envelope(proof=proof, credential=credential))
    if place == "context":
        return pack(envelope(context=(b"payload", proof, credential)))
    return pack(envelope(ancestors=(ANCESTOR, (b"header", proof, credential))))


PLACES = ["message", "context", "ancestor"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("size", "index"), [(1, 0), (2, 1), (4096, 0), (4096, 4095), (300, 299), (129, 128)])
def test_step_1_proofs(place: str, size: int, index: int) -> None:
    read = both_readers.parse_envelope if place == "message" else parse_envelope
    read(put(place, (size, index, (), bytes(64))))
    read(put(place, (size, index, (bytes(32),) * 12, bytes(64))))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "proof",
    [
        changed(PROOF, 0, 0),
        changed(PROOF, 0, 4097),
        changed(PROOF, 0, -1),
        changed(PROOF, 0, True),
        changed(PROOF, 0, "1"),
        changed(PROOF, 1, 1),
        changed(PROOF, 1, -1),
        changed(PROOF, 1, False),
        changed(PROOF, 1, None),
        (4096, 4096, (), bytes(64)),
        changed(PROOF, 2, None),
        changed(PROOF, 2, b""),
        changed(PROOF, 2, (bytes(32),) * 13),
        changed(PROOF, 2, (bytes(31),)),
        changed(PROOF, 2, (bytes(33),)),
        changed(PROOF, 2, ("a" * 32,)),
        changed(PROOF, 2, (bytes(32), 1)),
        changed(PROOF, 2, (1, bytes(32))),
        changed(PROOF, 2, (bytes(31), bytes(32))),
        changed(PROOF, 2, (bytes(32), bytes(31))),
        changed(PROOF, 3, bytes(63)),
        changed(PROOF, 3, bytes(65)),
        changed(PROOF, 3, "a" * 64),
        changed(PROOF, 3, None),
        PROOF[:3],
        (*PROOF, 1),
    ],
    ids=lambda proof: str(proof)[:40],
)
def test_step_1_other_proofs_are_malformed(place: str, proof: Array) -> None:
    assert refused(put(place, proof)) is Code.MALFORMED
    if place == "message":
        with pytest.raises(EnvelopeError):
            both_readers.parse_envelope(put(place, proof))


@pytest.mark.parametrize("place", PLACES)
def test_step_1_credentials(place: str) -> None:
    # What kinds there are is for step 7.
    for kind in (0, 1, 2, 2**53 - 1):
        parse_envelope(put(place, credential=(kind, b"")))
    parse_envelope(put(place, credential=(1, bytes(4096))))
    assert refused(put(place, credential=(1, bytes(4097)))) is Code.TOO_LARGE
    for credential in (
        (-1, b""),
        (2**53, b""),
        (True, b""),
        ("1", b""),
        (1, "token"),
        (1, None),
        (1,),
        (1, b"", 1),
        (),
    ):
        assert refused(put(place, credential=credential)) is Code.MALFORMED, credential


def test_step_1_limits() -> None:
    for name, limit in (("header", 8192), ("body", 917_504)):
        parse_envelope(pack(envelope(**{name: bytes(limit)})))
        assert refused(pack(envelope(**{name: bytes(limit + 1)}))) is Code.TOO_LARGE
    parse_envelope(pack(envelope(context=changed(STATEMENT, 0, bytes(8192)))))
    assert refused(pack(envelope(context=changed(STATEMENT, 0, bytes(8193))))) is Code.TOO_LARGE
    parse_envelope(pack(envelope(ancestors=(changed(ANCESTOR, 0, bytes(8192)),))))
    assert refused(pack(envelope(ancestors=(changed(ANCESTOR, 0, bytes(8193)),)))) is Code.TOO_LARGE
    assert refused(pack(envelope(context=STATEMENT[:2]))) is Code.MALFORMED
    assert refused(pack(envelope(ancestors=(ANCESTOR[:2],)))) is Code.MALFORMED
    assert refused(pack(envelope(context=changed(STATEMENT, 0, "payload")))) is Code.MALFORMED
    assert refused(pack(envelope(ancestors=(changed(ANCESTOR, 0, "header"),)))) is Code.MALFORMED


def test_step_1_the_largest_envelope_fits_the_payload_of_nats() -> None:
    proof: Array = (4096, 4095, (bytes(32),) * 12, bytes(64))
    credential: Array = (1, bytes(4096))
    largest = pack(
        (
            1,
            bytes(8192),
            bytes(917_504),
            proof,
            credential,
            (bytes(8192), proof, credential),
            ((bytes(8192), proof, credential),) * 8,
        )
    )
    assert parse_envelope(largest).ancestors[7].header == bytes(8192)
    assert 1_045_000 < len(largest) < 1_048_576 - 1024


def test_step_1_the_whole_is_bounded() -> None:
    exactly = pack(envelope(header=bytes(1_048_576 - len(pack(envelope(header=bytes(65_536)))) + 65_536)))
    assert len(exactly) == 1_048_576
    for data, which in ((exactly, "header"), (exactly + b"\x00", "envelope")):
        with pytest.raises(EnvelopeError) as caught:
            parse_envelope(data)
        assert (caught.value.code, caught.value.detail) == (Code.TOO_LARGE, which)


@pytest.mark.parametrize("count", [9, 12, 13, 32, 100, 5000])
def test_step_1_a_longer_chain_is_too_long(count: int) -> None:
    assert refused(pack(envelope(ancestors=(ANCESTOR,) * count))) is Code.CHAIN_TOO_LONG


def test_step_1_eight_ancestors() -> None:
    eight = pack(envelope(ancestors=(ANCESTOR,) * 8))
    assert len(parse_envelope(eight).ancestors) == 8
    assert refused(eight + b"\x00") is Code.MALFORMED


MAPS = b"\x80"
for _ in range(5):
    MAPS = b"\x9c" + MAPS * 12

HOSTILE = {
    "a quarter of a million empty maps": pack(ENVELOPE)[:-1] + MAPS,
    "arrays in arrays": pack(ENVELOPE)[:-1] + b"\x91" * 1_000_000,
    "arrays that declare the most": pack(ENVELOPE)[:-1] + b"\xdd\x00\x0f\x42\x40" * 200_000,
    "ancestors that are not there": pack(ENVELOPE)[:-1] + b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_step_1_a_hostile_megabyte_costs_no_more_than_a_few(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert refused(data) in (Code.MALFORMED, Code.CHAIN_TOO_LONG)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_what_a_reader_refuses_is_not_encoded() -> None:
    good = parse_envelope(pack(ENVELOPE))
    for bad in (
        good._replace(format=2),
        good._replace(header=bytes(8193)),
        good._replace(body=bytes(917_505)),
        good._replace(proof=good.proof._replace(index=1)),
        good._replace(proof=good.proof._replace(path=(bytes(32),) * 13)),
        good._replace(credential=Credential(1, bytes(4097))),
        good._replace(ancestors=(Ancestor(b"", good.proof, good.credential),) * 9),
        good._replace(body="text"),  # type: ignore[arg-type]
    ):
        with pytest.raises(SealError, match="envelope"):
            encode_envelope(bad)


def test_what_a_message_carries_is_checked_by_itself() -> None:
    proof, credential = Proof(1, 0, (), bytes(64)), Credential(1, b"token")
    statement, ancestor = Statement(b"payload", proof, credential), Ancestor(b"header", proof, credential)
    check_attached(None, ())
    check_attached(statement, (ancestor,) * 8)
    for context, ancestors in (
        (statement._replace(payload=bytes(8193)), ()),
        (statement._replace(proof=proof._replace(signature=b"")), ()),
        (None, (ancestor,) * 9),
        (None, (ancestor._replace(credential=Credential(1, bytes(4097))),)),
        (statement, (ancestor, ancestor._replace(header=bytes(8193)))),
    ):
        with pytest.raises(SealError, match="envelope"):
            check_attached(context, ancestors)
