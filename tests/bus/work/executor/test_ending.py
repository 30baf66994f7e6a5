"""The ending that follows each outcome, by table; no broker, clock or store is needed for it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import INVENTORY
from support.audit import opened

from sealbus.bus.ports import Delivery, Settlement
from sealbus.bus.routing.cancellation import Canceled, Cancellation
from sealbus.bus.routing.retry import UNTIL_EXPIRY, Reject, Retry, RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route, TaskReporter
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE
from sealbus.bus.sending.status import State
from sealbus.bus.work.executor.ending import (
    LASTING,
    Acknowledge,
    Again,
    AnswerError,
    Bury,
    Cancel,
    Close,
    Completed,
    Done,
    Ending,
    Expired,
    Failed,
    NotBegun,
    NotRunnable,
    Outcome,
    Park,
    Rejected,
    Repeat,
    Stopped,
    TurnDown,
    decide_end,
    decide_refusal,
    is_retried,
    passed_on,
)
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import AlreadyDone
from sealbus.envelopes.denial import NOTHING_TOLD, Explanation, RemedyKind
from sealbus.envelopes.errors import Code, HandlingError, ObligationUnknown, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.decision import Decision

MESSAGE = opened()
assert isinstance(MESSAGE.arrival, StreamArrival)
NOW = MESSAGE.arrival.stored
LEFT = (MESSAGE.header.exp - NOW) // SECOND
"""Seconds until the message expires."""
RETRY = RetryPolicy(initial_interval=2.0, maximum_interval=2.0, jitter=0.0, maximum_attempts=3)
RESULT = Content(body=b"1", typ="application/json")
PARTS = Content(body=b"1", typ=PARTS_TYPE)
CANCELED = Canceled(by=INVENTORY, reason="a mistake")
DENIED = HandlingError(Code.DENIED, "a request of the handler was denied", Explanation(reasons=("limit",)))
FAILURE = HandlingError(Code.HANDLER_FAILED, "ValueError")


def work(
    *, retry: RetryPolicy = RETRY, total: float = math.inf, number: int = 1, status: bool = True, shows: bool = False
) -> Work:
    """Return delivery `number` of a task whose route retries by `retry`."""
    route = Route(
        kind=Kind.TASK,
        subject=MESSAGE.header.to,
        action="inventory.update",
        endpoint=None,
        options=HandlerOptions(retry=retry, total_timeout=total, status=status),
    )
    permitted = Permitted(
        message=MESSAGE,
        value=None,
        route=route,
        leaf=b"",
        sent=[],
        cancellation=Cancellation(),
        obligations=({"type": "show_reasons"},) if shows else (),
        reporter=cast("TaskReporter", object()),
    )
    arrival = cast("StreamArrival", MESSAGE.arrival)
    one = StreamArrival(
        subject=arrival.subject,
        header_block=b"",
        stream=arrival.stream,
        sequence=arrival.sequence,
        stored=arrival.stored,
        created=arrival.created,
        delivery=number,
    )
    delivery = Delivery(subject=arrival.subject, payload=b"", header_block=b"", arrival=one)
    return Work(permitted, delivery, cast("Settlement", object()), {})


def ending(outcome: Outcome, task: Work | None = None, *, now: int = NOW) -> Ending:
    return decide_end(task or work(), outcome, now=now, random=0.0)


TABLE: dict[str, tuple[Outcome, Ending]] = {
    "it returned": (Completed(RESULT), Done(RESULT)),
    "it was canceled": (Stopped(CANCELED), Cancel(CANCELED)),
    "its time was over": (Expired(), Close(State.EXPIRED, Code.EXPIRED, "expired")),
    "nothing may run": (NotRunnable(FAILURE), Bury(FAILURE)),
    "its handler rejects it": (
        Rejected(Reject("sold_out", note="none left")),
        Close(State.FAILED, "sold_out", "rejected", extra="by its handler", note="none left"),
    ),
    "it was done, and is told": (AlreadyDone(result=RESULT, same=True, told=True), Acknowledge()),
    "it was done, and is not told": (AlreadyDone(result=RESULT, same=True, told=False), Repeat(RESULT)),
    "another copy was done": (AlreadyDone(result=RESULT, same=False, told=False), Repeat(RESULT)),
    "it was done in parts": (AlreadyDone(result=PARTS, same=True, told=False), Repeat(PARTS)),
    "another copy was done in parts": (
        AlreadyDone(result=PARTS, same=False, told=False),
        Close(
            State.FAILED,
            Code.REPLAYED,
            "not done again",
            note="done for an earlier copy; its result is in parts, which are that copy's",
        ),
    ),
    "its result is gone": (
        AlreadyDone(result=None, same=True, told=False),
        Close(
            State.FAILED,
            Code.REPLAYED,
            "not done again",
            note="done for an earlier copy; its result is not kept any more",
        ),
    ),
    "it failed once": (Failed(FAILURE, number=1), Again(Code.HANDLER_FAILED, 2.0, failed=FAILURE, number=1)),
    "it failed twice": (Failed(FAILURE, number=2), Again(Code.HANDLER_FAILED, 2.0, failed=FAILURE, number=2)),
    "it failed for the last time": (Failed(FAILURE, number=3), Bury(FAILURE)),
    "it failed because it was canceled": (Failed(FAILURE, canceled=CANCELED, number=1), Cancel(CANCELED)),
    "its own request was denied": (
        Failed(DENIED),
        Close(State.REJECTED, Code.DENIED, "denied", extra="a request of its handler was denied"),
    ),
}


@pytest.mark.parametrize(("outcome", "expected"), TABLE.values(), ids=TABLE)
def test_each_outcome_has_its_ending(outcome: Outcome, expected: Ending) -> None:
    assert ending(outcome) == expected


@pytest.mark.parametrize("typ", [PARTS_TYPE + "0", PARTS_TYPE.upper()])
def test_a_result_of_another_type_is_no_result_in_parts(typ: str) -> None:
    result = Content(body=b"1", typ=typ)
    assert ending(AlreadyDone(result=result, same=False, told=False)) == Repeat(result)


@pytest.mark.parametrize("code", sorted(LASTING))
def test_a_lasting_failure_is_not_tried_again(code: Code) -> None:
    failure = HandlingError(code, "")
    assert ending(Failed(failure, number=1)) == Bury(failure)


def test_a_failure_that_the_policy_names_is_not_tried_again() -> None:
    failure = HandlingError(Code.HANDLER_FAILED, "ValueError")
    failure.__cause__ = ValueError()
    task = work(retry=RetryPolicy(initial_interval=2.0, non_retryable=(ValueError,)))
    assert ending(Failed(failure, number=1), task) == Bury(failure)


def test_the_handlers_own_wait_stands_in_place_of_the_interval() -> None:
    requested = Retry(after=7.0, note="later")
    failure = HandlingError(Code.HANDLER_FAILED, "Retry")
    expected = Again(Code.HANDLER_FAILED, 7.0, failed=failure, number=1, requested=requested)
    assert ending(Failed(failure, requested, number=1)) == expected


def test_a_task_whose_attempts_took_too_long_together_fails_for_that() -> None:
    over = ending(Failed(FAILURE, number=1), work(total=1.5))
    assert isinstance(over, Bury)
    assert over.failure.code is Code.HANDLER_TIMEOUT
    assert over.failure.detail == "over 1.5 s in all"
    # Where the message itself ends first or with them, or this was the last attempt, that failure is the reason.
    late, until_exp = MESSAGE.header.exp - SECOND, (MESSAGE.header.exp - NOW) / SECOND
    for total in (until_exp, until_exp + 1.0):
        assert ending(Failed(FAILURE, number=1), work(total=total), now=late) == Bury(FAILURE)
    assert ending(Failed(FAILURE, number=3), work(total=1.5)) == Bury(FAILURE)


def test_a_denial_is_explained_where_the_decision_shows_reasons() -> None:
    closed = ending(Failed(DENIED), work(shows=True))
    assert isinstance(closed, Close)
    assert closed.explanation.reasons == ("limit",)
    assert [denier.agent for denier in closed.explanation.via] == [INVENTORY.value]
    # Nothing else that failed is explained.
    other = HandlingError(Code.HANDLER_FAILED, "ValueError", Explanation(reasons=("limit",)))
    assert passed_on(work(shows=True).permitted, other) == NOTHING_TOLD


def test_a_denial_is_not_counted_as_a_failed_attempt() -> None:
    assert not is_retried(work(), DENIED)
    assert is_retried(work(), FAILURE)


def test_a_task_without_statuses_is_acknowledged_once_it_was_done() -> None:
    done = AlreadyDone(result=RESULT, same=False, told=False)
    assert ending(done, work(status=False)) == Acknowledge()


def test_a_message_that_waits_for_a_copy_is_looked_at_with_backoff() -> None:
    first = ending(NotBegun(Code.OVERLOADED, 0.001))
    assert isinstance(first, Again)
    assert first.delay == UNTIL_EXPIRY.delay(1, random=0.0, now=NOW, until=MESSAGE.header.exp)
    assert ending(NotBegun(Code.OVERLOADED, LEFT - 1.0)) == Again(Code.OVERLOADED, LEFT - 1.0)
    # A copy with more time may be done, or have failed, long before: this one is tried while it lives.
    assert ending(NotBegun(Code.OVERLOADED, LEFT + 1.0)) == first
    soon = MESSAGE.header.exp - 10 * SECOND
    assert ending(NotBegun(Code.OVERLOADED, 10.0), now=soon) == first


@pytest.mark.parametrize("seconds", [None, 0.5, 1e6])
def test_a_message_that_expires_before_its_next_try_is_closed(seconds: float | None) -> None:
    late = MESSAGE.header.exp - 1
    assert ending(NotBegun(Code.STATE_UNAVAILABLE, seconds), now=late) == Close(
        State.EXPIRED, Code.STATE_UNAVAILABLE, "expired"
    )
    # While another copy is handled nothing final is known, and nothing is told.
    assert ending(NotBegun(Code.REPLAYED, seconds), now=late) == Close(
        State.EXPIRED, Code.REPLAYED, "expired", is_told=False
    )


@given(
    number=st.integers(1, 6),
    random=st.floats(0, 1, exclude_max=True),
    now=st.integers(NOW, MESSAGE.header.exp + SECOND),
    seconds=st.none() | st.floats(0, 2 * LEFT),
    total=st.floats(0.1, 2 * LEFT),
)
def test_no_message_is_put_off_beyond_its_end(
    number: int, random: float, now: int, seconds: float | None, total: float
) -> None:
    task = work(number=number, total=total)
    for outcome in (NotBegun(Code.OVERLOADED, seconds), Failed(FAILURE, number=number)):
        decided = decide_end(task, outcome, now=now, random=random)
        if isinstance(decided, Again):
            assert decided.delay > 0
            assert now + decided.delay * SECOND < task.exp
            assert decided.failed is None or number < 3
        else:
            assert isinstance(decided, Bury if isinstance(outcome, Failed) else Close)


def refused(
    kind: Kind,
    *,
    parks: bool = False,
    obligations: tuple[dict[str, object], ...] = (),
    error: SealbusError | None = None,
) -> Decided:
    header = cast("Header", SimpleNamespace(kind=kind, aud=MESSAGE.header.aud))
    task = Opened(
        Delivery(subject="", payload=b"", header_block=b""),
        work().permitted.route,
        MESSAGE._replace(header=header),
        NOW,
    )
    allow = error is not None
    decision = Decision(allow=allow, reasons=("limit",), obligations=obligations, revision="r1", engine="embedded")
    return Decided(task, decision=decision, error=error, parks=parks)


APPROVAL: dict[str, object] = {"type": "approval", "queue": "refunds", "text": "Refund?", "until": 60, "count": 1}
REASONS: dict[str, object] = {"type": "show_reasons"}


def test_a_refused_task_is_turned_down_or_parked() -> None:
    assert decide_refusal(refused(Kind.TASK), can_park=True) == TurnDown(Code.DENIED, NOTHING_TOLD)
    assert decide_refusal(refused(Kind.TASK, parks=True), can_park=True) == Park(NOTHING_TOLD)
    assert decide_refusal(refused(Kind.TASK, parks=True), can_park=False) == TurnDown(Code.DENIED, NOTHING_TOLD)


def test_a_refused_call_is_answered_and_told_of_the_approval_that_a_task_could_wait_for() -> None:
    assert decide_refusal(refused(Kind.CALL), can_park=True) == AnswerError(Code.DENIED, NOTHING_TOLD)
    shown = decide_refusal(refused(Kind.CALL, obligations=(REASONS, APPROVAL)), can_park=True)
    assert isinstance(shown, AnswerError)
    assert shown.explanation.reasons == ("limit",)
    assert shown.explanation.remedies[0].kind is RemedyKind.APPROVAL


def test_only_a_denied_call_is_told_of_an_approval() -> None:
    denied_task = decide_refusal(refused(Kind.TASK, obligations=(REASONS, APPROVAL)), can_park=True)
    failed_call = decide_refusal(
        refused(Kind.CALL, obligations=(REASONS, APPROVAL), error=ObligationUnknown("watermark")), can_park=True
    )
    for refusal in (denied_task, failed_call):
        assert refusal.explanation.remedies == ()
    assert isinstance(failed_call, AnswerError)
    assert failed_call.code is Code.OBLIGATION_UNKNOWN
