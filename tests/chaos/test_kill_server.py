"""nats-server killed with -9 and restarted: what was acknowledged is not handled again, and work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.real_bus import RealBus, real_bus
from support.shop import Price, Shop, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.bus.sending.answer import CallExpired

pytestmark = [pytest.mark.nats]

WITHIN = 60.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "pricing", "shop-web") as running:
        yield running


async def until(true: Callable[[], bool]) -> None:
    """Wait for what a handler does; there is no event for it outside the worker."""
    async with asyncio.timeout(WITHIN):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_handled_task_published_again_after_a_crash_is_refused(bus: RealBus) -> None:
    shop, engine, stop = Shop(), ScriptedEngine(), asyncio.Event()
    node = await bus.node("inventory", engine)
    sender = await bus.node("shop-web", engine)
    async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        client = Client.on(sender)
        user = bus.user("alice", "shop-web")
        await client.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
        await until(lambda: shop.handled == [("42", 3)])
        captured = [one async for batch in sender.transport.read("TASKS", ["task.>"]) for one in batch]
        await worker.settle()

        await bus.server.kill9()
        await bus.server.restart()

        again = await publish_again(bus, sender.transport.publish, captured[0])
        assert again.duplicate
        await client.submit("inventory.update", Update(item_id="7", quantity=1), user=user)
        await until(lambda: len(shop.handled) >= 2)
        assert shop.handled == [("42", 3), ("7", 1)]
        stop.set()


async def test_what_was_not_acknowledged_is_handled_after_a_crash(bus: RealBus) -> None:
    shop, engine, stop = Shop(), ScriptedEngine(), asyncio.Event()
    sender = await bus.node("shop-web", engine)
    client = Client.on(sender)
    user = bus.user("alice", "shop-web")
    for number in range(20):
        await client.submit("inventory.update", Update(item_id=str(number)), user=user)
    await bus.server.kill9()
    await bus.server.restart()
    node = await bus.node("inventory", engine)
    async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await until(lambda: len(shop.handled) >= 20)
        stop.set()
    assert sorted(shop.handled) == sorted((str(number), 1) for number in range(20))


async def test_two_replicas_handle_one_call_once(bus: RealBus) -> None:
    """Both replicas are given the same bytes; the audit stream's own deduplication lets one of them handle it."""
    shops = [Shop(), Shop()]
    stop = asyncio.Event()
    engine = ScriptedEngine()
    sender = await bus.node("shop-web", engine)
    nodes = [await bus.node("pricing", engine) for _ in shops]
    async with asyncio.TaskGroup() as group:
        for shop, node in zip(shops, nodes, strict=True):
            worker = await bus.stack.enter_async_context(Worker(shop.pricing, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        captured: list[Delivery] = []
        listening = group.create_task(listen(sender.transport.listen("call.pricing.*"), captured))
        client = Client.on(sender)
        await call_until_answered(client)
        await until(lambda: bool(captured))
        handled = sum(len(shop.handled) for shop in shops)
        first = captured[0]
        for _ in range(20):
            sender.transport.send([Outgoing(subject=first.subject, payload=first.payload)])
        await call_until_answered(client)
        await until(lambda: sum(node.counters.value("sealbus_refused_total", code="replayed") for node in nodes) >= 20)
        assert sum(len(shop.handled) for shop in shops) == handled + 1
        stop.set()
        listening.cancel()


async def listen(source: AsyncIterator[Sequence[Delivery]], into: list[Delivery]) -> None:
    async for batch in source:
        into += batch


async def call_until_answered(client: Client) -> None:
    """Call once; a worker that was just started may not be subscribed yet, which its caller sees as no answer."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=2.0)
            except CallExpired:
                continue
            return


async def publish_again(bus: RealBus, publish: Callable[..., object], task: Delivery) -> PubAck:
    """Publish captured bytes under their own id until the restarted server answers."""
    message_id = task.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
    await bus.connections["shop-web"].ready(WITHIN)
    async with asyncio.timeout(WITHIN):
        while True:
            (ack,) = await publish(  # type: ignore[misc]
                [Outgoing(subject=task.subject, payload=task.payload, message_id=message_id)], deadline=2.0
            )
            if isinstance(ack, PubAck):
                return ack
