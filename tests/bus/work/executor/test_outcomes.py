"""Outcomes: what is noted of a permitted message, and that its acknowledgement waits for the note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest
from support.audit import opened

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route
from sealbus.bus.work.executor.completion import Outcomes
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.errors import Code
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.records.work import OutcomeRecord

LEAF = b"l" * 32
ROUTE = Route(
    kind=Kind.TASK,
    subject="task.a.run",
    action="a.run",
    endpoint=None,
    options=HandlerOptions(retry=RetryPolicy()),
)
PERMITTED = Permitted(
    message=opened(), value=None, route=ROUTE, leaf=LEAF, sent=[b"a" * 32], cancellation=Cancellation()
)


class Audit:
    """Keeps what is noted, and holds back what is to follow."""

    def __init__(self) -> None:
        self.noted: list[OutcomeRecord] = []
        self.then: list[Callable[[], None]] = []

    async def note(self, record: OutcomeRecord, then: Callable[[], None]) -> None:
        self.noted.append(record)
        self.then.append(then)


class Acks:
    """A pull that keeps what was acknowledged."""

    def __init__(self) -> None:
        self.acked: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked += deliveries


def delivery(number: int | None) -> Delivery:
    place = None
    if number is not None:
        place = StreamArrival("task.a.run", b"", stream="TASKS", sequence=7, stored=1, created=1, delivery=number)
    return Delivery(subject="task.a.run", payload=b"", header_block=b"", arrival=place)


def work(number: int | None, pull: Acks | None = None) -> Work:
    made = Work(PERMITTED, delivery(number), cast("Pull | None", pull), {})
    made.started = 1_000
    return made


def outcomes(now: int) -> tuple[Outcomes, Audit]:
    audit = Audit()
    return Outcomes(cast("AuditWriter", audit), BusClock(lambda: now)), audit


@pytest.mark.parametrize("code", [None, Code.HANDLER_FAILED])
async def test_a_delivery_is_acknowledged_once_its_outcome_was_tried(code: Code | None) -> None:
    made, audit = outcomes(now=1_500)
    pull = Acks()
    given = work(3, pull)
    await made.settle(given, code)
    assert audit.noted == [
        OutcomeRecord(decision=LEAF, code=code, micros=500, delivery=3, sent=(b"a" * 32,), sent_count=1)
    ]
    assert pull.acked == []
    audit.then[0]()
    assert pull.acked == [given.delivery]


async def test_a_call_has_nothing_to_acknowledge() -> None:
    made, audit = outcomes(now=1_500)
    await made.settle(work(None), None)
    audit.then[0]()
    assert audit.noted[0].delivery == 1


async def test_a_note_alone_acknowledges_nothing() -> None:
    made, audit = outcomes(now=1_500)
    pull = Acks()
    await made.note(work(1, pull), None)
    audit.then[0]()
    assert pull.acked == []


async def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    made, audit = outcomes(now=900)
    await made.note(work(1), None)
    assert audit.noted[0].micros == 0
