"""A worker: whose handlers it runs, when it is ready, and how it stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import pytest
from support.engines import ScriptedEngine, allow
from support.lab import until
from support.shop import Price, Shop, Update

from sealbus import Agent, Context
from sealbus.agents.dev.memory.broker import MemoryPull
from sealbus.agents.runtime import assembly
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.work.executor.executor import ExecutorLimits
from sealbus.envelopes.errors import ConfigurationError, PolicyUnavailable
from sealbus.envelopes.trust.names import Names
from sealbus.testing import TestBus


@dataclass
class Slow:
    """An agent whose task goes on until it is let go."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[str] = field(default_factory=list)
    agent: Agent = field(default_factory=lambda: Agent("slow"))

    def __post_init__(self) -> None:
        @self.agent.task("work", retry=0)
        async def work(body: Update, ctx: Context) -> None:
            self.started.set()
            await self.go.wait()
            self.done.append(body.item_id)


async def node_of(bus: TestBus, name: str) -> Node:
    return (await bus.client(name)).node


async def test_an_agent_runs_under_its_own_identity_alone() -> None:
    async with TestBus(engine=ScriptedEngine()) as bus:
        node = await node_of(bus, "pricing")
        with pytest.raises(ConfigurationError, match=r"agent inventory is spiffe://example\.org/agent/inventory, but"):
            Worker(Shop().inventory, node)
        node.deployment = type(node.deployment)(
            names=Names(bus.trust_domain, table={"inventory": bus.names.id_of("pricing")})
        )
        assert Worker(Agent("inventory"), node).node is node


async def test_once_it_is_ready_no_call_is_missed() -> None:
    async with TestBus(engine=ScriptedEngine()) as bus:
        stop = asyncio.Event()
        client = await bus.client("shop-web")
        async with Worker(Shop().pricing, await node_of(bus, "pricing")) as worker:
            running = asyncio.ensure_future(worker.run(stop))
            await worker.ready.wait()
            assert (await client.call("pricing.quote", Update(item_id="1"), returns=Price)).price == 7
            stop.set()
            assert await running


async def test_stopping_finishes_what_was_taken_and_takes_no_more() -> None:
    slow = Slow()
    async with TestBus(engine=ScriptedEngine()) as bus:
        stop = asyncio.Event()
        client = await bus.client("shop-web")
        async with Worker(slow.agent, await node_of(bus, "slow")) as worker:
            running = asyncio.ensure_future(worker.run(stop))
            await client.submit("slow.work", Update(item_id="1"))
            await slow.started.wait()
            stop.set()
            await asyncio.sleep(0)
            await client.submit("slow.work", Update(item_id="2"))
            slow.go.set()
            assert await running is True
        assert slow.done == ["1"]
        assert not bus.broker.consumers["TASKS", "slow"].idle


async def test_work_that_outlives_the_drain_is_told_and_comes_again() -> None:
    slow = Slow()
    async with TestBus(engine=ScriptedEngine()) as bus:
        stop = asyncio.Event()
        client = await bus.client("shop-web")
        node = await node_of(bus, "slow")
        async with asyncio.timeout(60):
            async with Worker(slow.agent, node, WorkerLimits(drain=0.05)) as worker:
                running = asyncio.ensure_future(worker.run(stop))
                await client.submit("slow.work", Update(item_id="1"))
                await slow.started.wait()
                stop.set()
                assert await running is False
        assert slow.done == []
        assert not bus.broker.consumers["TASKS", "slow"].idle


async def test_one_at_a_time_keeps_the_order() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine(), limits=WorkerLimits(concurrency=1)) as bus:
        client = await bus.client("shop-web")
        for number in range(30):
            await client.submit("inventory.update", Update(item_id=str(number)))
        await bus.idle()
    assert [item for item, _ in shop.handled] == [str(number) for number in range(30)]


