"""Own subjects on a real server, with the permissions that `sealbus dev` gives: each kind reaches its handler."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.own_subjects import OWN, Orders
from support.real_bus import real_bus
from support.shop import Price, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker

pytestmark = pytest.mark.nats


async def test_each_kind_reaches_its_handler(tmp_path: Path) -> None:
    orders, engine, stop = Orders(), ScriptedEngine(), asyncio.Event()
    async with (
        real_bus(tmp_path, "orders", "shop-web", own=OWN, permitted=True) as bus,
        asyncio.timeout(60),
        asyncio.TaskGroup() as group,
    ):
        node = await bus.node("orders", engine)
        client = Client.on(await bus.node("shop-web", engine))
        async with Worker(orders.agent, node) as worker:
            running = group.create_task(worker.run(stop))
            await worker.ready.wait()
            await client.submit("orders.ship", Update(item_id="1"), user=bus.user("alice", "shop-web"))
            await client.submit("orders.cancel", Update(item_id="2"))
            await client.emit("shop.sold", Update(item_id="3"))
            handled = {await orders.handled.get() for _ in range(3)}
            assert handled == {("orders.ship", "1"), ("orders.cancel", "2"), ("shop.sold", "3")}
            price = await client.call("orders.price", Update(item_id="4", quantity=2), returns=Price)
            assert price == Price(item_id="4", price=6)
            got = [one async for one in client.stream("orders.count", Update(item_id="5", quantity=2), returns=int)]
            assert got == [0, 1]
            stop.set()
            assert await running
