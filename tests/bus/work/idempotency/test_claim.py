"""Claims as bytes: read as they were written, and a result believed only under one's own signature."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import INVENTORY, ISSUER, PLANNER, TRUST
from support.envelopes import HOUR, NOW

from sealbus.bus.sending.message import Content
from sealbus.bus.work.idempotency.claim import RESULT_BYTES, Stage, StoredClaim, parse, sign, unsigned
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.trust.caches import Caches

OWN = ISSUER.sealer(INVENTORY)
RESULT = Content(body=b'{"a":1}', typ="application/json")
STARTED = StoredClaim(
    key=bytes(32), dig=b"d" * 32, first=b"f" * 32, by=b"p" * 16, stage=Stage.STARTED, at=NOW, until=NOW + HOUR
)
DONE = replace(STARTED, stage=Stage.DONE, result=RESULT)


def read(stored: bytes) -> tuple[StoredClaim, bool]:
    return parse(stored, own=INVENTORY, trust=TRUST, caches=Caches())


@pytest.mark.parametrize("stage", list(Stage))
def test_a_claim_comes_back_as_it_was(stage: Stage) -> None:
    claim = replace(STARTED, stage=stage)
    assert read(unsigned(claim)) == (claim, False)


def test_a_signed_result_comes_back() -> None:
    assert read(sign(DONE, OWN)) == (DONE, True)


def test_the_largest_result_fits() -> None:
    claim = replace(DONE, result=Content(body=bytes(RESULT_BYTES), typ="application/octet-stream"))
    assert read(sign(claim, OWN)) == (claim, True)


def test_a_result_that_another_signed_is_left_out() -> None:
    assert read(sign(DONE, PLANNER)) == (replace(DONE, result=None), False)


def test_a_result_in_a_claim_of_another_signature_is_left_out() -> None:
    forged = replace(DONE, result=Content(body=b'{"a":2}', typ="application/json"))
    stored = sign(DONE, OWN).replace(b'{"a":1}', b'{"a":2}')
    assert read(stored) == (replace(forged, result=None), False)


def test_a_result_without_a_signature_is_not_written() -> None:
    with pytest.raises(SealError):
        unsigned(DONE)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"short"},
        {"dig": b""},
        {"first": bytes(33)},
        {"by": bytes(15)},
        {"at": -1},
        {"until": 2**53},
        {"result": RESULT},
        {"stage": Stage.DONE, "result": Content(body=bytes(RESULT_BYTES + 1), typ="application/json")},
    ],
)
def test_what_no_claim_can_be_is_not_made(fields: dict[str, object]) -> None:
    with pytest.raises(SealError):
        replace(STARTED, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\x90",
        b"\x91\x01",
        b"\x91\xc4\x01\x80",
        unsigned(STARTED) + b"x",
        unsigned(STARTED).replace(b"started", b"stopped"),
        bytes(400_000),
    ],
)
def test_what_is_no_claim_is_refused(stored: bytes) -> None:
    with pytest.raises(EnvelopeError) as refused:
        read(stored)
    assert refused.value.code is Code.MALFORMED


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(stored: bytes) -> None:
    with pytest.raises(EnvelopeError):
        read(stored)


@given(st.integers(min_value=0, max_value=2**14))
def test_any_flipped_bit_is_refused_or_costs_the_result_its_signature(place: int) -> None:
    stored = bytearray(sign(DONE, OWN))
    place %= len(stored) * 8
    stored[place // 8] ^= 1 << place % 8
    try:
        claim, signed = read(bytes(stored))
    except EnvelopeError:
        return
    assert not signed
    assert claim.result is None
