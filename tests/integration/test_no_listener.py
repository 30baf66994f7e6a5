"""A call that nobody listens to ends at once, by the word of the server alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client, Context
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.connection.frames import publish_frame
from sealbus.bus.ports import Outgoing
from sealbus.bus.sending.answer import CallExpired, NoListener
from sealbus.envelopes.errors import Code

pytestmark = [pytest.mark.nats]


class Item(BaseModel):
    number: int


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "shop", "client", permitted=True) as made:
        yield made


async def test_of_an_agent_that_does_not_run_and_of_a_verb_that_it_does_not_have(bus: RealBus) -> None:
    shop, entered, leave = Agent("shop"), asyncio.Event(), asyncio.Event()

    @shop.call("ask")
    async def ask(body: Item, ctx: Context) -> Item:
        entered.set()
        await leave.wait()
        return body

    client = Client.on(await bus.node("client", ScriptedEngine()))
    with pytest.raises(NoListener) as ended:
        await client.call(ask, Item(number=1), timeout=60)
    assert (ended.value.code, isinstance(ended.value, CallExpired)) == (Code.NO_LISTENER, True)
    with pytest.raises(NoListener):
        [chunk async for chunk in client.stream("shop.ask", Item(number=1), returns=Item, timeout=60)]
    stop = asyncio.Event()
    async with Worker(shop, await bus.node("shop", ScriptedEngine())) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        with pytest.raises(NoListener):
            await client.call("shop.other", Item(number=1), returns=Item, timeout=60)
        answered = group.create_task(client.call(ask, Item(number=7), timeout=60))
        await entered.wait()
        leave.set()
        assert (await answered).number == 7
        stop.set()
    # The server has seen that it does not listen any more.
    await bus.connections["shop"].link.flush(10)
    with pytest.raises(NoListener):
        await client.call(ask, Item(number=1), timeout=60)
    assert client.node.requests._by_unheard == {}


async def test_whoever_was_asked_cannot_say_that_nobody_was(bus: RealBus) -> None:
    """The agent sees the subject, and has no right to publish there; nor does anything else that comes there count."""
    shop, leave = Agent("shop"), asyncio.Event()

    @shop.call("ask")
    async def ask(body: Item, ctx: Context) -> Item:
        await leave.wait()
        return body

    node = await bus.node("shop", ScriptedEngine())
    client = Client.on(await bus.node("client", ScriptedEngine()))
    stop = asyncio.Event()
    async with Worker(shop, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        call = group.create_task(client.call(ask, Item(number=7), timeout=60))
        await until(lambda: bool(client.node.requests._by_unheard))
        [subject] = client.node.requests._by_unheard
        block = b"NATS/1.0 503\r\n\r\n"
        frame = b"HPUB %b %d %d\r\n%b\r\n" % (subject.encode(), len(block), len(block), block)
        bus.connections["shop"].link.write(frame)
        # From the caller's own connection it arrives, and is no word of a server.
        bus.connections["client"].link.write(publish_frame(Outgoing(subject=subject, payload=b"x")))
        for name in ("shop", "client"):
            await bus.connections[name].link.flush(10)
        leave.set()
        assert (await call).number == 7
        stop.set()
