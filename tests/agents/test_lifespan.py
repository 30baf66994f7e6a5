"""An agent's lifespan: what a worker does before the first message and after the last handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from support.engines import ScriptedEngine
from support.shop import Price, Update

from sealbus import Agent, Context, Resource
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.envelopes.errors import ConfigurationError
from sealbus.testing import TestBus


async def once(agent: Agent, said: list[str]) -> None:
    async with agent.open_lifespan():
        said.append("runs")


async def test_without_one_nothing_happens() -> None:
    said: list[str] = []
    await once(Agent("inventory"), said)
    assert said == ["runs"]


async def test_each_opening_runs_it_anew() -> None:
    agent, said = Agent("inventory"), list[str]()

    @agent.lifespan
    async def lifespan() -> AsyncIterator[None]:
        said.append("opens")
        yield
        said.append("closes")

    for _ in range(2):
        await once(agent, said)
    assert said == ["opens", "runs", "closes"] * 2


async def nothing() -> AsyncIterator[None]:
    yield


def test_an_agent_has_one() -> None:
    agent = Agent("inventory")
    assert agent.lifespan(nothing) is nothing
    with pytest.raises(ConfigurationError, match="agent inventory has two lifespans"):
        agent.lifespan(nothing)


def plain() -> AsyncIterator[None]:
    return nothing()


async def coroutine() -> None: ...


async def with_a_parameter(_: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("function", [plain, coroutine, with_a_parameter])
def test_it_is_an_async_generator_without_parameters(function: Callable[[], AsyncIterator[None]]) -> None:
    with pytest.raises(ConfigurationError, match="yields once"):
        Agent("inventory").lifespan(function)


async def test_loaders_and_handlers_run_inside_it_and_those_taken_are_finished_first() -> None:
    agent, said, begun, go = Agent("inventory"), list[str](), asyncio.Event(), asyncio.Event()

    @agent.lifespan
    async def lifespan() -> AsyncIterator[None]:
        said.append("opens")
        yield
        said.append("closes")

    async def item(body: Update) -> Resource:
        said.append("loads")
        return Resource("item", body.item_id)

    @agent.task("update", resource=item)
    async def update(body: Update, ctx: Context) -> None:
        begun.set()
        await go.wait()
        said.append("handles")

    async with TestBus(agent, engine=ScriptedEngine()) as bus:
        assert said == ["opens"]
        await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
        await begun.wait()
        asyncio.get_running_loop().call_soon(go.set)
    assert said == ["opens", "loads", "handles", "closes"]


async def test_a_handler_that_a_drain_gives_up_is_ended_before_it_closes() -> None:
    agent, said, begun = Agent("pricing"), list[str](), asyncio.Event()

    @agent.lifespan
    async def lifespan() -> AsyncIterator[None]:
        yield
        said.append("closes")

    @agent.call("quote")
    async def quote(body: Update, ctx: Context) -> Price:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            said.append("handler ends")
        return Price(item_id=body.item_id, price=1)

    async with TestBus(agent, engine=ScriptedEngine(), limits=WorkerLimits(drain=0.05)) as bus:
        client = await bus.client("shop-web")
        calling = asyncio.ensure_future(client.call(quote, Update(item_id="1")))
        await begun.wait()
        calling.cancel()
    assert said == ["handler ends", "closes"]


async def test_a_worker_whose_lifespan_cannot_open_does_not_start() -> None:
    agent = Agent("inventory")

    @agent.lifespan
    async def lifespan() -> AsyncIterator[None]:
        raise ConnectionError("the database is away")
        yield

    @agent.call("quote")
    async def quote(body: Update, ctx: Context) -> Price:
        return Price(item_id=body.item_id, price=1)

    bus = TestBus(agent, engine=ScriptedEngine())
    with pytest.raises(ConnectionError, match=r"^the database is away$"):
        async with bus:
            pass
    assert bus.broker.subscriptions == []
