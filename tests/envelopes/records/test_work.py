"""Outcome and denials records: the exact tables and their limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, SENT_HASHES, DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

LEAF = b"d" * 32
DONE = OutcomeRecord(decision=LEAF, micros=1_500, delivery=2, sent=(b"a" * 32, b"b" * 32), sent_count=2)
FAILED = OutcomeRecord(decision=LEAF, code=Code.HANDLER_FAILED, micros=3, delivery=1)
COUNTED = DenialsRecord(
    iss=SpiffeId("spiffe://example.org/agent/loud"), minute=5 * MINUTE, counts={Code.DENIED: 40, Code.BAD_BODY: 1}
)


def read(item: bytes) -> OutcomeRecord | DenialsRecord:
    keys = RecordMap(decode(item, items=SENT_HASHES, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes))
    record = OutcomeRecord.from_keys(keys) if keys.text("k") == "outcome" else DenialsRecord.from_keys(keys)
    keys.end()
    return record


def test_a_success_and_what_was_sent() -> None:
    assert decode(DONE.encode()) == {
        "v": 1, "k": "outcome", "dec": LEAF, "suc": True, "mic": 1_500, "dlv": 2, "out": [b"a" * 32, b"b" * 32],
    }  # fmt: skip
    assert read(DONE.encode()) == DONE


def test_a_failure_and_its_code() -> None:
    assert decode(FAILED.encode()) == {
        "v": 1, "k": "outcome", "dec": LEAF, "suc": False, "cod": "handler_failed", "mic": 3, "dlv": 1,
    }  # fmt: skip
    assert read(FAILED.encode()) == FAILED


def test_more_than_1024_sent_are_counted() -> None:
    sent = tuple(number.to_bytes(32, "big") for number in range(SENT_HASHES + 5))
    full = OutcomeRecord.of(decision=LEAF, micros=1, delivery=1, sent=sent[:SENT_HASHES])
    assert (len(full.sent), full.sent_count) == (1_024, 1_024)
    assert b"cnt" not in full.encode()
    over = OutcomeRecord.of(decision=LEAF, micros=1, delivery=1, sent=sent)
    assert (over.sent, over.sent_count) == (sent[:SENT_HASHES], 1_029)
    assert read(full.encode()) == full
    assert read(over.encode()) == over


def test_of_keeps_the_code() -> None:
    assert OutcomeRecord.of(decision=LEAF, code=Code.HANDLER_FAILED, micros=3, delivery=1) == FAILED


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": b"d" * 31},
        {"micros": -1},
        {"delivery": 0},
        {"sent": (b"a" * 31,), "sent_count": 1},
        {"sent_count": 3},
        {"sent_count": -1},
        {"sent": (b"a" * 32,), "sent_count": True},
        {"sent": (b"a" * 32,) * 1_024, "sent_count": 2**53},
        {"sent": (b"a" * 32,) * 1_025, "sent_count": 1_025},
    ],
)
def test_an_outcome_has_limits(changes: dict[str, object]) -> None:
    with pytest.raises(SealError):
        DONE._replace(**changes)  # type: ignore[arg-type]  # fields of their own types


@pytest.mark.parametrize(
    "changes",
    [
        {"cod": "handler_failed"},
        {"cnt": 2},
        {"cnt": 1_025},
        {"out": []},
        {"dec": b""},
        {"suc": 1},
    ],
)
def test_no_second_spelling_of_an_outcome(changes: dict[str, Value]) -> None:
    value = decode(DONE.encode())
    assert isinstance(value, dict)
    with pytest.raises((EnvelopeError, SealError)):
        read(encode(value | changes))


def test_a_failure_without_its_code_is_refused() -> None:
    value = decode(FAILED.encode())
    assert isinstance(value, dict)
    del value["cod"]
    with pytest.raises(EnvelopeError, match="cod"):
        read(encode(value))


def test_denials_are_counted_by_code() -> None:
    assert decode(COUNTED.encode()) == {
        "v": 1, "k": "denials", "iss": "spiffe://example.org/agent/loud", "min": 300_000_000,
        "cnt": {"bad_body": 1, "denied": 40},
    }  # fmt: skip
    assert read(COUNTED.encode()) == COUNTED


def test_what_was_read_again_is_no_denial() -> None:
    assert (COUNTED.allowed, COUNTED.denied) == (0, 41)
    record = replace(COUNTED, counts={READ_AGAIN: 300, Code.DENIED: 2})
    assert read(record.encode()) == record
    assert (record.allowed, record.denied) == (300, 2)


def test_the_longest_spiffe_id_fits() -> None:
    longest = replace(COUNTED, iss=SpiffeId("spiffe://example.org/" + "a" * (2_048 - 21)))
    assert read(longest.encode()) == longest


def test_counts_cannot_be_changed_afterwards() -> None:
    counts: dict[str, int] = {Code.DENIED: 1}
    record = DenialsRecord(iss=COUNTED.iss, minute=0, counts=counts)
    counts[Code.DENIED] = 2
    assert record.counts == {Code.DENIED: 1}
    with pytest.raises(TypeError):
        record.counts[Code.DENIED] = 3  # type: ignore[index]  # that it cannot is the point


@pytest.mark.parametrize(
    "changes",
    [
        {"minute": 1},
        {"minute": -MINUTE},
        {"counts": {}},
        {"counts": {"Expired": 1}},
        {"counts": {Code.DENIED: 0}},
    ],
)
def test_denials_have_limits(changes: dict[str, object]) -> None:
    with pytest.raises(SealError):
        replace(COUNTED, **changes)  # type: ignore[arg-type]  # fields of their own types


def test_denials_of_no_spiffe_id_are_refused() -> None:
    value = decode(COUNTED.encode())
    assert isinstance(value, dict)
    with pytest.raises(EnvelopeError):
        read(encode(value | {"iss": "loud"}))
