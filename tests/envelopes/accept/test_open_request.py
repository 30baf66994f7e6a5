"""The state machine of answers: what may come next, and that a refusal changes nothing."""

from __future__ import annotations

import pytest
from support.acceptance import ISSUER, PLANNER
from support.envelopes import HOUR, MINUTE, NOW, agent, call_draft, reply_draft, signing_key, status_draft, task_draft

from sealbus.envelopes.accept.open_request import STATUSES, OpenRequest, PendingRequest
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal

PRICING = ISSUER.sealer(agent("pricing"))
REPLICA = ISSUER.sealer(agent("pricing"), key=signing_key("another replica"))
[CALL, TASK] = [sealed.header for sealed in seal([call_draft(), task_draft(aud="pricing")], PLANNER)]


def sealed(draft: Draft) -> Header:
    return seal([draft], PRICING)[0].header


def reply() -> Header:
    return sealed(reply_draft(CALL.digest, "_INBOX.planner.1"))


def chunk(seq: int, *, fin: bool = False) -> Draft:
    return reply_draft(CALL.digest, "_INBOX.planner.1", seq)._replace(kind=Kind.CHUNK, seq=seq, fin=fin)


def status(seq: int, *, fin: bool = False, number: int = 1) -> Header:
    return sealed(status_draft(TASK.digest, TASK.id, number, seq=seq)._replace(fin=fin))


def refused(request: OpenRequest, header: Header, reason: str, reference: int = NOW) -> None:
    with pytest.raises(EnvelopeError, match=reason) as caught:
        request.check(header, reference=reference)
    assert (caught.value.code, caught.value.step) == (Code.UNEXPECTED_REPLY, 4)


@pytest.fixture
def call() -> OpenRequest:
    return OpenRequest(PendingRequest.of(CALL))


@pytest.fixture
def task() -> OpenRequest:
    return OpenRequest(PendingRequest.of(TASK))


def test_a_reply_closes_a_call(call: OpenRequest) -> None:
    header = reply()
    call.check_sender(header)
    call.check(header, reference=NOW + MINUTE - 1)
    assert not call.closed
    call.take(header)
    assert call.closed
    refused(call, header, "closed")
    refused(call, sealed(chunk(0)), "closed")


def test_only_who_was_asked_answers(call: OpenRequest) -> None:
    other = seal([reply_draft(CALL.digest, "_INBOX.planner.1")], ISSUER.sealer(agent("inventory")))[0].header
    with pytest.raises(EnvelopeError, match="from an agent that was not asked") as caught:
        call.check_sender(other)
    assert (caught.value.code, caught.value.step) == (Code.UNEXPECTED_REPLY, 4)


def test_chunks_come_without_gaps_until_fin(call: OpenRequest) -> None:
    refused(call, sealed(chunk(1)), "a gap")
    for seq in range(3):
        header = sealed(chunk(seq, fin=seq == 2))
        call.check(header, reference=NOW)
        call.take(header)
        assert call.closed is (seq == 2)
        if seq < 2:
            refused(call, header, "a repeated chunk")
            refused(call, sealed(chunk(seq + 2)), "a gap")
    refused(call, sealed(chunk(3)), "closed")


def test_the_chunks_of_one_answer_have_one_key(call: OpenRequest) -> None:
    call.take(sealed(chunk(0)))
    [other] = seal([chunk(1)], REPLICA)
    refused(call, other.header, "another key")
    call.check(sealed(chunk(1)), reference=NOW)


def test_the_first_chunk_may_be_of_any_key(call: OpenRequest) -> None:
    [first] = seal([chunk(0)], REPLICA)
    call.check(first.header, reference=NOW)


def test_a_reply_may_end_an_answer_that_began_as_chunks(call: OpenRequest) -> None:
    call.take(sealed(chunk(0)))
    [failed] = seal([reply_draft(CALL.digest, "_INBOX.planner.1")], REPLICA)
    call.check(failed.header, reference=NOW)


def test_nothing_is_open_past_its_end(call: OpenRequest, task: OpenRequest) -> None:
    refused(call, reply(), "past its end", NOW + MINUTE)
    refused(task, status(0), "past its end", NOW + HOUR)
    task.check(status(0), reference=NOW + HOUR - 1)


def test_the_requester_concludes_expired_at_end(call: OpenRequest) -> None:
    assert not call.expired(NOW + MINUTE - 1)
    assert call.expired(NOW + MINUTE)
    call.take(reply())
    assert not call.expired(NOW + MINUTE)


def test_statuses_count_once_and_the_first_terminal_one_wins(task: OpenRequest) -> None:
    for header in (status(0), status(5)):
        assert not task.counted(header)
        task.check(header, reference=NOW)
        task.take(header)
        assert task.counted(header)
    assert task.counted(status(0, number=9))
    assert not task.closed
    done = status(3, fin=True)
    task.check(done, reference=NOW)
    task.take(done)
    assert task.closed
    refused(task, status(4, fin=True), "closed")
    assert task.counted(done)
    assert task.counted(status(5))


def test_so_many_statuses_are_counted(task: OpenRequest) -> None:
    for seq in range(STATUSES):
        task.take(TASK._replace(kind=Kind.STATUS, seq=seq))
    refused(task, status(STATUSES), "too many")
    task.check(status(STATUSES, fin=True), reference=NOW)


def test_a_check_changes_nothing(call: OpenRequest) -> None:
    header = sealed(chunk(0))
    call.check(header, reference=NOW)
    call.check(header, reference=NOW)
    assert not call.closed


@pytest.mark.parametrize("later", [HOUR, -HOUR])
def test_a_task_that_is_parked_is_open_until_its_agent_says(task: OpenRequest, later: int) -> None:
    end = task.pending.end
    task.take(status(0))
    moved = task.until(end + later)
    assert (moved.pending.end, task.pending.end) == (end + later, end)
    assert moved.counted(status(0, number=2))
    moved.check(status(1), reference=end + later - 1)
    refused(moved, status(1), "past its end", reference=end + later)
    # What it counts from now on is its own.
    moved.take(status(1))
    assert not task.counted(status(1, number=2))
    moved.take(status(2, fin=True))
    assert moved.until(end).closed
    assert not task.closed
