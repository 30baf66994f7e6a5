"""Entries: the bytes that are hashed, and values that no entry can have."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import (
    Entry,
    EntryKind,
    creation_entry,
    gap_entry,
    previous_entry,
    unverified_entry,
    verified_entry,
)
from sealbus.envelopes.trust.merkle import leaf_hash

MAX = 2**53 - 1


def spelled(kind: int, sequence: int, time: int, digest: bytes) -> bytes:
    """The definition of SPEC.md section 13, word for word."""
    return sha256(
        b"sealbus.entry.v1" + bytes([kind]) + sequence.to_bytes(8, "big") + time.to_bytes(8, "big") + digest
    ).digest()


def test_each_kind_is_hashed_as_it_is_written() -> None:
    header, payload, note = sha256(b"header").digest(), b"payload", b"note"
    assert verified_entry(7, time=9, header_digest=header).hash == spelled(1, 7, 9, header)
    assert unverified_entry(7, time=9, payload=payload).hash == spelled(0, 7, 9, sha256(payload).digest())
    count = sha256((3).to_bytes(8, "big")).digest()
    assert gap_entry(7, 3, time=9).hash == spelled(2, 7, 9, count)
    assert creation_entry("AUDIT", created=9).hash == spelled(3, 0, 9, sha256(b"AUDIT").digest())
    assert previous_entry(note, created=9).hash == spelled(4, 0, 9, sha256(note).digest())


def test_a_leaf_is_the_hash_of_the_entry() -> None:
    entry = gap_entry(1, MAX, time=MAX)
    assert entry.leaf == leaf_hash(entry.hash)


def test_how_many_sequences_an_entry_stands_for() -> None:
    assert gap_entry(7, 3, time=9).count == 3
    assert unverified_entry(7, time=9, payload=b"").count == 1
    assert creation_entry("AUDIT", created=9).count == previous_entry(b"", created=9).count == 0


def refused(kind: EntryKind, sequence: int, time: int, digest: bytes, count: int) -> str:
    with pytest.raises(LogError) as caught:
        Entry(kind, sequence, time, digest, count)
    assert caught.value.code is Code.BAD_ENTRY
    return caught.value.detail


@pytest.mark.parametrize(
    ("kind", "sequence", "time", "digest", "count", "what"),
    [
        (EntryKind.VERIFIED, 1, 1, bytes(31), 1, "digest"),
        (EntryKind.VERIFIED, 1, 1, bytearray(32), 1, "digest"),
        (EntryKind.VERIFIED, 1, -1, bytes(32), 1, "time"),
        (EntryKind.VERIFIED, 1, MAX + 1, bytes(32), 1, "time"),
        (EntryKind.VERIFIED, 0, 1, bytes(32), 1, "sequence"),
        (EntryKind.VERIFIED, MAX + 1, 1, bytes(32), 1, "sequence"),
        (EntryKind.CREATION, 1, 1, bytes(32), 0, "sequence"),
        (EntryKind.PREVIOUS, 1, 1, bytes(32), 0, "sequence"),
        (EntryKind.VERIFIED, 1, 1, bytes(32), 2, "count"),
        (EntryKind.CREATION, 0, 1, bytes(32), 1, "count"),
        (EntryKind.GAP, 1, 1, bytes(32), 1, "count"),
        (EntryKind.GAP, 1, 1, sha256(bytes(8)).digest(), 0, "count"),
        (EntryKind.GAP, 1, 1, sha256((MAX + 1).to_bytes(8, "big")).digest(), MAX + 1, "count"),
    ],
)
def test_what_no_entry_can_be(kind: EntryKind, sequence: int, time: int, digest: bytes, count: int, what: str) -> None:
    assert refused(kind, sequence, time, digest, count) == what


@pytest.mark.parametrize("count", [0, -1, MAX + 1])
def test_a_gap_has_something_missing(count: int) -> None:
    with pytest.raises(LogError, match="count"):
        gap_entry(1, count, time=1)


def test_the_edges_of_places() -> None:
    top = 2**53 - 1
    for sequence, time in ((1, 0), (top, top)):
        entry = unverified_entry(sequence, time=time, payload=b"")
        assert (entry.sequence, entry.time) == (sequence, time)
    assert gap_entry(1, 1, time=0).count == 1
    gap = gap_entry(1, 2, time=0)
    with pytest.raises(LogError):
        replace(gap, digest=gap.digest[:-1] + bytes([gap.digest[-1] ^ 1]))
