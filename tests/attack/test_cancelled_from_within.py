"""Agents' code that raises `CancelledError` without being cancelled: a future that several wait on, and one gave up.

A loader that shares one lookup between messages does this, and whoever can make a lookup slow can bring it about. It is a
failure like any other: nothing is decided without the resource, and neither worker task nor source ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict

from sealbus import Agent, Context, Resource
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import Code
from sealbus.testing import TestBus


class Body(BaseModel):
    item: str = "1"


async def given_up() -> None:
    """Wait for what another has cancelled."""
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shared.cancel()
    await shared


@dataclass
class Careless:
    """An agent whose loader and handler share futures; `cancelled` says whether they have been given up."""

    cancelled: bool = True
    handled: list[str] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    """How much was handled before each load."""
    loading: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("careless")

        async def load(body: Body) -> Resource:
            self.loads.append(len(self.handled))
            self.loading.set()
            if self.cancelled:
                await given_up()
            return Resource("item", body.item, locked=True)

        @self.agent.task("loaded", resource=load)
        async def loaded(body: Body, ctx: Context) -> None:
            self.handled.append(body.item)

        @self.agent.call("quote", resource=load)
        async def quote(body: Body, ctx: Context) -> str:
            self.handled.append(body.item)
            return "quoted"

        @self.agent.task("work", retry=0)
        async def work(body: Body, ctx: Context) -> None:
            if self.cancelled:
                await given_up()
            self.handled.append(body.item)

        @self.agent.call("chunks", chunks=True)
        async def chunks(body: Body, ctx: Context) -> AsyncIterator[str]:
            yield "one"
            await given_up()


class Broken(ScriptedEngine):
    """An engine that fails in the same way, as often as `left` says."""

    left = 0

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        if self.left:
            self.left -= 1
            await given_up()
        return await super().decide(inputs)


@pytest.fixture
def careless() -> Careless:
    return Careless()


@pytest.fixture
def engine() -> Broken:
    return Broken()


@pytest.fixture
async def bus(careless: Careless, engine: Broken) -> AsyncIterator[TestBus]:
    async with TestBus(careless.agent, engine=engine, limits=WorkerLimits(concurrency=1)) as running:
        yield running


async def test_nothing_is_decided_without_the_resource(bus: TestBus, careless: Careless, engine: Broken) -> None:
    client = await bus.client("shop")
    with pytest.raises(RemoteError) as refused:
        await client.call("careless.quote", Body(), returns=str, timeout=5)
    assert refused.value.code is Code.RESOURCE_UNAVAILABLE
    assert [one["action"]["name"] for one in engine.asked] == ["careless.quote.reply"]
    assert careless.handled == []


async def test_a_task_whose_resource_is_not_there_is_tried_again(bus: TestBus, careless: Careless) -> None:
    handle = await (await bus.client("shop")).submit("careless.loaded", Body())
    async with asyncio.timeout(60):
        await careless.loading.wait()
    careless.cancelled = False
    await handle.result(type(None), timeout=60)
    assert (careless.loads, careless.handled) == ([0, 0], ["1"])


async def test_a_handler_that_fails_so_ends_its_attempt_and_not_its_worker_task(
    bus: TestBus, careless: Careless
) -> None:
    client = await bus.client("shop")
    with pytest.raises(RemoteError) as failed:
        await (await client.submit("careless.work", Body())).result(timeout=5)
    assert failed.value.code is Code.HANDLER_FAILED
    careless.cancelled = False
    await (await client.submit("careless.work", Body(item="2"))).result(type(None), timeout=60)
    assert careless.handled == ["2"]


async def test_chunks_that_fail_so_end_with_an_error(bus: TestBus) -> None:
    client = await bus.client("shop")
    async with aclosing(client.stream("careless.chunks", Body(), returns=str, timeout=5)) as answers:
        assert await anext(answers) == "one"
        with pytest.raises(RemoteError) as failed:
            await anext(answers)
    assert failed.value.code is Code.HANDLER_FAILED


async def test_an_engine_that_fails_so_ends_no_source(bus: TestBus, careless: Careless, engine: Broken) -> None:
    careless.cancelled, engine.left = False, 1
    handle = await (await bus.client("shop")).submit("careless.work", Body())
    await handle.result(type(None), timeout=60)
    await bus.assert_task(handle, State.COMPLETED)
    assert careless.handled == ["1"]
