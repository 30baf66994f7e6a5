"""Bundle, policy and checkpoint records: the exact tables and their limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import EnvelopeError, SealError
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain

BUNDLE = BundleRecord(trust_domain=TrustDomain("example.org"), current=9, jwt=b'{"keys":[]}', x509=(b"der1", b"der2"))
POLICY = PolicyRecord(revision="r1", digest=b"h" * 32, size=4_096, location="nats://objects/policy/r1")
CHECKPOINT = CheckpointRecord(note=b"origin\n1\nroot\n\n- sig\n")

Any3 = BundleRecord | PolicyRecord | CheckpointRecord


def read(item: bytes) -> Any3:
    keys = RecordMap(decode(item))
    kinds: dict[str, type[Any3]] = {"bundle": BundleRecord, "policy": PolicyRecord, "checkpoint": CheckpointRecord}
    record = kinds[keys.text("k")].from_keys(keys)
    keys.end()
    return record


@pytest.mark.parametrize("record", [BUNDLE, replace(BUNDLE, x509=()), POLICY, CHECKPOINT])
def test_encoding_is_canonical_and_read_back(record: Any3) -> None:
    item = record.encode()
    assert encode(decode(item)) == item
    assert read(item) == record


def test_the_tables() -> None:
    assert decode(BUNDLE.encode()) == {
        "v": 1, "k": "bundle", "dom": "example.org", "cur": 9, "jwt": b'{"keys":[]}', "x5c": [b"der1", b"der2"],
    }  # fmt: skip
    assert decode(POLICY.encode()) == {
        "v": 1, "k": "policy", "rev": "r1", "sha": b"h" * 32, "siz": 4_096, "loc": "nats://objects/policy/r1",
    }  # fmt: skip
    assert decode(CHECKPOINT.encode()) == {"v": 1, "k": "checkpoint", "not": CHECKPOINT.note}
    assert decode(replace(BUNDLE, x509=()).encode()) == {
        "v": 1, "k": "bundle", "dom": "example.org", "cur": 9, "jwt": b'{"keys":[]}',
    }  # fmt: skip


def test_the_largest_bundle_fits() -> None:
    largest = replace(BUNDLE, jwt=b"j" * 65_536, x509=(b"c" * 8_192,) * 32)
    assert read(largest.encode()) == largest


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: replace(BUNDLE, current=-1),
        lambda: replace(BUNDLE, jwt=b""),
        lambda: replace(BUNDLE, jwt=b"j" * 65_537),
        lambda: replace(BUNDLE, x509=(b"c",) * 33),
        lambda: replace(BUNDLE, x509=(b"",)),
        lambda: replace(BUNDLE, x509=(b"c" * 8_193,)),
        lambda: replace(POLICY, revision="r" * 257),
        lambda: replace(POLICY, digest=b"h" * 31),
        lambda: replace(POLICY, size=0),
        lambda: replace(POLICY, location="l" * 257),
        lambda: replace(CHECKPOINT, note=b""),
        lambda: replace(CHECKPOINT, note=b"n" * 8_193),
    ],
)
def test_fields_have_limits(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(SealError):
        wrong()


def test_a_bundle_of_no_trust_domain_is_refused() -> None:
    value = decode(BUNDLE.encode())
    assert isinstance(value, dict)
    with pytest.raises(EnvelopeError):
        read(encode(value | {"dom": "Example.org"}))


def test_an_empty_x509_bundle_has_no_second_spelling() -> None:
    value = decode(BUNDLE.encode())
    assert isinstance(value, dict)
    with pytest.raises(EnvelopeError, match="x5c"):
        read(encode(value | {"x5c": []}))
