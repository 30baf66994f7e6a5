"""Audit bodies: items under one root, read back whole or not at all."""

from __future__ import annotations

import pytest
from support.both_readers import parse_audit_body

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.records.body import credential_item, encode_audit_body
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.proof import Credential

EVIDENCE = credential_item(Credential(1, b"token"))
FIRST = CheckpointRecord(note=b"first")
SECOND = CheckpointRecord(note=b"second")


def test_items_are_leaves_evidence_first() -> None:
    items = [EVIDENCE, FIRST.encode(), SECOND.encode()]
    body = encode_audit_body(items[:1], items[1:])
    assert body == encode([1, [items[0]], [items[1], items[2]]])
    parsed = parse_audit_body(body)
    leaves = [leaf_hash(item) for item in items]
    assert parsed.leaves == tuple(leaves)
    assert parsed.root == root(leaves)
    assert parsed.records == {leaves[1]: FIRST, leaves[2]: SECOND}
    assert list(parsed.records.values()) == [FIRST, SECOND]
    assert list(parsed.evidence.credentials.values()) == [Credential(1, b"token")]


def test_a_repeated_record_counts_once() -> None:
    item = FIRST.encode()
    parsed = parse_audit_body(encode_audit_body([], [item, item]))
    assert list(parsed.records.values()) == [FIRST]
    assert len(parsed.leaves) == 2


def test_evidence_alone_is_a_body() -> None:
    assert parse_audit_body(encode_audit_body([EVIDENCE], [])).records == {}


def test_a_body_has_1_to_4096_items_and_a_size() -> None:
    with pytest.raises(SealError, match="items"):
        encode_audit_body([], [])
    with pytest.raises(SealError, match="items"):
        encode_audit_body([b"e"], [b"r"] * 4_096)
    with pytest.raises(SealError, match="limit"):
        encode_audit_body([], [b"r" * 917_500])
    assert len(encode_audit_body([], [b"r" * (917_504 - 9)])) == 917_504


def test_4096_items_are_read() -> None:
    items = [CheckpointRecord(note=b"%d" % number).encode() for number in range(4_095)]
    parsed = parse_audit_body(encode_audit_body([EVIDENCE], items))
    assert len(parsed.records) == 4_095


GOOD: list[Value] = [EVIDENCE]


@pytest.mark.parametrize(
    "value",
    [
        {},
        [1, []],
        [1, [], [], []],
        [2, GOOD, []],
        [True, GOOD, []],
        ["1", GOOD, []],
        [1, [], []],
        [1, EVIDENCE, []],
        [1, b"", [FIRST.encode()]],
        [1, {}, [FIRST.encode()]],
        [1, ["credential"], []],
        [1, GOOD, EVIDENCE],
        [1, [EVIDENCE, "credential"], []],
        [1, ["credential", EVIDENCE], []],
        [1, [EVIDENCE], [FIRST.encode(), "record"]],
        [1, ["credential"], [FIRST.encode()]],
        [1, [EVIDENCE, "credential"], [FIRST.encode()]],
        [1, [], ["record"]],
        [1, [b"\xc1"], []],
        [1, [], [b"\xc1"]],
        [1, [EVIDENCE, EVIDENCE], []],
        [1, [FIRST.encode()], []],
        [1, [], [FIRST.encode(), EVIDENCE]],
    ],
)
def test_a_body_that_is_not_one_is_bad_digest(value: Value) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_audit_body(encode(value))
    assert (caught.value.code, caught.value.step) == (Code.BAD_DIGEST, 9)


def test_too_many_items_together_are_bad_digest() -> None:
    items: list[Value] = [CheckpointRecord(note=b"%d" % number).encode() for number in range(4_096)]
    with pytest.raises(EnvelopeError, match="number of items"):
        parse_audit_body(encode([1, GOOD, items]))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01\x90", encode([1, [], [b"\xc1"]]) + b"\x00"])
def test_bytes_that_are_no_value_are_bad_digest(body: bytes) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_audit_body(body)
    assert (caught.value.code, caught.value.step) == (Code.BAD_DIGEST, 9)
