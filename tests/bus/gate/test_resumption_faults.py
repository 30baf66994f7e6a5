"""Parking and resuming with a fault at each of their stores: done once, never unapproved, told once, and over at the end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.payments import ASKED, Payments
from support.played import QUICK, Played, approved, looked_at, play, submitted
from support.replicas import Fault, Faults, Replicas, hasten

from sealbus.bus.stream_names import AUDIT, HELD
from sealbus.bus.work.approvals.parked_tasks import ParkedState
from sealbus.testing import TestBus

STORES = 24
"""More stores than there are from the first decision about a task to the last about its approval."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("once", [True, False], ids=["once", "repeatable"])
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_at_any_store_loses_nothing_and_does_nothing_twice(fault: Fault, once: bool) -> None:
    whole = await play({}, once=once)
    whole.check(once=once)
    assert whole.final == [("completed", "")]
    stores = len(whole.faults.stores)
    assert {AUDIT, HELD, "RESULTS"} <= set(whole.faults.stores)
    assert stores <= STORES + 6
    for place in range(1, stores + 1):
        try:
            (await play({place: fault}, once=once)).check(once=once)
        except Exception as error:
            error.add_note(f"{fault} at store {place}, to {whole.faults.stores[place - 1]}")
            raise


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.dictionaries(st.integers(1, STORES + 10), st.sampled_from(Fault), min_size=1, max_size=4),
    once=st.booleans(),
    number=st.integers(1, 2),
    people=st.sampled_from([("boss",), ("boss", "second")]),
)
@example(at={13: Fault.UNACKNOWLEDGED, 1: Fault.REFUSED, 25: Fault.REFUSED}, once=True, number=2, people=("boss",))
def test_several_faults_lose_nothing_either(
    at: dict[int, Fault], once: bool, number: int, people: tuple[str, ...]
) -> None:
    asyncio.run(play(at, once=once, number=number, people=people)).check(once=once)


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_while_it_moves_to_another_queue_keeps_one_wait(fault: Fault) -> None:
    for place in range(1, 40):
        payments = Payments(retry=QUICK)
        faults = Faults({})
        async with (
            TestBus(engine=payments.engine) as bus,
            Replicas(bus, payments.agent, payments.engine, faults=faults) as replicas,
        ):
            handle = await submitted(bus)
            await replicas.idle()
            payments.asked = {**ASKED, "queue": "directors"}
            payments.enough = 2
            faults.at = {len(faults.stores) + place: fault}
            [first] = await bus.waiting()
            await approved(bus, first, "boss")
            await replicas.idle()
            [waiting] = await bus.waiting()
            assert (waiting.obligation.queue, waiting.verdicts) == ("directors", ()), f"store {place}"
            moved = len(faults.stores)
            payments.enough = 1
            await bus.approve(waiting, "director")
            await replicas.idle()
            await bus.assert_task(handle, "completed")
            assert payments.paid == [("42", ("director",))]
            if max(faults.at) > moved:
                return
    raise AssertionError("there is no end of stores")


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_while_it_is_canceled_is_made_up_for(fault: Fault) -> None:
    for place in range(1, 40):
        payments = Payments()
        faults = Faults({})
        async with (
            TestBus(engine=payments.engine) as bus,
            Replicas(bus, payments.agent, payments.engine, faults=faults) as replicas,
        ):
            handle = await submitted(bus)
            await replicas.idle()
            faults.at = {len(faults.stores) + place: fault}
            await handle.cancel("a mistake")
            await replicas.idle()
            played = Played(payments, faults)
            await looked_at(bus, handle, played)
            assert played.final == [("canceled", "canceled")], f"store {place}"
            assert [one.state for one in played.parked] == [ParkedState.ENDED]
            assert played.ended == [True], f"store {place}"
            assert not payments.contexts
            if max(faults.at) > len(faults.stores):
                return
    raise AssertionError("there is no end of stores")
