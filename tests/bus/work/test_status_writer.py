"""The writer of statuses: numbered, addressed to who asked, and never in the way for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

import pytest
from support.audit import opened
from support.envelopes import NAMES

from sealbus.bus.ports import Delivery
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.sending.status import PER_DELIVERY, STATUS_TYPE, State, Status
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.status_writer import Statuses, StatusReporter
from sealbus.envelopes.errors import BusUnavailable, SealbusError
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind

TASK = opened()


class Box:
    """An outbox that keeps messages, fails, or never answers."""

    def __init__(self) -> None:
        self.messages: list[OutgoingMessage] = []
        self.error: Exception | None = None
        self.silent = False

    async def publish(self, message: OutgoingMessage, *, within: float) -> Posted:
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.messages.append(message)
        return cast("Posted", None)

    async def publish_each(
        self, messages: Sequence[OutgoingMessage], *, within: float
    ) -> Sequence[Posted | SealbusError]:
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.messages += messages
        # The stream has no room for the second.
        return [BusUnavailable("full") if place == 1 else cast("Posted", None) for place in range(len(messages))]


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def counters() -> Counters:
    return Counters()


def reporter(box: Box, counters: Counters, *, delivery: int = 1, within: float = 5.0) -> StatusReporter:
    statuses = Statuses(names=NAMES, outbox=cast("Outbox", box), counters=counters, within=within)
    arrival = StreamArrival("task.a.run", b"", "TASKS", 7, stored=1, created=1, delivery=delivery)
    made = statuses.reporter(TASK, Delivery(subject="task.a.run", payload=b"", header_block=b"", arrival=arrival))
    assert made is not None
    return made


async def test_a_status_goes_to_who_asked_about_what_it_asked(box: Box, counters: Counters) -> None:
    await reporter(box, counters).tell(State.WORKING, note="half")
    (message,) = box.messages
    assert message.draft.kind is Kind.STATUS
    assert message.draft.to == f"status.planner.{TASK.header.id.hex()}"
    assert (message.draft.aud, message.draft.re, message.draft.tid) == (
        TASK.header.iss,
        TASK.header.digest,
        TASK.header.tid,
    )
    assert (message.draft.typ, message.draft.fin, message.draft.seq) == (STATUS_TYPE, False, 0)
    assert counters.value("sealbus_statuses_total", state="working", outcome="stored") == 1


async def test_a_result_is_the_status_and_final(box: Box, counters: Counters) -> None:
    await reporter(box, counters).completed(Content(body=b"[1]", typ="application/json"))
    await reporter(box, counters).completed(None)
    assert [(one.draft.body, one.draft.typ, one.draft.fin) for one in box.messages] == [
        (b"[1]", "application/json", True),
        (b"null", "application/json", True),
    ]


async def test_numbers_follow_the_calls_and_start_anew_with_each_delivery(box: Box, counters: Counters) -> None:
    first, second = reporter(box, counters), reporter(box, counters, delivery=2)
    early = first.numbered(State.WORKING)
    await first.tell(State.WORKING)
    await first.store(early)
    await second.tell(State.WORKING)
    assert [one.draft.seq for one in box.messages] == [1, 0, PER_DELIVERY]


async def test_the_end_has_a_number_that_no_other_status_of_its_delivery_can_have(box: Box, counters: Counters) -> None:
    """A consumer that was made anew counts deliveries from 1 again: its end must not pass for what counted before."""
    await reporter(box, counters).tell(State.WORKING)
    await reporter(box, counters).completed(None)
    await reporter(box, counters, delivery=2).tell(State.FAILED, code="denied")
    assert [one.draft.seq for one in box.messages] == [0, PER_DELIVERY - 1, 2 * PER_DELIVERY - 1]


async def test_a_number_is_kept_for_the_end(box: Box, counters: Counters) -> None:
    own = reporter(box, counters)
    for _ in range(PER_DELIVERY - 1):
        assert own.numbered(State.WORKING) is not None
    await own.tell(State.WORKING)
    assert box.messages == []
    await own.tell(State.FAILED, code="denied")
    assert [one.draft.seq for one in box.messages] == [PER_DELIVERY - 1]


async def test_what_cannot_be_stored_is_counted_and_logged(
    box: Box, counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    box.error = BusUnavailable("away")
    with caplog.at_level(logging.WARNING):
        await reporter(box, counters).tell(State.WORKING, note="a note that no log may hold")
    assert counters.value("sealbus_statuses_total", state="working", outcome="bus_unavailable") == 1
    assert "status working" in caplog.text
    assert "no log" not in caplog.text


async def test_what_is_never_acknowledged_ends_by_itself(box: Box, counters: Counters) -> None:
    box.silent = True
    await reporter(box, counters, within=0.01).tell(State.WORKING)
    assert counters.value("sealbus_statuses_total", state="working", outcome="timeout") == 1


async def test_being_cancelled_is_not_swallowed(box: Box, counters: Counters) -> None:
    box.silent = True
    waiting = asyncio.create_task(reporter(box, counters).tell(State.WORKING))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def three() -> list[tuple[Header, Status | None]]:
    """Statuses of three tasks, and one that is too much in between."""
    said = [
        (TASK.header, Status(state=State.COMPLETED, result=Content(body=b"%d" % n, typ="application/json")))
        for n in range(3)
    ]
    return [said[0], (TASK.header, None), said[1], said[2]]


async def test_statuses_of_several_tasks_leave_together_and_each_has_its_own_end(box: Box, counters: Counters) -> None:
    told = await Statuses(names=NAMES, outbox=cast("Outbox", box), counters=counters).store_each(three())
    assert told == [True, False, False, True]
    assert [message.draft.body for message in box.messages] == [b"0", b"1", b"2"]
    assert counters.value("sealbus_statuses_total", state="completed", outcome="stored") == 2
    assert counters.value("sealbus_statuses_total", state="completed", outcome="bus_unavailable") == 1


@pytest.mark.parametrize("outcome", ["timeout", "bus_unavailable"])
async def test_what_keeps_all_from_being_stored_is_counted_for_each(box: Box, counters: Counters, outcome: str) -> None:
    if outcome == "timeout":
        box.silent = True
    else:
        box.error = BusUnavailable("closed")
    statuses = Statuses(names=NAMES, outbox=cast("Outbox", box), counters=counters, within=0.01)
    assert await statuses.store_each(three()) == [False] * 4
    assert counters.value("sealbus_statuses_total", state="completed", outcome=outcome) == 3
