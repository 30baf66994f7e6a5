"""Two versions of one agent side by side on a real server, the new one with a further verb: no task and no call is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client, Context
from sealbus.agents.runtime.worker import Worker, WorkerLimits
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State

pytestmark = [pytest.mark.nats]

TASKS = 200


class Item(BaseModel):
    number: int


class Version:
    """One version of the agent `shop`, and what it has handled."""

    def __init__(self, *verbs: str) -> None:
        self.handled: list[tuple[str, int]] = []
        self.agent = Agent("shop")
        for verb in verbs:
            self._declare(verb)

    def _declare(self, verb: str) -> None:
        @self.agent.task(verb)
        async def handle(body: Item, ctx: Context) -> Item:
            self.handled.append((verb, body.number))
            return body

        @self.agent.call(f"ask-{verb}")
        async def ask(body: Item, ctx: Context) -> Item:
            return body

        @self.agent.on(f"event.client.{verb}")
        async def heard(body: Item, ctx: Context) -> None:
            self.handled.append((f"event {verb}", body.number))


@asynccontextmanager
async def working(bus: RealBus, *versions: Version, limits: WorkerLimits | None = None) -> AsyncIterator[list[Worker]]:
    """Run each version as a replica of its own."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        workers = []
        for version in versions:
            node = await bus.node("shop", ScriptedEngine())
            workers.append(await stack.enter_async_context(Worker(version.agent, node, limits)))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for worker in workers:
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        try:
            yield workers
        finally:
            stop.set()


async def results(handles: Iterable[TaskHandle]) -> Counter[str]:
    """Count what came of each task."""

    async def one(handle: TaskHandle) -> str:
        try:
            await handle.result(Item)
        except RemoteError as error:
            return str(error.code)
        return "done"

    return Counter(await asyncio.gather(*[one(handle) for handle in handles]))


async def test_a_rolling_upgrade_with_a_new_verb_loses_nothing_under_load(tmp_path: Path) -> None:
    old, new = Version("pack"), Version("pack", "send")
    async with real_bus(tmp_path, "shop", "client") as bus, working(bus, old, new) as workers:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        handles = []
        for number in range(TASKS):
            handles.append(await client.submit("shop.pack", Item(number=number)))
            handles.append(await client.submit("shop.send", Item(number=number)))
            await client.emit("send", Item(number=number))
            answer = await client.call("shop.ask-send", Item(number=number), returns=Item, timeout=60)
            assert answer == Item(number=number)
        assert await results(handles) == {"done": 2 * TASKS}
        await until(lambda: len([verb for verb, _ in new.handled if verb == "event send"]) == TASKS)
        assert sorted(number for verb, number in new.handled if verb == "send") == list(range(TASKS))
        assert {verb for verb, _ in old.handled} <= {"pack"}
        counters = workers[0].node.counters
        assert counters.value("sealbus_put_off_total", cause="unknown_verb") >= 1
        assert counters.value("sealbus_no_place_total") == 0
        assert counters.value("sealbus_refused_total") == 0


async def test_a_verb_that_nobody_has_is_known_at_once_and_has_failed_at_the_end(tmp_path: Path) -> None:
    only = Version("pack")
    async with real_bus(tmp_path, "shop", "client") as bus, working(bus, only) as [worker]:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        handle = await client.submit("shop.pakc", Item(number=1), life=3.0)
        states: list[tuple[str, str]] = []
        async with asyncio.timeout(60):
            async for status in handle.statuses():
                if not states:
                    # The first pauses are so short that it may be under way again just now.
                    await until(lambda: worker.notes().get("verbs", "").startswith("1 tasks or events for verbs"))
                states.append((status.state, status.code))
        assert states == [(State.WORKING, "unknown_verb"), (State.FAILED, "unknown_verb")]
        assert not [one async for one in client.node.transport.read("DEAD", ["dead.>"])]
        assert not [one async for one in client.node.transport.read("AUDIT", ["audit.shop"])]
