"""Messages under a key that nobody knows cost a place for a moment: an agent goes on beside thousands of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Shop, Update

from sealbus import Client
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.api import api
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = [pytest.mark.nats]

JUNK = 3_000
GOOD = 60
TOGETHER = 250
AT_MOST = 500
"""Places that are held: 128, and what is on its way."""


async def many(send: Callable[[], Awaitable[object]], count: int) -> None:
    for _ in range(count // TOGETHER):
        await asyncio.gather(*[send() for _ in range(TOGETHER)])


async def stranger(bus: RealBus, name: str) -> Client:
    """Return a client that has the name, and a key that is in nobody's bundle: it may publish, and that is all."""
    apart = replace(bus, authority=DevelopmentAuthority(TrustDomain("example.org")))
    return Client.on(await apart.node(name, ScriptedEngine()))


@asynccontextmanager
async def working(bus: RealBus, worker: Worker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()


async def pending(bus: RealBus, stream: str, consumer: str) -> int:
    info = await api(bus.connections["shop-web"].jetstream, f"CONSUMER.INFO.{stream}.{consumer}")
    count = info["num_ack_pending"]
    assert isinstance(count, int)
    return count


async def test_3000_tasks_of_an_unknown_key_hold_up_no_good_one(tmp_path: Path) -> None:
    shop = Shop()
    async with real_bus(tmp_path, "inventory", "shop-web") as bus:
        node = await bus.node("inventory", ScriptedEngine())
        web = Client.on(await bus.node("shop-web", ScriptedEngine()))
        thief = await stranger(bus, "shop-web")
        body = Update(item_id="1")
        await many(lambda: thief.submit("inventory.update", body, life=80_000), JUNK)
        async with Worker(shop.inventory, node) as worker, working(bus, worker):
            handles = [await web.submit("inventory.update", Update(item_id=str(number))) for number in range(GOOD)]
            for handle in handles:
                await handle.result(timeout=60)
            assert {item for item, _ in shop.handled} == {str(number) for number in range(GOOD)}
            assert node.counters.value("sealbus_no_place_total", cause="unauthenticated") >= JUNK // 2
            assert await pending(bus, "TASKS", "inventory") <= AT_MOST


async def test_3000_events_of_an_unknown_key_hold_up_no_good_one(tmp_path: Path) -> None:
    shop = Shop()
    async with real_bus(tmp_path, "pricing", "inventory", "shop-web") as bus:
        node = await bus.node("pricing", ScriptedEngine())
        good = Client.on(await bus.node("inventory", ScriptedEngine()))
        await bus.node("shop-web", ScriptedEngine())
        thief = await stranger(bus, "inventory")
        await many(lambda: thief.emit("ordered", Update(item_id="1", quantity=0)), JUNK)
        async with Worker(shop.pricing, node) as worker, working(bus, worker):
            for number in range(GOOD):
                await good.emit("ordered", Update(item_id="1", quantity=1 + number))
            await until(lambda: len(shop.handled) == GOOD)
            assert {number for _, number in shop.handled} == set(range(1, 1 + GOOD))
            assert await pending(bus, "EVENTS", "pricing") <= AT_MOST


async def test_a_task_whose_key_is_known_a_moment_later_is_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop()
    async with real_bus(tmp_path, "inventory", "shop-web") as bus:
        node = await bus.node("inventory", ScriptedEngine())
        other = DevelopmentAuthority(TrustDomain("example.org"))
        early = Client.on(await replace(bus, authority=other).node("shop-web", ScriptedEngine()))
        async with Worker(shop.inventory, node) as worker, working(bus, worker):
            handle = await early.submit("inventory.update", Update(item_id="7"))
            await until(lambda: node.counters.value("sealbus_put_off_total", cause="unauthenticated") >= 1)
            assert worker.notes()["keys"].startswith("1 deliveries wait for keys")
            known = MemoryIdentity(other, node.own).bundles()
            monkeypatch.setattr(node.identity, "bundles", lambda: known)
            await until(lambda: shop.handled == [("7", 1)])
            assert handle.sequence == 1


async def test_a_durable_of_before_is_given_its_new_bound(tmp_path: Path) -> None:
    async with real_bus(tmp_path, "inventory", "shop-web") as bus:
        for pending_of_old in (2_048, None):
            node = await bus.node("inventory", ScriptedEngine())
            limits = WorkerLimits(max_ack_pending=pending_of_old) if pending_of_old else WorkerLimits()
            web = Client.on(await bus.node("shop-web", ScriptedEngine()))
            shop = Shop()
            async with Worker(shop.inventory, node, limits) as worker, working(bus, worker):
                await (await web.submit("inventory.update", Update(item_id="1"))).result(timeout=60)
            info = await api(bus.connections["shop-web"].jetstream, "CONSUMER.INFO.TASKS.inventory")
            config = info["config"]
            assert isinstance(config, dict)
            assert config["max_ack_pending"] == (pending_of_old or WorkerLimits().max_ack_pending)
