"""Own subjects of each kind, from their sender to their handler, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.own_subjects import OWN, Orders
from support.shop import Price, Update

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.envelopes.errors import SealError
from sealbus.testing import TestBus


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(orders: Orders, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(orders.agent, engine=engine, own=OWN) as running:
        yield running


@pytest.mark.parametrize("name", ["orders.ship", "shop.orders.ship"])
async def test_a_task_goes_by_its_action_or_its_subject(bus: TestBus, orders: Orders, name: str) -> None:
    client = await bus.client("shop-web")
    sent = await client.submit(name, Update(item_id="7"), user=bus.user("alice", "shop-web"))
    await bus.idle()
    assert sent.subject == "shop.orders.ship"
    assert orders.handled.get_nowait() == ("orders.ship", "7")
    await bus.assert_allowed("orders.ship")


async def test_the_ordinary_scheme_goes_on_beside_it(bus: TestBus, orders: Orders) -> None:
    client = await bus.client("shop-web")
    await client.submit("orders.cancel", Update(item_id="7"))
    await client.submit("orders.ship", Update(item_id="8"))
    await bus.idle()
    assert {orders.handled.get_nowait() for _ in range(2)} == {("orders.cancel", "7"), ("orders.ship", "8")}
    assert orders.handled.empty()


@pytest.mark.parametrize("name", ["orders.price", "shop.orders.price"])
async def test_a_call_is_answered_and_decided_under_its_action(bus: TestBus, engine: ScriptedEngine, name: str) -> None:
    client = await bus.client("shop-web")
    assert await client.call(name, Update(item_id="7", quantity=2), returns=Price) == Price(item_id="7", price=6)
    assert [one["action"]["name"] for one in engine.asked] == ["orders.price", "orders.price.reply"]


async def test_a_handler_itself_can_be_called(bus: TestBus, orders: Orders) -> None:
    client = await bus.client("shop-web")
    handler = orders.agent.handlers["shop.orders.price"]
    assert await client.call(handler, Update(item_id="7")) == Price(item_id="7", price=3)


async def test_a_call_is_answered_in_chunks(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    got = [one async for one in client.stream("orders.count", Update(item_id="7", quantity=3), returns=int)]
    assert got == [0, 1, 2]


async def test_an_event_is_emitted_by_its_owner_alone(bus: TestBus, orders: Orders) -> None:
    sent = await (await bus.client("shop-web")).emit("shop.sold", Update(item_id="9"))
    await bus.idle()
    assert sent.stream == "EVENTS"
    assert orders.handled.get_nowait() == ("shop.sold", "9")
    with pytest.raises(SealError):
        await (await bus.client("thief")).emit("shop.sold", Update(item_id="9"))


async def test_an_own_subject_has_no_partitions(bus: TestBus) -> None:
    with pytest.raises(SealError):
        await (await bus.client("shop-web")).submit("orders.ship", Update(item_id="7"), partition="1")


@pytest.mark.parametrize(
    ("grants", "told"),
    [(["orders.ship"], True), (["shop.*"], False), (["orders.pack"], False), ([], False)],
    ids=["the action", "the subject", "another", "nothing"],
)
async def test_without_a_handler_here_it_waits_under_its_declared_action(
    engine: ScriptedEngine, grants: list[str], told: bool
) -> None:
    """A newer version of the agent, which shares the durable, has the handler; here the grants are checked all the same."""
    agent = Agent("orders")
    sent: list[TaskHandle] = []

    @agent.task("pack")
    async def pack(body: Update, ctx: Context) -> None:
        sent.append(await ctx.submit("orders.ship", body))

    bus = TestBus(agent, engine=engine, own=OWN, limits=WorkerLimits())
    bus.broker.connect().pull(
        "TASKS", "orders", ["task.orders.>", "shop.orders.ship"], batch=1, ack_wait=30.0, max_ack_pending=1_000
    )
    async with bus:
        client = await bus.client("shop-web")
        await client.submit("orders.pack", Update(item_id="7"), life=60, grants=grants)
        counters = bus.workers["orders"].node.counters
        if told:
            await until(lambda: counters.value("sealbus_put_off_total", cause="unknown_verb") > 0)
            [handle] = sent
            async with aclosing(handle.statuses()) as statuses:
                first = await anext(statuses)
            assert (first.state, first.code) == ("working", "unknown_verb")
            assert await bus.flush_refusals() == []
        else:
            await bus.idle()
            assert [one["code"] for one in await bus.flush_refusals()] == ["grant_exceeded"]
            assert counters.value("sealbus_put_off_total", cause="unknown_verb") == 0
