"""Records by kind, and the guard id."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import pytest
from support.both_readers import parse_record
from vectors import recorded
from vectors.world import Message

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.records.operation import ChangeRecord, ConnectionsRecord, ProcessRecord
from sealbus.envelopes.records.record import NOTARY_KINDS, LaterRecord, Record, guard_id
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

OWN = SpiffeId("spiffe://example.org/agent/inventory")

EXT: Mapping[str, ExtValue] = {"_a": True, "a": -1, "b": b"\x00" * 4_096, "c": "text"}
ALLOWED = DecisionRecord(
    header=b"h",
    proof=Proof(1, 0, (), b"s" * 64),
    action="a.b",
    place=CorePlace(opened=1),
    delivery=1,
    allow=True,
    input=b"{}",
    revision="r",
    policy="p",
    engine="e",
    micros=1,
)
DONE = OutcomeRecord.of(decision=b"d" * 32, micros=1, delivery=1)

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
    ChangeRecord(action="deny", part="platform", serial=1, digest=b"d" * 32, target="user u-1", reason="left"),
    ChangeRecord(action="push", part="stock", serial=2, digest=b"d" * 32),
    ProcessRecord(action="start", instance=b"i" * 16, version="1", facts=EXT),
    ProcessRecord(action="end", instance=b"i" * 16, version="1"),
    ConnectionsRecord(minute=0, instance=b"i" * 16, counts={Code.DENIED: 1}),
    LaterRecord("moved", encode({"v": 1, "k": "moved", "of": [b"a", {"at": -1}], "by": "s" * 2_048}, text_bytes=2_048)),
    *(record._replace(ext=EXT) for record in (ALLOWED, DONE)),
]


@pytest.mark.parametrize("record", RECORDS)
def test_every_kind_is_read_back(record: Record) -> None:
    assert parse_record(record.encode()) == record


def test_what_counts_only_from_the_notary() -> None:
    assert {record.kind for record in RECORDS} - NOTARY_KINDS == {
        "decision",
        "outcome",
        "denials",
        "change",
        "process",
        "connections",
        "moved",
    }
    assert frozenset({"bundle", "policy", "checkpoint"}) == NOTARY_KINDS


@pytest.mark.parametrize(
    "value",
    [
        "checkpoint",
        {"k": "checkpoint", "not": b"n"},
        {"v": 2, "k": "checkpoint", "not": b"n"},
        {"v": 1, "not": b"n"},
        {"v": 1, "k": b"checkpoint", "not": b"n"},
        *({"v": 1, "k": kind, "not": b"n"} for kind in ("unheard-of", "Checkpoint", "", "_c", "c" * 65)),
        {"v": 2, "k": "later"},
        {"k": "later"},
        {"v": 1, "k": "later", "x": [b""] * 1_025},
        {"v": 1, "k": "later", "x": {f"{n:02}": 0 for n in range(33)}},
        {"v": 1, "k": "later", "x": "s" * 2_049},
        {"v": 1, "k": "later", "x": None},
        {"v": 1, "k": "denials", "iss": str(OWN), "min": 0, "cnt": {"denied": 1}, "ext": {"a": 1}},
        {"v": 1, "k": "checkpoint"},
        {"v": 1, "k": "checkpoint", "not": "n"},
        {"v": 1, "k": "checkpoint", "not": b""},
        {"v": 1, "k": "checkpoint", "not": b"n", "x": 1},
    ],
)
def test_whatever_is_of_no_table_is_malformed(value: Value) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_record(encode(value, text_bytes=4_096))
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


@pytest.mark.parametrize("kind", ["checkpoints", "checkpoin", "c", "c" * 64, "a_1"])
def test_a_kind_without_a_table_is_of_a_later_version(kind: str) -> None:
    item = encode({"v": 1, "k": kind, "not": 0})
    assert parse_record(item) == LaterRecord(kind, item)


@pytest.mark.parametrize(("kind", "typed"), [("change", 2), ("process", 2), ("connections", 1)])
def test_what_older_readers_take_whatever_its_form_is_never_refused(kind: str, typed: int) -> None:
    items = recorded.records(Message())[kind]
    read = [parse_record(item) for item in items]
    assert [isinstance(record, LaterRecord) for record in read] == [n >= typed for n in range(len(items))]
    assert {record.kind for record in read} == {kind}
    assert [record.encode() for record in read] == items


@pytest.mark.parametrize(
    "ext",
    [
        {},
        [],
        {"a": []},
        {"a": {}},
        {"a": "s" * 257},
        {"s" * 257: 1},
        {f"{n:02}": 0 for n in range(17)},
    ],
)
@pytest.mark.parametrize("record", [ALLOWED, DONE])
def test_ext_is_at_most_16_plain_entries(record: DecisionRecord | OutcomeRecord, ext: Value) -> None:
    decoded = decode(record.encode(), text_bytes=2_048)
    assert isinstance(decoded, dict)
    with pytest.raises(EnvelopeError) as caught:
        parse_record(encode({**decoded, "ext": ext}, text_bytes=2_048))
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)


@pytest.mark.parametrize("ext", [{"a": None}, {"a": 2**53}, {"b": 1, "a": 1}, {1: 1}])
@pytest.mark.parametrize("record", [ALLOWED, DONE])
def test_ext_is_not_made_of_anything_else(record: DecisionRecord | OutcomeRecord, ext: Mapping[str, ExtValue]) -> None:
    with pytest.raises(SealError):
        record._replace(ext=ext)


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
