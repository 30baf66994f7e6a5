"""The executor: bounded, in order, each handler under its deadline, drained before they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, deny

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.work.executor import executor as module
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.testing import TestBus


class Job(BaseModel):
    number: int


@dataclass
class Works:
    """An agent whose handlers wait for `leave`; `running` is how many did at most."""

    entered: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    tasks: list[asyncio.Task[object]] = field(default_factory=list)
    running: int = 0
    now: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(init=False)
    wanted: int = 1

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        @self.agent.task("run", retry=0)
        async def run(job: Job, ctx: Context) -> None:
            self.entered.append(job.number)
            if (task := asyncio.current_task()) is not None:
                self.tasks.append(task)
            self.now += 1
            self.running = max(self.running, self.now)
            if len(self.entered) >= self.wanted:
                self.full.set()
            await self.leave.wait()
            self.now -= 1
            self.left.append(job.number)

        @self.agent.call("ask", timeout=0.02)
        async def ask(job: Job, ctx: Context) -> int:
            if job.number < 0:
                raise ValueError("a secret")
            if job.number == 0:
                await asyncio.Event().wait()
            return job.number

        @self.agent.task("leave", retry=0, timeout=0.05)
        async def leave(job: Job, ctx: Context) -> int:
            await left_behind(job.number)
            return job.number


async def left_behind(number: int) -> None:
    """Leave a request to cancel the current task behind, as libraries do and as `TaskGroup` of Python 3.11 does."""

    async def fail() -> None:
        raise ValueError

    task = asyncio.current_task()
    assert task is not None
    if number < 3:
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.Event().wait())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        if number == 1:
            await asyncio.Event().wait()
        if number == 2:
            # What another has cancelled, and all who wait for it hear.
            shared = asyncio.get_running_loop().create_future()
            shared.cancel()
            await shared
    else:
        task.cancel()  # raised at the next wait, which is not the handler's


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(works: Works, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(works.agent, engine=engine, development=False, limits=WorkerLimits(concurrency=3)) as running:
        yield running
        works.leave.set()


async def submit(bus: TestBus, count: int) -> None:
    client = await bus.client("shop")
    for number in range(count):
        await client.submit("works.run", Job(number=number))


async def test_no_more_run_than_its_concurrency(bus: TestBus, works: Works) -> None:
    works.wanted = 3
    await submit(bus, 10)
    await works.full.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert works.entered == [0, 1, 2]
    works.leave.set()
    await bus.idle()
    assert works.running == 3
    assert sorted(works.left) == list(range(10))


async def test_a_concurrency_of_one_keeps_the_order(works: Works, engine: ScriptedEngine) -> None:
    works.leave.set()
    async with TestBus(works.agent, engine=engine, development=False, limits=WorkerLimits(concurrency=1)) as bus:
        await submit(bus, 20)
        await bus.idle()
    assert works.left == list(range(20))


async def test_what_was_taken_is_finished_before_the_end(works: Works, engine: ScriptedEngine) -> None:
    async with TestBus(works.agent, engine=engine, development=False) as bus:
        await submit(bus, 5)
        works.wanted = 5
        await works.full.wait()
        asyncio.get_running_loop().call_later(0.05, works.leave.set)
    assert sorted(works.left) == list(range(5))
    assert len([one for one in bus.stored("RESULTS") if b"working" not in one.payload]) == 5


async def test_what_does_not_end_is_left_after_the_time_to_drain(works: Works, engine: ScriptedEngine) -> None:
    async with TestBus(works.agent, engine=engine, development=False, limits=WorkerLimits(drain=0.05)) as bus:
        await submit(bus, 1)
        await works.full.wait()
    assert works.left == []


async def test_what_a_handler_leaves_behind_ends_no_more_than_itself(works: Works, engine: ScriptedEngine) -> None:
    """Each message would otherwise cost the worker one of its places, and nobody would see it stand still."""
    async with TestBus(works.agent, engine=engine, development=False, limits=WorkerLimits(concurrency=1)) as bus:
        client = await bus.client("shop")
        ends: list[object] = []
        for number in range(5):
            handle = await client.submit("works.leave", Job(number=number))
            try:
                ends.append(await handle.result(int))
            except RemoteError as error:
                ends.append(error.code)
    assert ends == [0, Code.HANDLER_TIMEOUT, Code.HANDLER_FAILED, 3, 4]


async def test_what_cancels_a_handler_after_its_end_ends_nothing(works: Works, engine: ScriptedEngine) -> None:
    async with TestBus(works.agent, engine=engine, development=False, limits=WorkerLimits(concurrency=1)) as bus:
        works.leave.set()
        client = await bus.client("shop")
        for number in range(2):
            await (await client.submit("works.run", Job(number=number))).result(object)
            await bus.idle()
            works.tasks[-1].cancel()
            await asyncio.sleep(0)
    assert works.left == [0, 1]
    assert works.tasks[0] is works.tasks[1]


async def test_work_counts_as_open_until_it_is_settled(bus: TestBus, works: Works) -> None:
    """Until then the broker is shown signs of life, and a stop waits for it."""
    worker = bus.workers["works"]
    works.wanted = 2
    await submit(bus, 2)
    await works.full.wait()
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    works.leave.set()
    settling = asyncio.create_task(worker.settle())
    for _ in range(50):
        await asyncio.sleep(0)
    assert sorted(works.left) == [0, 1]
    assert len(worker.parts.work.executor.unfinished()) == 2
    assert not settling.done()
    bus.broker.fail("RESULTS", None)
    await settling
    await bus.idle()
    assert not worker.parts.work.executor.unfinished()


async def test_what_follows_a_handler_is_bounded(
    works: Works, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one, everything is still done: nothing waits for room while it holds some."""
    monkeypatch.setattr(module, "FINISHING", 1)
    works.leave.set()
    async with TestBus(works.agent, engine=engine, development=False) as bus:
        await submit(bus, 50)
        await bus.idle()
    assert sorted(works.left) == list(range(50))


@pytest.mark.parametrize(("number", "code"), [(-1, Code.HANDLER_FAILED), (0, Code.HANDLER_TIMEOUT)])
async def test_a_call_that_fails_is_answered_with_its_code(bus: TestBus, number: int, code: Code) -> None:
    client = await bus.client("shop")
    with pytest.raises(RemoteError) as failed:
        await client.call("works.ask", Job(number=number), returns=int)
    assert failed.value.code is code
    assert "secret" not in str(failed.value)
    assert await client.call("works.ask", Job(number=7), returns=int) == 7


async def test_what_is_decided_against_is_not_handed_to_the_executor(
    bus: TestBus, works: Works, engine: ScriptedEngine
) -> None:
    engine.verdict = lambda _: deny("no")
    await submit(bus, 3)
    await bus.idle()
    assert works.entered == []
