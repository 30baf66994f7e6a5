"""Results of tasks on a real server: from anywhere, after restarts, denials and ends included, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support.engines import ScriptedEngine, deny
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Price, Update

from sealbus import Agent, Context, Denied
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import api
from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.status import State
from sealbus.envelopes.limits import SECOND

pytestmark = [pytest.mark.nats]

WITHIN = 60.0


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    """The agents have the permissions of `sealbus dev` and no more; the operator is there to look."""
    async with real_bus(tmp_path, "prices", "shop-web", permitted=True) as running:
        await running.node("operator", ScriptedEngine())
        yield running


class Prices:
    """An agent whose task waits until the test lets it go on."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.agent = Agent("prices")

        @self.agent.task("work_out", retry=0)
        async def work_out(body: Update, ctx: Context) -> Price:
            await self.go.wait()
            return Price(item_id=body.item_id, price=7 * body.quantity)


@asynccontextmanager
async def at_work(bus: RealBus, prices: Prices, engine: ScriptedEngine) -> AsyncIterator[None]:
    stop = asyncio.Event()
    node = await bus.node("prices", engine)
    async with Worker(prices.agent, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield
        stop.set()


async def consumers(bus: RealBus) -> object:
    """Return the names of the consumers that RESULTS has."""
    return (await api(bus.connections["operator"].jetstream, "CONSUMER.NAMES.RESULTS")).get("consumers") or []


async def gone(bus: RealBus) -> None:
    """Wait until RESULTS has no consumer."""
    async with asyncio.timeout(60):
        while True:
            if not await consumers(bus):
                return
            await asyncio.sleep(0.01)


async def test_a_result_is_read_by_another_connection_of_the_same_identity(bus: RealBus) -> None:
    prices, engine = Prices(), ScriptedEngine()
    prices.go.set()
    async with at_work(bus, prices, engine):
        first = Client.on(await bus.node("shop-web", engine))
        handle = await first.submit("prices.work_out", Update(item_id="1", quantity=2))
        second = Client.on(await bus.node("shop-web", engine))
        again = second.handle(str(handle))
        found = (await handle.result(Price), await again.result(Price))
        assert found == (Price(item_id="1", price=14), Price(item_id="1", price=14))
        await gone(bus)


async def test_a_waiting_reader_and_a_later_one_survive_the_crash_of_the_server(bus: RealBus) -> None:
    prices, engine = Prices(), ScriptedEngine()
    async with at_work(bus, prices, engine):
        client = Client.on(await bus.node("shop-web", engine))
        handle = await client.submit("prices.work_out", Update(item_id="1", quantity=2))
        seen: list[State] = []

        async def watch() -> None:
            async with aclosing(handle.statuses()) as statuses:
                async for status in statuses:
                    seen.append(status.state)  # noqa: PERF401  seen one by one, while it waits

        watching = asyncio.ensure_future(watch())
        await until(lambda: seen == [State.WORKING], seconds=WITHIN)
        await bus.server.kill9()
        await bus.server.restart()
        prices.go.set()
        async with asyncio.timeout(WITHIN):
            await watching
        assert seen[0] is State.WORKING
        assert seen[-1] is State.COMPLETED
        await bus.server.kill9()
        await bus.server.restart()
        later = Client.on(await bus.node("shop-web", engine)).handle(handle.text)
        assert await later.result(Price, timeout=WITHIN) == Price(item_id="1", price=14)


async def test_a_denial_is_seen_with_its_code(bus: RealBus) -> None:
    prices = Prices()
    engine = ScriptedEngine(lambda _: deny("not_owner", obligations=({"type": "show_reasons"},)))
    async with at_work(bus, prices, engine):
        client = Client.on(await bus.node("shop-web", engine))
        handle = await client.submit("prices.work_out", Update(item_id="1"))
        with pytest.raises(Denied) as caught:
            await client.handle(handle.text).result(Price, timeout=WITHIN)
        assert caught.value.reasons == ("not_owner",)
        status = await handle.status()
        assert status is not None
        assert (status.state, status.code) == (State.REJECTED, "denied")


def ending(handle: TaskHandle, at: int) -> TaskHandle:
    """Return the handle of the same task with an earlier end."""
    return replace(handle, task=replace(handle.task, pending=replace(handle.task.pending, end=at)))


async def test_expired_is_concluded_by_the_requester(bus: RealBus) -> None:
    """Nobody handles the task: its end alone says so, once all that was stored before it has been read."""
    client = Client.on(await bus.node("shop-web", ScriptedEngine()))
    handle = await client.submit("prices.work_out", Update(item_id="1"))
    assert await handle.status() is None
    with pytest.raises(TimeoutError):
        await handle.result(Price, timeout=0.2)
    settle = int(client.node.status_reader.limits.settle * SECOND)
    with pytest.raises(CallExpired):
        await ending(handle, wall_clock() - settle + SECOND // 2).result(Price, timeout=WITHIN)
    last = await ending(handle, wall_clock() - settle).status()
    assert last is not None
    assert last.state is State.EXPIRED
    await gone(bus)


async def test_many_readers_leave_nothing_behind(bus: RealBus) -> None:
    client = Client.on(await bus.node("shop-web", ScriptedEngine()))
    handle = await client.submit("prices.work_out", Update(item_id="1"))
    waiting = [asyncio.ensure_future(handle.result(Price)) for _ in range(50)]
    async with asyncio.timeout(WITHIN):
        while True:
            found = await consumers(bus)
            if isinstance(found, list) and len(found) == 50:
                break
            await asyncio.sleep(0.01)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert client.node.status_reader.reading == 0
    await gone(bus)
