"""The reader of statuses: each reading by itself, bounded, and gone without a trace."""

from __future__ import annotations

import asyncio

import pytest
from support.status_desk import Desk

from sealbus.bus.gate.status_reader import StatusLimits
from sealbus.bus.ports import Overloaded
from sealbus.bus.sending.status import PER_DELIVERY, State
from sealbus.envelopes.denial import Remedy, RemedyKind


async def test_each_reading_is_by_itself_and_leaves_nothing() -> None:
    desk = Desk()
    desk.say("rejected", 0, code="denied", reasons=["not_owner"])
    readings = await asyncio.gather(desk.read(), desk.read())
    assert readings[0] == readings[1]
    assert [(one.state, one.code, one.reasons) for one in readings[0]] == [(State.REJECTED, "denied", ("not_owner",))]
    assert desk.reader.reading == 0
    assert desk.broker.streams["RESULTS"].arrived == []
    assert desk.engine.asked == []


@pytest.mark.parametrize(("front", "shown"), [("pricing", 2), ("stock", 0)])
async def test_who_denied_is_shown_only_if_it_begins_with_who_signed(front: str, shown: int) -> None:
    desk = Desk()
    via = [[f"spiffe://example.org/agent/{one}", f"{one}.update", "denied"] for one in (front, "vault")]
    desk.say("rejected", 0, code="denied", via=via, remedy=[{"kind": "login"}])
    (status,) = await desk.read()
    assert len(status.via) == shown
    assert status.remedies == (Remedy(kind=RemedyKind.LOGIN),)


async def test_what_is_left_early_leaves_nothing() -> None:
    desk = Desk()
    waiting = asyncio.ensure_future(desk.read())
    await desk.read_from()
    assert desk.reader.reading == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert desk.reader.reading == 0
    assert desk.broker.streams["RESULTS"].arrived == []


async def test_after_leaves_out_what_was_seen() -> None:
    desk = Desk()
    desk.say("working", 0)
    desk.done(1)
    assert [one.sequence for one in await desk.read(after=0)] == [1]
    assert await desk.read(after=1) == []
    assert len(desk.engine.asked) == 1


@pytest.mark.parametrize("follow", [True, False])
async def test_the_end_counts_also_if_it_is_of_an_earlier_delivery(follow: bool) -> None:
    """As when two replicas had the task at once, and the first of them ended it."""
    desk = Desk()
    desk.say("working", 0)
    desk.say("working", PER_DELIVERY)
    desk.done(PER_DELIVERY - 1)
    desk.say("canceled", 2 * PER_DELIVERY - 1, code="canceled")
    told = await desk.read(follow=follow)
    assert [(one.state, one.sequence) for one in told] == [
        (State.WORKING, 0),
        (State.WORKING, PER_DELIVERY),
        (State.COMPLETED, PER_DELIVERY - 1),
    ]
    assert len(desk.engine.asked) == 1
    # Who knows the later one already has still to be told, and its own policy still decides about the result.
    assert [one.state for one in await desk.read(after=PER_DELIVERY, follow=follow)] == [State.COMPLETED]
    assert len(desk.engine.asked) == 2
    assert await desk.read(after=PER_DELIVERY - 1, follow=follow) == told[1:]


async def test_without_following_only_what_is_there_is_read() -> None:
    desk = Desk()
    assert await desk.read(follow=False) == []
    desk.say("input-required", 1024, note="which item?")
    assert [(one.state, one.note) for one in await desk.read(follow=False)] == [
        (State.INPUT_REQUIRED, "which item?"),
    ]


async def test_readings_are_bounded() -> None:
    desk = Desk(limits=StatusLimits(readers=1))
    reading = asyncio.ensure_future(desk.read())
    await desk.read_from()
    with pytest.raises(Overloaded):
        await desk.read()
    desk.done()
    await reading
    assert len(await desk.read()) == 1
