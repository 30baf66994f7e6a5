"""Which decisions about answers have a record: each by itself, a bounded number, and none that was not stored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.acceptance import statement

from sealbus.bus.audit.recorded_reads import MOST, RecordedReads, read_key
from sealbus.envelopes.message.user_context import parse_payload

USER = parse_payload(statement().payload)
DIGEST = bytes(32)
KEY = read_key(DIGEST, USER, revision="1", serial=1, code="", reasons=())


@pytest.mark.parametrize(
    "other",
    [
        read_key(bytes([1]) * 32, USER, revision="1", serial=1, code=""),
        read_key(DIGEST, None, revision="1", serial=1, code=""),
        read_key(DIGEST, replace(USER, sid="another"), revision="1", serial=1, code=""),
        # What is one text there is no other two here.
        read_key(DIGEST, replace(USER, idp=USER.idp + USER.sub, sub=""), revision="1", serial=1, code=""),
        read_key(DIGEST, USER, revision="2", serial=1, code=""),
        read_key(DIGEST, USER, revision="1", serial=2, code=""),
        read_key(DIGEST, USER, revision="1", serial=1, code="denied"),
        read_key(DIGEST, USER, revision="1", serial=1, code="", reasons=("r",)),
    ],
)
def test_each_decision_has_a_name_of_its_own(other: bytes) -> None:
    assert other != KEY
    assert read_key(DIGEST, USER, revision="1", serial=1, code="") == KEY


def test_what_is_remembered_is_bounded_and_the_one_not_asked_about_goes_first() -> None:
    reads = RecordedReads(2)
    reads.add(b"a")
    reads.add(b"b")
    assert b"a" in reads
    reads.add(b"c")
    assert (b"a" in reads, b"b" in reads, b"c" in reads) == (True, False, True)
    assert len(reads) == 2
    assert MOST == 65_536


def test_what_was_not_stored_is_not_remembered() -> None:
    reads = RecordedReads()
    reads.add(b"a")
    reads.forget(b"a")
    reads.forget(b"never there")
    assert b"a" not in reads
    assert len(reads) == 0
