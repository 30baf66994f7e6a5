"""The client: everything by one object, inside `async with` only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from support.engines import ScriptedEngine
from support.shop import Price, Shop, Update

from sealbus import Client
from sealbus.testing import TestBus


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    shop = Shop()
    async with TestBus(shop.inventory, shop.pricing, engine=ScriptedEngine()) as running:
        yield running


async def test_it_submits_and_knows_the_task_again(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    handle = await client.submit("inventory.update", Update(item_id="1"), partition="p-1")
    assert handle.subject == "task.inventory.update.p-1"
    assert await client.handle(handle.text).result() is None


async def test_it_calls_streams_and_emits(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    price = await client.call("pricing.quote", Update(item_id="1", quantity=2), returns=Price)
    assert price == Price(item_id="1", price=14)
    async with aclosing(client.stream("pricing.count", Update(item_id="1", quantity=3), returns=int)) as numbers:
        assert [number async for number in numbers] == [0, 1, 2]
    assert (await client.emit("opened", Update(item_id="1"))).stream == "EVENTS"


async def test_a_client_on_a_node_leaves_the_node_open(bus: TestBus) -> None:
    node = (await bus.client("shop-web")).node
    async with Client.on(node) as client:
        assert client.name == "shop-web"
        assert client.node is node
    with pytest.raises(RuntimeError, match="async with"):
        await client.submit("inventory.update", Update(item_id="1"))
    await Client.on(node).submit("inventory.update", Update(item_id="1"))


@pytest.mark.parametrize("ask", ["submit", "emit"])
async def test_it_is_used_inside_async_with(ask: str) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await getattr(Client("shop-web"), ask)("inventory.update", Update(item_id="1"))
    with pytest.raises(RuntimeError, match="async with"):
        Client("shop-web").handle("text")
