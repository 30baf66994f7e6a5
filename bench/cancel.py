"""Cancelling: how soon it reaches a running handler three hops down, what a deep queue costs, and what it costs without any.

The agents have connections of their own to one real server with `sync_interval: always`; the
policy engine says yes, because its time is no matter of cancels.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.real_bus import RealBus, real_bus

from bench.report import Figure
from sealbus import Agent, Client, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker, settle_collector

__all__ = ["figures"]

CANCELS = 200
FEW, MANY = 5_000, 40_000
"""Tasks in a short and in a long queue."""
BYTES = 1 << 29


class Job(BaseModel):
    number: int = 0


class Plan:
    """A task that waits for a task that waits for a call; the time at which each was stopped."""

    def __init__(self) -> None:
        self.deepest = asyncio.Event()
        self.stopped: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.handled = 0
        self.began = 0.0
        self.done = asyncio.Event()
        self.wanted = 0
        self.plans, self.works, self.ends = Agent("plans"), Agent("works"), Agent("ends")

        @self.plans.task("plan")
        async def plan(job: Job, ctx: Context) -> None:
            await (await ctx.submit("works.work", job)).result(object)

        @self.works.task("work")
        async def work(job: Job, ctx: Context) -> None:
            await ctx.call("ends.end", job, returns=str, timeout=60)

        @self.works.task("count", status=False)
        async def count(job: Job, ctx: Context) -> None:
            self.began = self.began or time.perf_counter()
            self.handled += 1
            if self.handled >= self.wanted:
                self.done.set()

        @self.ends.call("end", timeout=60.0)
        async def end(job: Job, ctx: Context) -> str:
            self.deepest.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.stopped.set_result(time.perf_counter())
                raise
            return ""


@asynccontextmanager
async def running(bus: RealBus, *agents: Agent) -> AsyncIterator[None]:
    """Run a worker of each agent."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for agent in agents:
            node = await bus.node(agent.name, ScriptedEngine())
            worker = await stack.enter_async_context(Worker(agent, node, WorkerLimits()))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        settle_collector()
        try:
            yield
        finally:
            stop.set()


async def _reach(bus: RealBus, plan: Plan, client: Client) -> Figure:
    taken: list[float] = []
    async with running(bus, plan.plans, plan.works, plan.ends):
        for _ in range(CANCELS):
            plan.deepest.clear()
            plan.stopped = asyncio.get_running_loop().create_future()
            handle = await client.submit("plans.plan", Job())
            await plan.deepest.wait()
            start = time.perf_counter()
            await handle.cancel("measured")
            taken.append((await plan.stopped - start) * 1e3)
    taken.sort()
    p99 = taken[int(0.99 * len(taken)) - 1]
    middle = f"p50 {statistics.median(taken):.1f} ms, {CANCELS} cancels"
    return Figure(name="cancel to a handler three hops down, p99", value=p99, unit="ms", goal=100.0, beside=middle)


async def _drained(bus: RealBus, plan: Plan, client: Client, tasks: int) -> float:
    """Queue `tasks` while nobody handles them; return how many a second are handled from the first on."""
    for first in range(0, tasks, 500):
        await asyncio.gather(*[client.submit("works.count", Job(number=first + one)) for one in range(500)])
    plan.handled, plan.wanted, plan.began = 0, tasks, 0.0
    plan.done.clear()
    async with running(bus, plan.works):
        await plan.done.wait()
        return tasks / (time.perf_counter() - plan.began)


async def figures() -> AsyncGenerator[Figure, None]:
    """Yield each figure."""
    plan = Plan()
    with tempfile.TemporaryDirectory() as folder:
        names = ("plans", "works", "ends", "shop")
        async with real_bus(Path(folder), *names, max_bytes=BYTES, jetstream=", sync_interval: always") as bus:
            client = Client.on(await bus.node("shop", ScriptedEngine()))
            yield await _reach(bus, plan, client)
            few = await _drained(bus, plan, client, FEW)
            many = await _drained(bus, plan, client, MANY)
            yield Figure(
                name=f"{MANY} queued tasks drained, to {FEW}",
                value=many / few,
                unit="x",
                guard=0.75,
                goal=0.9,
                at_least=True,
                beside=f"{many:.0f} and {few:.0f} a second",
            )
