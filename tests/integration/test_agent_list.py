"""Agents listed by their consumers on a real server: processes that come and go, and what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.real_bus import RealBus, real_bus
from support.shop import Shop, Update

from sealbus import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.inspection.agents import AgentSeen, agents_seen
from sealbus.bus.nats.api import consumer_states

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "pricing", "shop-web", permitted=True) as running:
        await running.node("operator", ScriptedEngine())
        yield running


async def listed(bus: RealBus) -> dict[str, AgentSeen]:
    request = bus.connections["operator"].jetstream
    tasks, events = await consumer_states(request, "TASKS"), await consumer_states(request, "EVENTS")
    return {one.token: one for one in agents_seen(tasks, events, {}, names=bus.names, own={})}


async def until_listed(bus: RealBus, holds: Callable[[dict[str, AgentSeen]], bool]) -> dict[str, AgentSeen]:
    async with asyncio.timeout(60):
        while True:
            if holds(found := await listed(bus)):
                return found
            await asyncio.sleep(0.02)


async def test_processes_come_and_go_and_work_waits(bus: RealBus) -> None:
    assert await listed(bus) == {}
    shop = Shop()
    client = Client.on(await bus.node("shop-web", ScriptedEngine()))
    stop = asyncio.Event()
    async with (
        Worker(shop.pricing, await bus.node("pricing", ScriptedEngine())) as first,
        Worker(Shop().pricing, await bus.node("pricing", ScriptedEngine())) as second,
        asyncio.TaskGroup() as group,
    ):
        for worker in (first, second):
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        found = await until_listed(bus, lambda one: "pricing" in one and one["pricing"].processes == 2)
        assert (found["pricing"].state, found["pricing"].listens) == ("ready", ("event.inventory.ordered",))

        leave = asyncio.Event()
        async with Worker(shop.inventory, await bus.node("inventory", ScriptedEngine())) as third:
            running = group.create_task(third.run(leave))
            await third.ready.wait()
            await until_listed(bus, lambda one: "inventory" in one and one["inventory"].processes == 1)
            leave.set()
            await running
        stop.set()
    found = await until_listed(bus, lambda one: not any(agent.processes for agent in one.values()))
    assert {token: one.state for token, one in found.items()} == {"inventory": "away", "pricing": "away"}

    for _ in range(3):
        await client.submit("inventory.update", Update(item_id="1"))
    tasks = (await listed(bus))["inventory"].tasks
    assert tasks is not None
    assert (tasks.waiting, tasks.in_hand, tasks.active) == (3, 0, 0)
