"""Retries on a real server, whose count of deliveries and whose clock they go by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from support.engines import ScriptedEngine, Verdict, allow
from support.real_bus import RealBus, real_bus
from support.shop import Update

from sealbus import Agent, Client, Context, Reject, RemoteError, Retry, RetryPolicy, TaskHandle
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import PolicyUnavailable

pytestmark = [pytest.mark.nats]

POLICY = RetryPolicy(initial_interval=0.2, backoff_coefficient=3.0, jitter=0.0, maximum_attempts=3)
EARLY = 0.05
"""Seconds that the server may be early by, for it counts from when it has read the request."""


class Prices:
    """An agent that notes when each attempt began."""

    def __init__(self) -> None:
        self.agent = Agent("prices")
        self.begun: list[float] = []
        self.deliveries: list[int] = []
        self.order: list[str] = []
        self.running = 0

        def begin(ctx: Context) -> None:
            self.begun.append(asyncio.get_running_loop().time())
            self.deliveries.append(ctx.delivery)

        @self.agent.task("fail", retry=POLICY)
        async def fail(body: Update, ctx: Context) -> None:
            begin(ctx)
            raise ValueError

        @self.agent.task("ask", retry=POLICY)
        async def ask(body: Update, ctx: Context) -> None:
            begin(ctx)
            if ctx.delivery == 1:
                raise Retry(after=1.0, note="not yet")
            raise Reject("sold_out", note="none left")

        @self.agent.task("in_turn", ordered=True)
        async def in_turn(body: Update, ctx: Context) -> None:
            self.running += 1
            assert self.running == 1
            await asyncio.sleep(0)
            self.running -= 1
            self.order.append(body.item_id)

    def waits(self) -> list[float]:
        return [after - before for before, after in pairwise(self.begun)]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "prices", "shop-web", permitted=True) as running:
        yield running


@asynccontextmanager
async def at_work(bus: RealBus, prices: Prices, engine: ScriptedEngine) -> AsyncIterator[Client]:
    stop = asyncio.Event()
    async with Worker(prices.agent, await bus.node("prices", engine)) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield Client.on(await bus.node("shop-web", ScriptedEngine()))
        stop.set()


async def told(handle: TaskHandle) -> list[tuple[State, str, str]]:
    async with asyncio.timeout(60), aclosing(handle.statuses()) as statuses:
        return [(one.state, one.code, one.note) async for one in statuses]


async def test_attempts_are_so_far_apart_and_so_many_as_the_policy_says(bus: RealBus) -> None:
    """Deliveries that the policy engine was away for are none of them."""
    prices = Prices()
    verdicts: Iterator[Verdict] = iter([PolicyUnavailable("away"), PolicyUnavailable("away")])
    async with at_work(bus, prices, ScriptedEngine(lambda _: next(verdicts, allow()))) as client:
        handle = await client.submit("prices.fail", Update(item_id="1"))
        failed = (State.WORKING, "handler_failed", "")
        assert await told(handle) == [failed, failed, (State.FAILED, "handler_failed", "")]
    assert prices.deliveries == [3, 4, 5]
    first, second = prices.waits()
    assert first >= 0.2 - EARLY
    assert second >= 0.6 - EARLY


async def test_a_handler_is_tried_again_when_it_said_and_rejects_for_good(bus: RealBus) -> None:
    prices = Prices()
    async with at_work(bus, prices, ScriptedEngine()) as client:
        handle = await client.submit("prices.ask", Update(item_id="1"))
        assert await told(handle) == [(State.WORKING, "", "not yet"), (State.FAILED, "sold_out", "none left")]
        with pytest.raises(RemoteError) as failed:
            await handle.result()
    assert (failed.value.code, failed.value.note) == ("sold_out", "none left")
    (wait,) = prices.waits()
    assert wait >= 1.0 - EARLY


async def test_tasks_of_one_partition_are_handled_in_order(bus: RealBus) -> None:
    prices = Prices()
    async with at_work(bus, prices, ScriptedEngine()) as client:
        names = [str(number) for number in range(100)]
        handles = [await client.submit("prices.in_turn", Update(item_id=one), partition="p") for one in names]
        assert [(await told(handle))[-1][0] for handle in handles] == [State.COMPLETED] * len(names)
    assert prices.order == names
