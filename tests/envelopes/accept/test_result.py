"""The result profile as a whole; its steps one by one are in test_result_steps.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.acceptance import Message, root_task, statement
from support.envelopes import MINUTE, NOW, message_id
from support.results import CALL, PRICING, TASK, Requester, answer

from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.message.kinds import Kind


def test_a_reply_is_accepted_and_closes_its_call() -> None:
    requester = Requester()
    result = requester.reply(answer())
    assert (result.header.kind, result.body, result.credential) == (Kind.REPLY, b'{"item":"42"}', PRICING.credential)
    assert result.request == PendingRequest.of(CALL)
    assert result.final
    assert requester.requests[CALL.digest].closed
    assert "item" not in repr(result)


def test_chunks_are_accepted_in_order() -> None:
    requester = Requester()
    finals = [
        requester.reply(answer("chunk", seq=seq, fin=True if seq == 2 else None, id=message_id(seq))).final
        for seq in range(3)
    ]
    assert finals == [False, False, True]
    assert requester.requests[CALL.digest].closed


def test_statuses_are_accepted_once() -> None:
    requester = Requester(now=NOW + MINUTE)
    first = requester.status(answer("status"))
    assert first is not None
    assert not first.final
    assert requester.status(answer("status")) is None
    last = requester.status(answer("status", seq=1, fin=True))
    assert last is not None
    assert last.final
    assert requester.status(answer("status", seq=1, fin=True)) is None
    with pytest.raises(EnvelopeError) as caught:
        requester.status(answer("status", seq=2, fin=True))
    assert caught.value.code is Code.UNEXPECTED_REPLY


def test_another_process_reads_by_handle() -> None:
    handle = PendingRequest.of(TASK).to_text()
    pending = PendingRequest.from_text(handle)
    requester = Requester(now=NOW + MINUTE, requests={pending.digest: OpenRequest(pending)})
    assert requester.status(answer("status", fin=True)) is not None


REFUSALS: list[tuple[Code, int, Message]] = [
    (Code.MALFORMED, 1, Message(elements={2: "text"})),
    (Code.MALFORMED, 2, answer(seq=0)),
    (Code.WRONG_KIND, 3, answer("status")),
    (Code.WRONG_SUBJECT, 3, answer(to="_INBOX.planner.2")),
    (Code.UNEXPECTED_REPLY, 4, answer(re=bytes(32))),
    (Code.UNEXPECTED_REPLY, 4, answer("chunk", seq=1)),
    (Code.EXPIRED, 5, answer(iat=NOW - MINUTE, exp=NOW)),
    (Code.BAD_CREDENTIAL, 7, answer(crd=bytes(32))),
    (Code.BAD_DIGEST, 9, answer(dig=bytes(32))),
]


@pytest.mark.parametrize(("code", "step", "message"), REFUSALS)
def test_a_refusal_changes_no_state(code: Code, step: int, message: Message) -> None:
    requester = Requester()
    with pytest.raises(EnvelopeError) as caught:
        requester.reply(message)
    assert (caught.value.code, caught.value.step) == (code, step)
    assert not requester.requests[CALL.digest].closed
    assert requester.reply(answer("chunk")).header.seq == 0


@pytest.mark.parametrize(
    ("code", "step", "break_"),
    [
        (Code.BAD_SIGNATURE, 8, lambda m: replace(m, proof=m.prf()._replace(signature=b"\x01" * 64))),
        (Code.BAD_CONTEXT, 10, lambda m: replace(m, elements={5: statement()})),
        (Code.BAD_CHAIN, 11, lambda m: replace(m, elements={6: (root_task().ancestor,)})),
    ],
)
def test_what_stands_beside_the_header_counts_too(code: Code, step: int, break_: Callable[[Message], Message]) -> None:
    requester, message = Requester(), break_(answer())
    with pytest.raises(EnvelopeError) as caught:
        requester.reply(message)
    assert (caught.value.code, caught.value.step) == (code, step)
    assert not requester.requests[CALL.digest].closed
    assert requester.reply(answer()).final


def test_an_answer_for_another_is_of_the_wrong_audience() -> None:
    with pytest.raises(EnvelopeError) as caught:
        Requester(own="inventory").reply(answer())
    assert (caught.value.code, caught.value.step) == (Code.WRONG_AUDIENCE, 4)


def test_another_subject_than_was_asked_for_is_unexpected() -> None:
    with pytest.raises(EnvelopeError) as caught:
        Requester(subject="_INBOX.planner.2").reply(answer(to="_INBOX.planner.2"))
    assert caught.value.code is Code.UNEXPECTED_REPLY
