"""Batches of records: evidence once, leaves as names, and what has no room is not half added."""

from __future__ import annotations

import pytest
from support.acceptance import BODY, EDGE, PLANNER, Message, context_draft
from support.audit import Archive, audit_message, decision_of, evidence_items, opened
from support.envelopes import HOUR, NOW, message_id, task_draft
from support.results import Requester, answer

from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.message.user_context import mint_context
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.trust.merkle import leaf_hash


def note(number: int, size: int = 8) -> bytes:
    return CheckpointRecord(note=number.to_bytes(size, "big")).encode()


def items(body: bytes) -> tuple[list[bytes], list[bytes]]:
    value = decode(body, items=4_096)
    assert isinstance(value, list)
    evidence, records = value[1:]
    assert isinstance(evidence, list)
    assert isinstance(records, list)
    return [item for item in evidence if isinstance(item, bytes)], [i for i in records if isinstance(i, bytes)]


def test_a_decision_and_everything_it_rests_on() -> None:
    message = opened()
    record = decision_of(message).encode()
    batch = AuditBatch()
    assert batch.add(record, message) == leaf_hash(record)
    closed = batch.close()
    evidence, records = items(closed.body)
    assert records == [record]
    assert sorted(evidence) == sorted(evidence_items(message).values())
    parsed = parse_audit_body(closed.body)
    assert parsed.root == closed.dig
    assert len(batch) == 1
    assert "ClosedBatch(...)" in repr(closed)


def test_what_it_makes_is_proved_again_by_the_archive() -> None:
    message = opened()
    batch = AuditBatch()
    batch.add(decision_of(message).encode(), message)
    evidence, [record] = items(batch.close().body)
    archive = Archive()
    proved = archive.decided(decision_of(message), evidence, body=BODY)
    assert proved.chain == message.chain
    assert archive.record(audit_message(evidence, [record])).body.root == batch.close().dig


def test_evidence_is_stored_once() -> None:
    batch = AuditBatch()
    first, second = opened(), opened(Message(body=b"{}"))
    batch.add(decision_of(first).encode(), first)
    before = batch.close()
    batch.add(decision_of(second).encode(), second)
    assert items(batch.close().body)[0] == items(before.body)[0]
    assert len(batch) == 2


def test_a_second_user_brings_a_context_and_a_root_but_no_credential() -> None:
    other = mint_context(context_draft()._replace(sub="u-2002"), EDGE)
    task = task_draft(1, aud="planner", verb="plan")._replace(context=other, end=NOW + 2 * HOUR)
    [root] = seal([task], EDGE)
    batch = AuditBatch()
    for expected, message in ((4, Message()), (6, Message(context=other, ancestors=(root.ancestor,)))):
        got = opened(message)
        batch.add(decision_of(got).encode(), got)
        assert len(items(batch.close().body)[0]) == expected


def test_a_message_without_user_and_chain_rests_on_its_credential() -> None:
    batch = AuditBatch()
    plain = opened(Message(context=None, ancestors=()))
    batch.add(decision_of(plain).encode(), plain)
    assert items(batch.close().body)[0] == [evidence_items(plain)["credential"]]
    with_user = opened()
    batch.add(decision_of(with_user).encode(), with_user)
    assert len(items(batch.close().body)[0]) == len(evidence_items(with_user))


def test_the_decision_on_a_reply_rests_on_its_credential() -> None:
    result = Requester().reply(answer())
    batch = AuditBatch()
    batch.add(note(1), result)
    batch.add(note(2), result)
    evidence, records = items(batch.close().body)
    assert len(evidence) == 1
    assert len(records) == 2


def test_a_repeated_record_is_there_once() -> None:
    batch = AuditBatch()
    assert batch.add(note(1)) == batch.add(note(1)) == leaf_hash(note(1))
    assert len(batch) == 1


def test_nothing_is_no_body() -> None:
    with pytest.raises(SealError):
        AuditBatch().close()


def test_what_has_no_room_by_size_is_left_out_whole() -> None:
    batch, number = AuditBatch(), 0
    while batch.add(note(number, 8_192)) is not None:
        number += 1
    closed = batch.close()
    assert 917_504 - 8_300 < len(closed.body) <= batch.size <= 917_504
    message = opened()
    large = decision_of(message).encode() + bytes(8_192)
    assert batch.add(large, message) is None
    assert batch.close() == closed
    assert AuditBatch().add(note(number, 8_192)) is not None


def test_what_has_no_room_by_number_is_left_out_whole() -> None:
    batch = AuditBatch()
    for number in range(4_095):
        assert batch.add(note(number)) is not None
    message = opened()
    assert batch.add(decision_of(message).encode(), message) is None
    assert batch.add(note(4_095)) is not None
    assert batch.add(note(4_096)) is None
    assert batch.add(note(7)) == leaf_hash(note(7))
    assert len(parse_audit_body(batch.close().body).records) == 4_096


def test_a_record_too_large_for_any_message_is_the_callers_fault() -> None:
    with pytest.raises(SealError, match="too large"):
        AuditBatch().add(bytes(917_504))


def test_the_size_is_an_upper_bound() -> None:
    batch = AuditBatch()
    for number in range(300):
        batch.add(note(number))
        assert len(batch.close().body) <= batch.size


def test_a_message_that_lost_its_context_was_not_verified() -> None:
    message = opened()
    for lost in (message._replace(statement=None), message._replace(context=None)):
        with pytest.raises(SealError, match="not verified"):
            AuditBatch().add(decision_of(message).encode(), lost)


def test_an_ancestor_that_is_there_came_with_its_own() -> None:
    # Two tasks that the planner sent itself while handling the edge's, and what it sent to us while handling those.
    first, second = (
        Message(
            sealer=PLANNER,
            fields={"id": message_id(number), "aud": PLANNER.iss.value, "to": "task.planner.step"},
        )
        for number in (20, 21)
    )
    batch = AuditBatch()
    for expected, parent in ((5, first), (6, second), (6, second)):
        got = opened(Message(ancestors=(parent.ancestor(), *parent.ancestors)))
        batch.add(decision_of(got).encode() + bytes([expected]), got)
        assert len(items(batch.close().body)[0]) == expected
