"""Limits on how many of one handler, and of one partition, run at a time: who waits, in which order, and who does not."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pydantic import BaseModel
from support.audit import opened
from support.engines import ScriptedEngine
from support.lab import until

from sealbus import Agent, Client, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import Endpoint, HandlerOptions, Permitted, Route
from sealbus.bus.work.executor import concurrency as module
from sealbus.bus.work.executor.concurrency import ConcurrencyLimits
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.message.kinds import Kind
from sealbus.testing import TestBus


class Job(BaseModel):
    name: str


@dataclass
class Works:
    """An agent whose handlers wait until `leave` has their name; `most` is how many of each action ran together."""

    entered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    leave: dict[str, asyncio.Event] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    held: bool = True
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        @self.agent.task("two", concurrency=2)
        async def two(job: Job, ctx: Context) -> None:
            await self._wait(job.name, ctx)

        @self.agent.task("free")
        async def free(job: Job, ctx: Context) -> None:
            await self._wait(job.name, ctx)

        @self.agent.task("ordered", ordered=True, retry=RetryPolicy(initial_interval=0.01))
        async def ordered(job: Job, ctx: Context) -> None:
            await self._wait(job.name, ctx)
            if job.name == "fails" and ctx.delivery == 1:
                raise ValueError

        @self.agent.task("both", ordered=True, concurrency=2)
        async def both(job: Job, ctx: Context) -> None:
            await self._wait(job.name, ctx)

        @self.agent.call("one", concurrency=1)
        async def one(job: Job, ctx: Context) -> str:
            await self._wait(job.name, ctx)
            return job.name

        @self.agent.on("event.shop.happened", concurrency=1)
        async def happened(job: Job, ctx: Context) -> None:
            await self._wait(job.name, ctx)

    async def _wait(self, name: str, ctx: Context) -> None:
        self.entered.append(name)
        self.now[ctx.action] = self.now.get(ctx.action, 0) + 1
        self.most[ctx.action] = max(self.most.get(ctx.action, 0), self.now[ctx.action])
        try:
            if self.held:
                await self.leave.setdefault(name, asyncio.Event()).wait()
        finally:
            self.now[ctx.action] -= 1
        self.left.append(name)

    def release(self, *names: str) -> None:
        for name in names:
            self.leave.setdefault(name, asyncio.Event()).set()

    def release_all(self) -> None:
        self.held = False
        self.release(*self.leave)


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
async def bus(works: Works) -> AsyncIterator[TestBus]:
    async with TestBus(works.agent, engine=ScriptedEngine(), limits=WorkerLimits(concurrency=8)) as running:
        yield running
        works.release_all()


@pytest.fixture
async def client(bus: TestBus) -> Client:
    return await bus.client("shop")


async def submit(client: Client, action: str, *names: str, **options: Any) -> None:
    for name in names:
        await client.submit(action, Job(name=name), **options)


async def test_so_many_of_a_handler_run_and_others_pass_by(bus: TestBus, client: Client, works: Works) -> None:
    await submit(client, "works.two", *(f"two{number}" for number in range(20)))
    await submit(client, "works.free", "free")
    await until(lambda: "free" in works.entered)
    assert works.entered == ["two0", "two1", "free"]
    works.release("two1")
    await until(lambda: len(works.entered) == 4)
    assert works.entered[-1] == "two2"
    works.release_all()
    await bus.idle()
    assert works.most == {"works.two": 2, "works.free": 1}
    assert sorted(works.left) == sorted([f"two{number}" for number in range(20)] + ["free"])


async def test_a_partition_is_handled_one_after_another_and_others_beside_it(
    bus: TestBus, client: Client, works: Works
) -> None:
    await submit(client, "works.ordered", "a1", "a2", "a3", partition="a")
    await submit(client, "works.ordered", "b1", "b2", partition="b")
    await submit(client, "works.ordered", "n1", "n2")
    await until(lambda: len(works.entered) == 3)
    assert works.entered == ["a1", "b1", "n1"]
    works.release("b1")
    await until(lambda: len(works.entered) == 4)
    works.release_all()
    await bus.idle()
    for partition in ("a", "b", "n"):
        assert [name for name in works.left if name[0] == partition] == sorted(
            name for name in works.left if name[0] == partition
        )
    assert len(works.left) == 7


async def test_what_failed_and_is_retried_lets_the_next_of_its_partition_pass(
    bus: TestBus, client: Client, works: Works
) -> None:
    works.held = False
    await submit(client, "works.ordered", "fails", "next", partition="a")
    await bus.idle()
    assert works.left == ["fails", "next", "fails"]
    assert works.most == {"works.ordered": 1}


async def test_both_limits_hold_together(bus: TestBus, client: Client, works: Works) -> None:
    for number in range(3):
        for partition in "abcd":
            await submit(client, "works.both", f"{partition}{number}", partition=partition)
    await until(lambda: len(works.entered) == 2)
    works.release_all()
    await bus.idle()
    assert works.most == {"works.both": 2}
    for partition in "abcd":
        assert [name for name in works.left if name[0] == partition] == [f"{partition}{number}" for number in range(3)]


async def test_calls_and_events_have_limits_too(bus: TestBus, client: Client, works: Works) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call("works.one", Job(name=name), returns=str)) for name in ("a", "b")]
        await until(lambda: len(works.entered) == 1)
        for name in ("c", "d"):
            await client.emit("happened", Job(name=name))
        await until(lambda: len(works.entered) == 2)
        works.release_all()
    assert [call.result() for call in calls] == ["a", "b"]
    await bus.idle()
    assert works.most == {"works.one": 1, "shop.happened": 1}
    assert len(works.left) == 4


async def test_only_a_source_whose_messages_wait_is_held_up(
    bus: TestBus, client: Client, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINED_UP", 1)
    pull = bus.broker.consumers["TASKS", "works"]
    pull.allow(2, 1)
    await submit(client, "works.two", *(f"two{number}" for number in range(30)))
    await until(lambda: len(works.entered) == 2)
    works.release("call")
    assert await client.call("works.one", Job(name="call"), returns=str) == "call"
    assert bus.workers["works"].parts.work.executor.waiting() < 30 - 2
    works.release_all()
    await bus.idle()
    assert len(works.left) == 31
    assert works.most["works.two"] == 2


@pytest.mark.slow
async def test_room_for_what_waits_is_given_back_once(works: Works) -> None:
    """More than fit at a time, of a handler whose messages take no room while they stand in line, and of another."""
    works.held = False
    async with TestBus(works.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop")
        for number in range(600):
            await submit(client, "works.two", f"two{number}")
            await submit(client, "works.free", f"free{number}")
        await bus.idle(30)
    assert len(works.left) == 1_200


async def test_who_stops_waits_for_lines_too(works: Works) -> None:
    async with TestBus(works.agent, engine=ScriptedEngine()) as bus:
        await submit(await bus.client("shop"), "works.two", "a", "b", "c", "d")
        await until(lambda: len(works.entered) == 2)
        asyncio.get_running_loop().call_later(0.05, works.release_all)
    assert sorted(works.left) == ["a", "b", "c", "d"]


async def test_a_handler_with_a_limit_leaves_room_for_others_where_all_places_are_few(works: Works) -> None:
    """What was lined up queues again behind what has come meanwhile."""
    async with TestBus(works.agent, engine=ScriptedEngine(), limits=WorkerLimits(concurrency=1)) as bus:
        client = await bus.client("shop")
        await submit(client, "works.two", "a", "b", "c", "d", "e")
        await submit(client, "works.free", "free")
        await until(lambda: bus.workers["works"].parts.work.executor.waiting() == 5)
        works.release_all()
        await bus.idle()
    assert works.entered[:3] == ["a", "b", "free"]


def work(
    partition: str, concurrency: int | None = None, endpoint: object = "one endpoint", source: object = "a pull"
) -> Work:
    subject = f"task.works.run.{partition}"
    route = Route(
        kind=Kind.TASK,
        subject="task.works.run.*",
        action="works.run",
        endpoint=cast("Endpoint", endpoint),
        options=HandlerOptions(retry=RetryPolicy(), ordered=True, concurrency=concurrency),
    )
    permitted = Permitted(
        message=opened(), value=None, route=route, leaf=bytes(32), sent=[], cancellation=Cancellation()
    )
    return Work(permitted, Delivery(subject, b"", b""), cast("Pull", source), {})


async def test_who_has_passed_the_line_of_its_partition_may_wait_for_its_handler() -> None:
    limits = ConcurrencyLimits()
    first, second, other, third = work("a", 1), work("a", 1), work("b", 1), work("b", 1)
    assert [limits.enter(one) for one in (first, second, other, third)] == [True, False, False, False]
    assert limits.leave(first) is other
    assert limits.leave(other) is second
    assert limits.leave(second) is third
    assert limits.leave(third) is None


async def test_nothing_is_remembered_of_what_is_over() -> None:
    class Named:
        """An endpoint or a source, which can be seen to be forgotten."""

    limits, endpoint, source = ConcurrencyLimits(), Named(), Named()
    works = [work(partition, 1, endpoint=endpoint, source=source) for partition in "aab"]
    assert [limits.enter(one) for one in works] == [True, False, False]
    for one in [works[0], works[2], works[1]]:
        limits.leave(one)
    seen = [weakref.ref(endpoint), weakref.ref(source)]
    del works, one, endpoint, source
    gc.collect()
    assert [one() for one in seen] == [None, None]


async def test_room_is_there_again_once_few_enough_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINED_UP", 1)
    limits = ConcurrencyLimits()
    works = [work("a") for _ in range(4)]
    assert [limits.enter(one) for one in works] == [True, False, False, False]
    await limits.room("another")
    room = asyncio.create_task(limits.room("a pull"))
    await asyncio.sleep(0)
    assert limits.leave(works[0]) is works[1]
    await asyncio.sleep(0)
    assert not room.done()
    assert limits.leave(works[1]) is works[2]
    async with asyncio.timeout(60):
        await room
