"""A worker whose clock is minutes off decides nothing, says why, and leaves its work to replicas with a better one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Price, Shop, Update

from sealbus import Agent, Client, Context
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import parse_time
from sealbus.envelopes.limits import SECOND

pytestmark = [pytest.mark.nats]

MINUTES = 300 * SECOND


class Clock:
    """A host's clock that the test sets."""

    def __init__(self, ahead: int = 0) -> None:
        self.ahead = ahead

    def __call__(self) -> int:
        return wall_clock() + self.ahead


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()


async def replica(bus: RealBus, shop: Shop, engine: ScriptedEngine, clock: Clock) -> Worker:
    return Worker(shop.inventory, await bus.node("inventory", engine, clock=clock))


def refused(worker: Worker) -> bool:
    return worker.node.counters.value("sealbus_refused_total", code="clock_skew") > 0


def reason(worker: Worker) -> str:
    return worker.not_ready().get("clock", "")


@pytest.mark.parametrize("ahead", [MINUTES, -MINUTES])
async def test_a_clock_five_minutes_off_decides_nothing(tmp_path: Path, ahead: int) -> None:
    wrong, right = ScriptedEngine(), ScriptedEngine()
    shop, other, clock = Shop(), Shop(), Clock(ahead)
    async with real_bus(tmp_path, "inventory", "shop-web", permitted=True) as bus:
        web = Client.on(await bus.node("shop-web", ScriptedEngine()))
        worker = await replica(bus, shop, wrong, clock)
        async with running(worker):
            handle = await web.submit("inventory.update", Update(item_id="1"))
            await until(lambda: reason(worker).startswith("clock_skew: this host is "))
            assert ("ahead of" if ahead > 0 else "behind") in reason(worker)
            assert worker.not_ready()["sources"] == "not consuming"
            assert "identity" not in worker.not_ready()
            [metric] = [
                one for one in worker.node.counters.render().splitlines() if one.startswith("sealbus_clock_ahead")
            ]
            assert abs(float(metric.split()[1]) - ahead / SECOND) < 5
            async with running(await replica(bus, other, right, Clock())):
                await handle.result(timeout=60)
            assert (other.handled, shop.handled, wrong.asked) == ([("1", 1)], [], [])
            later = await web.submit("inventory.update", Update(item_id="2"))
            clock.ahead = 0
            await later.result(timeout=60)
            assert shop.handled == [("2", 1)]
            assert reason(worker) == ""
            [asked] = wrong.asked
            assert abs(parse_time(asked["context"]["time"]) - wall_clock()) < 60 * SECOND


async def test_a_clock_that_is_set_while_it_works_is_noticed_before_the_next_decision(tmp_path: Path) -> None:
    engine, shop, clock = ScriptedEngine(), Shop(), Clock()
    async with real_bus(tmp_path, "inventory", "shop-web") as bus:
        web = Client.on(await bus.node("shop-web", ScriptedEngine()))
        worker = await replica(bus, shop, engine, clock)
        async with running(worker):
            await (await web.submit("inventory.update", Update(item_id="1"))).result(timeout=60)
            clock.ahead = -MINUTES
            handle = await web.submit("inventory.update", Update(item_id="2"))
            await until(lambda: len(engine.asked) > 1 or refused(worker) or not worker.ready.is_set())
            assert [one["resource"]["id"] for one in engine.asked] == ["1"]
            assert reason(worker) != ""
            clock.ahead = 0
            await handle.result(timeout=60)
        assert [item for item, _ in shop.handled] == ["1", "2"]


async def test_a_call_goes_to_a_replica_whose_clock_is_right(tmp_path: Path) -> None:
    wrong, right = ScriptedEngine(), ScriptedEngine()
    async with real_bus(tmp_path, "pricing", "shop-web") as bus:
        web = Client.on(await bus.node("shop-web", ScriptedEngine()))
        off = Worker(Shop().pricing, await bus.node("pricing", wrong, clock=Clock(MINUTES)))
        good = Worker(Shop().pricing, await bus.node("pricing", right))
        async with running(off), running(good):
            await until(lambda: reason(off) != "")
            await good.ready.wait()
            for number in range(20):
                await web.call("pricing.quote", Update(item_id=str(number)), returns=Price, timeout=60)
        assert wrong.asked == []
        assert len(right.asked) == 20


async def test_who_started_with_its_clock_ahead_answers_calls_once_it_is_right(tmp_path: Path) -> None:
    engine, clock = ScriptedEngine(), Clock(MINUTES)
    async with real_bus(tmp_path, "pricing", "shop-web") as bus:
        web = Client.on(await bus.node("shop-web", ScriptedEngine()))
        worker = Worker(Shop().pricing, await bus.node("pricing", engine, clock=clock))
        async with running(worker):
            await until(lambda: reason(worker) != "")
            clock.ahead = 0
            await worker.ready.wait()
            await web.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=60)
        assert len(engine.asked) == 1


@pytest.mark.parametrize(("first", "ahead"), [(4 * SECOND, 3_600 * SECOND), (-4 * SECOND, -3_600 * SECOND)])
async def test_a_handler_whose_clock_is_set_hears_answers_that_are_decided_by_the_true_time(
    tmp_path: Path, first: int, ahead: int
) -> None:
    engine, clock, buyer = ScriptedEngine(), Clock(first), Agent("inventory")

    @buyer.task("order", retry=0)
    async def order(body: Update, ctx: Context) -> Price:
        clock.ahead = ahead
        return await ctx.call("pricing.quote", body, returns=Price)

    async with real_bus(tmp_path, "inventory", "pricing", "shop-web") as bus:
        asked_by_it = Worker(Shop().pricing, await bus.node("pricing", ScriptedEngine()))
        async with running(asked_by_it):
            # Before the other measures its clock: its calls are then not from before this one's start.
            await asked_by_it.ready.wait()
            web = Client.on(await bus.node("shop-web", ScriptedEngine()))
            begun = wall_clock()
            async with running(Worker(buyer, await bus.node("inventory", engine, clock=clock))):
                handle = await web.submit("inventory.order", Update(item_id="1"))
                assert await handle.result(Price, timeout=60) == Price(item_id="1", price=7)
        asked = [parse_time(one["context"]["time"]) for one in engine.asked]
        # About the task and about the answer. Its time has no fraction, and the broker's is known to a second.
        assert len(asked) == 2
        assert all(begun - 2 * SECOND <= time <= wall_clock() + SECOND for time in asked)
