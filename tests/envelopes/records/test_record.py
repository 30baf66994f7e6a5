"""Records by kind, and the guard id."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.both_readers import parse_record

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records.record import NOTARY_KINDS, Record, guard_id
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

OWN = SpiffeId("spiffe://example.org/agent/inventory")

RECORDS: list[Record] = [
    DecisionRecord(
        header=b"h",
        proof=Proof(1, 0, (), b"s" * 64),
        action="a.b",
        place=CorePlace(opened=1),
        delivery=1,
        allow=False,
        code=Code.BAD_BODY,
    ),
    OutcomeRecord.of(decision=b"d" * 32, micros=1, delivery=1, sent=tuple(bytes([n % 256]) * 32 for n in range(1_100))),
    BundleRecord(trust_domain=TrustDomain("example.org"), current=1, jwt=b"{}"),
    PolicyRecord(revision="r", digest=b"h" * 32, size=1, location=""),
    CheckpointRecord(note=b"n"),
    DenialsRecord(iss=OWN, minute=0, counts={Code.DENIED: 1}),
]


@pytest.mark.parametrize("record", RECORDS)
def test_every_kind_is_read_back(record: Record) -> None:
    assert parse_record(record.encode()) == record


def test_what_counts_only_from_the_notary() -> None:
    assert {record.kind for record in RECORDS} - NOTARY_KINDS == {"decision", "outcome", "denials"}
    assert frozenset({"bundle", "policy", "checkpoint"}) == NOTARY_KINDS


@pytest.mark.parametrize(
    "value",
    [
        "checkpoint",
        {"k": "checkpoint", "not": b"n"},
        {"v": 2, "k": "checkpoint", "not": b"n"},
        {"v": 1, "not": b"n"},
        {"v": 1, "k": b"checkpoint", "not": b"n"},
        {"v": 1, "k": "unheard-of", "not": b"n"},
        *({"v": 1, "k": kind, "not": b"n"} for kind in ("checkpoints", "checkpoin", "Checkpoint")),
        {"v": 1, "k": "checkpoint"},
        {"v": 1, "k": "checkpoint", "not": "n"},
        {"v": 1, "k": "checkpoint", "not": b""},
        {"v": 1, "k": "checkpoint", "not": b"n", "x": 1},
    ],
)
def test_whatever_is_of_no_table_is_malformed(value: Value) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_record(encode(value))
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


def test_bytes_that_are_no_value_are_malformed() -> None:
    for item in (b"", b"\xc1", b"\x81\xa1v\x01\x00"):
        with pytest.raises(EnvelopeError) as caught:
            parse_record(item)
        assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


def test_the_guard_id_is_16_bytes_of_the_hash_of_replica_and_call() -> None:
    digest = bytes(range(32))
    expected = sha256(b"decision" + b"spiffe://example.org/agent/inventory" + digest).digest()[:16]
    assert guard_id(OWN, digest) == expected
    assert guard_id(OWN, b"\x01" * 32) != expected
