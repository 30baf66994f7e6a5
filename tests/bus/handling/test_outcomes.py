"""Outcomes: what is noted of a permitted message, and that its acknowledgement waits for the note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.handling.completion import Outcomes, delivery_of
from sealbus.bus.ports import Delivery, Pull, StreamPosition
from sealbus.bus.routing.routes import Permitted, Route
from sealbus.bus.routing.stages import Work
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code

LEAF = b"l" * 32
PERMITTED = Permitted(
    message=cast("VerifiedMessage", None), value=None, route=cast("Route", None), leaf=LEAF, sent=[b"a" * 32]
)


class Audit:
    """Keeps what is noted, and holds back what is to follow."""

    def __init__(self) -> None:
        self.noted: list[dict[str, Any]] = []
        self.then: list[Callable[[], None]] = []

    async def outcome(self, *, then: Callable[[], None], **record: Any) -> None:
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
        place = StreamPosition(stream="TASKS", sequence=7, stored=1, created=1, delivery=number)
    return Delivery(subject="task.a.run", payload=b"", header_block=b"", position=place)


def outcomes(now: int) -> tuple[Outcomes, Audit]:
    audit = Audit()
    return Outcomes(cast("AuditWriter", audit), lambda: now), audit


@pytest.mark.parametrize("code", [None, Code.HANDLER_FAILED])
async def test_a_delivery_is_acknowledged_once_its_outcome_was_tried(code: Code | None) -> None:
    made, audit = outcomes(now=1_500)
    pull = Acks()
    work = Work(permitted=PERMITTED, delivery=delivery(3), pull=cast("Pull", pull))
    await made.settle(work, code, started=1_000)
    assert audit.noted == [{"decision": LEAF, "code": code, "micros": 500, "delivery": 3, "sent": [b"a" * 32]}]
    assert pull.acked == []
    audit.then[0]()
    assert pull.acked == [work.delivery]


async def test_a_call_has_nothing_to_acknowledge() -> None:
    made, audit = outcomes(now=1_500)
    work = Work(permitted=PERMITTED, delivery=delivery(None), pull=None)
    await made.settle(work, None, started=1_000)
    audit.then[0]()
    assert audit.noted[0]["delivery"] == delivery_of(work) == 1


async def test_a_note_alone_acknowledges_nothing() -> None:
    made, audit = outcomes(now=1_500)
    pull = Acks()
    await made.note(Work(permitted=PERMITTED, delivery=delivery(1), pull=cast("Pull", pull)), None, started=1_000)
    audit.then[0]()
    assert pull.acked == []


async def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    made, audit = outcomes(now=900)
    await made.note(Work(permitted=PERMITTED, delivery=delivery(1), pull=None), None, started=1_000)
    assert audit.noted[0]["micros"] == 0
