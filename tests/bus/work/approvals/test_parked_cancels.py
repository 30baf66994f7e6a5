"""Cancels of what waits: told once, also where whoever canceled it came no further than the end of the task."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.payments import Payments

from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.stream_names import RESULTS
from sealbus.bus.work.approvals.marker import Markers
from sealbus.bus.work.approvals.parked_cancels import ParkedCancels
from sealbus.bus.work.approvals.parked_tasks import ParkedState, ParkedTasks
from sealbus.bus.work.approvals.progress import ParkedStores
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.cancel.stop import Stop
from sealbus.bus.work.status_writer import Statuses
from sealbus.testing import TestBus


def cancels(bus: TestBus) -> tuple[ParkedCancels, ParkedTasks, Markers]:
    node = bus.workers["payments"].node
    names, own = node.deployment.names, node.deployment.own_subjects
    tasks = ParkedTasks(node.held, identity=node.identity, names=names)
    markers = Markers(node.held, identity=node.identity, names=names, clock=node.site.bus_clock)
    stops = KeptStops(node.held, identity=node.identity, names=names, own_subjects=own)
    statuses = Statuses(names=names, outbox=node.outbox, counters=node.counters)
    stores = ParkedStores(tasks=tasks, markers=markers, statuses=statuses)
    return ParkedCancels(stores, stops=stops, own_subjects=own, clock=node.site.bus_clock), tasks, markers


async def test_what_was_not_canceled_goes_on() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        await payments.submitted(bus)
        [parked] = await bus.waiting()
        one, _, _ = cancels(bus)
        assert not await one.met(parked)
        assert len(await bus.waiting()) == 1


async def test_an_end_that_was_not_told_is_told_later_and_once() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        await handle.cancel("a mistake")
        one, tasks, markers = cancels(bus)
        ended = await tasks.find(handle.digest)
        assert ended is not None
        assert ended.state is ParkedState.ENDED
        told = len(bus.stored(RESULTS))
        assert await one.met(ended)
        assert len(bus.stored(RESULTS)) == told
        assert await markers.has_ended(ended.header)
        # Another one, of which only the end was stored.
        second = await payments.submitted(bus, invoice="43")
        waiting = await tasks.find(second.digest)
        assert waiting is not None
        assert await tasks.change(waiting, replace(waiting, state=ParkedState.ENDED)) is not None
        await second.cancel("a mistake")
        await bus.assert_task(second, "canceled", "canceled")
        assert await markers.has_ended(waiting.header)


async def test_one_that_was_taken_up_and_waits_again_is_canceled_at_once() -> None:
    payments = Payments(enough=2)
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "bob")
        await bus.idle()
        [waiting] = await bus.waiting()
        assert (waiting.turn, len(waiting.verdicts)) == (1, 1)
        await handle.cancel("a mistake")
        assert await bus.waiting() == []
        await bus.assert_task(handle, "canceled", "canceled")
        last = (await bus.statuses(handle))[-1]
        assert (last.final, last.note) == (True, "a mistake")
        _, tasks, markers = cancels(bus)
        ended = await tasks.find(handle.digest)
        assert ended is not None
        assert ended.state is ParkedState.ENDED
        assert await markers.has_ended(ended.header)
        with pytest.raises(LookupError):
            await bus.approve(handle, "carol")
    assert payments.paid == []


async def test_one_that_goes_on_although_it_was_canceled_while_it_waited_again_does_not() -> None:
    """A stop that is known to HELD alone is met where it waits: whoever wrote it came no further."""
    payments = Payments(enough=2)
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "bob")
        await bus.idle()
        [waiting] = await bus.waiting()
        one, tasks, _ = cancels(bus)
        assert not await one.met(waiting)
        node = bus.workers["payments"].node
        stops = KeptStops(
            node.held,
            identity=node.identity,
            names=node.deployment.names,
            own_subjects=node.deployment.own_subjects,
        )
        header = waiting.header
        await stops.keep(
            Stop(
                agent=node.own,
                digest=header.digest,
                action="payments.pay",
                by=header.iss,
                role=CancelRole.REQUESTER,
                reason="a mistake",
                end=header.end or 0,
                at=node.clock(),
                cancel=b"c" * 32,
            )
        )
        assert await one.met(waiting)
        ended = await tasks.find(handle.digest)
        assert ended is not None
        assert ended.state is ParkedState.ENDED
        await bus.assert_task(handle, "canceled", "canceled")