async def test_no_more_handlers_run_at_a_time_than_said() -> None:
    agent, running, most, go = Agent("busy"), 0, 0, asyncio.Event()

    @agent.task("work")
    async def work(body: Update, ctx: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    async with TestBus(agent, engine=ScriptedEngine(), limits=WorkerLimits(concurrency=3)) as bus:
        client = await bus.client("shop-web")
        for number in range(10):
            await client.submit("busy.work", Update(item_id=str(number)))
        await until(lambda: running == 3)
        go.set()
        await bus.idle()
    assert most == 3


async def test_it_consumes_only_what_its_agent_handles() -> None:
    async with TestBus(Shop().inventory, engine=ScriptedEngine()) as bus:
        assert set(bus.broker.consumers) == {
            ("TASKS", "inventory"),
            ("TASKS", "id-ctl-inventory"),
            ("TASKS", "id-apr-inventory"),
            ("TASKS", "id-sch-inventory"),
        }
        assert not bus.broker.subscriptions
    async with TestBus(Shop().pricing, engine=ScriptedEngine()) as bus:
        assert set(bus.broker.consumers) == {
            ("EVENTS", "pricing"),
            ("TASKS", "id-ctl-pricing"),
            ("TASKS", "id-sch-pricing"),
        }
        served = {(one.pattern, one.queue) for one in bus.broker.subscriptions}
        assert served == {(f"call.pricing.{verb}", "pricing") for verb in ("quote", "broken", "count")}


async def test_two_replicas_share_the_work() -> None:
    first, second = Shop(), Shop()
    async with TestBus(first.inventory, engine=ScriptedEngine()) as bus:
        stop = asyncio.Event()
        client = Client.on(await node_of(bus, "shop-web"))
        async with Worker(second.inventory, await node_of(bus, "inventory")) as replica:
            running = asyncio.ensure_future(replica.run(stop))
            for number in range(20):
                await client.submit("inventory.update", Update(item_id=str(number)))
            await until(lambda: len(first.handled) + len(second.handled) == 20)
            stop.set()
            await running
    assert len({item for item, _ in (*first.handled, *second.handled)}) == 20


async def test_stopping_does_not_wait_for_what_was_not_even_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches whose records are stored may wait for room in the executor: with them, a stop would wait for all before."""
    slow = Slow()
    monkeypatch.setattr(assembly, "ExecutorLimits", partial(ExecutorLimits, waiting=1))
    async with TestBus(engine=ScriptedEngine()) as bus:
        client, stop = await bus.client("slow"), asyncio.Event()
        limits = WorkerLimits(drain=0.05, concurrency=1, batch=1)
        async with asyncio.timeout(60), Worker(slow.agent, client.node, limits) as worker:
            running = asyncio.ensure_future(worker.run(stop))
            for number in range(4):
                await client.submit("slow.work", Update(item_id=str(number)))
            await slow.started.wait()
            await until(
                lambda: client.node.counters.value("sealbus_decisions_total", action="slow.work", verdict="allow") == 3
            )
            stop.set()
            assert await running is False
    assert slow.done == []


async def test_the_broker_hears_of_work_before_it_would_deliver_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short `ack_wait` is set: otherwise a handler that takes longer runs twice at a time."""
    heard = asyncio.Event()
    monkeypatch.setattr(MemoryPull, "working", lambda _pull, _delivery: heard.set())
    slow = Slow()
    async with TestBus(slow.agent, engine=ScriptedEngine(), limits=WorkerLimits(ack_wait=0.3)) as bus:
        await (await bus.client("shop-web")).submit("slow.work", Update(item_id="1"))
        await slow.started.wait()
        # The usual pause is 10 s.
        async with asyncio.timeout(8):
            await heard.wait()
        slow.go.set()


async def test_nothing_new_is_taken_while_too_much_is_put_off() -> None:
    shop, engine = Shop(), ScriptedEngine(lambda _: PolicyUnavailable("away"))
    limits = WorkerLimits(max_ack_pending=8, batch=1)
    async with TestBus(shop.inventory, engine=engine, limits=limits) as bus:
        client, worker = await bus.client("shop-web"), bus.workers["inventory"]
        for number in range(20):
            await client.submit("inventory.update", Update(item_id=str(number)))
        await until(lambda: "put_off" in worker.notes())
        for _ in range(200):
            await asyncio.sleep(0)
        assert len({one["resource"]["id"] for one in engine.asked}) <= 6
        engine.verdict = lambda _: allow()
        await bus.idle()
    assert {item for item, _ in shop.handled} == {str(number) for number in range(20)}
