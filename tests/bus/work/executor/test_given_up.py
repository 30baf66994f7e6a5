"""Handlers that do not stop: their requesters are told, others run in their place, and what comes of them is ignored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until

from sealbus import Agent, Client, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.work.executor import attempt as module
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


class Job(BaseModel):
    fails: bool = False


@dataclass
class Works:
    """An agent whose handlers swallow every cancellation until `leave`, and one that does not."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[str] = field(default_factory=list)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        @self.agent.task("stay", timeout=0.02, once=True)
        async def stay(job: Job, ctx: Context) -> str:
            return await self.stay(job)

        @self.agent.call("ask", timeout=0.02)
        async def ask(job: Job, ctx: Context) -> str:
            return await self.stay(job)

        @self.agent.call("quick")
        async def quick(job: Job, ctx: Context) -> str:
            return "quick"

    async def stay(self, job: Job) -> str:
        self.entered.set()
        while not self.leave.is_set():
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                continue
        self.ended.append("stay")
        if job.fails:
            raise ValueError
        return "late"


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
async def bus(works: Works, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestBus]:
    monkeypatch.setattr(module, "GIVEN_UP_AFTER", 0.02)
    async with TestBus(works.agent, engine=ScriptedEngine(), limits=WorkerLimits(concurrency=1)) as running:
        yield running
        works.leave.set()


def lanes() -> int:
    """Return how many tasks run handlers, of all workers; each is named after the handler that it ran last."""
    return sum(task.get_name().startswith(("handler-", "handler of ")) for task in asyncio.all_tasks())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_ends_and_others_are_handled(bus: TestBus, works: Works, fails: bool) -> None:
    client = await bus.client("shop")
    before = lanes()
    handle = await client.submit("works.stay", Job(fails=fails), idempotency_key="k")
    with pytest.raises(RemoteError) as caught:
        await handle.result()
    assert caught.value.code == "handler_timeout"
    # The one place is another's now.
    assert await client.call("works.quick", Job(), returns=str) == "quick"
    worker = bus.workers["works"]
    assert worker.notes() == {"handlers": "1 do not stop and run on: works.stay"}
    assert len(bus.stored("DEAD")) == 1
    works.leave.set()
    await until(lambda: works.ended == ["stay"])
    await bus.idle()
    assert worker.notes() == {}
    assert await client.call("works.quick", Job(), returns=str) == "quick"
    assert lanes() == before
    codes = [entry.record.code for entry in await bus.audit() if isinstance(entry.record, OutcomeRecord)]
    assert codes[:2] == ["handler_timeout", None]


async def test_a_call_is_answered(bus: TestBus, works: Works) -> None:
    client = await bus.client("shop")
    with pytest.raises(RemoteError) as caught:
        await client.call("works.ask", Job(), returns=str)
    assert caught.value.code == "handler_timeout"
    works.leave.set()
    await until(lambda: works.ended == ["stay"])
    await bus.idle()
    codes = [entry.record.code for entry in await bus.audit() if isinstance(entry.record, OutcomeRecord)]
    assert codes == ["handler_timeout"]


async def test_a_canceled_one_ends_as_canceled(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVEN_UP_AFTER", 0.5)
    async with TestBus(works.agent, engine=ScriptedEngine()) as bus:
        handle = await (await bus.client("shop")).submit("works.stay", Job())
        await works.entered.wait()
        await handle.cancel("enough")
        with pytest.raises(RemoteError) as caught:
            await handle.result()
        assert (caught.value.code, caught.value.note) == ("canceled", "enough")
        assert not bus.stored("DEAD")
        works.leave.set()


@pytest.mark.slow
async def test_its_effect_stays_claimed_until_it_has_ended(bus: TestBus, works: Works) -> None:
    """A second copy of the task must not run beside the handler that does not stop."""
    client = await bus.client("shop")
    first = await client.submit("works.stay", Job(), idempotency_key="k")
    with pytest.raises(RemoteError):
        await first.result()
    works.entered.clear()
    again = await client.submit("works.stay", Job(), idempotency_key="k")
    with pytest.raises(TimeoutError):
        await again.result(timeout=0.2)
    assert not works.entered.is_set()
    works.leave.set()
    assert await again.result(str, timeout=60) == "late"
    assert works.ended == ["stay"]


async def test_as_many_run_in_others_places_as_run_at_a_time(bus: TestBus, works: Works) -> None:
    client: Client = await bus.client("shop")
    before = lanes()
    handles = [await client.submit("works.stay", Job()) for _ in range(2)]
    for handle in handles:
        with pytest.raises(RemoteError):
            await handle.result()
    # Two handlers run on, in a place that is one's: nothing else runs until they end.
    waiting = asyncio.create_task(client.call("works.quick", Job(), returns=str))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    works.leave.set()
    assert await waiting == "quick"
    await until(lambda: works.ended == ["stay"] * 2)
    await bus.idle()
    assert lanes() == before


async def test_a_worker_ends_although_a_handler_swallowed_that(works: Works) -> None:
    async with TestBus(works.agent, engine=ScriptedEngine(), limits=WorkerLimits(drain=0.01)) as bus:
        await (await bus.client("shop")).submit("works.stay", Job())
        await works.entered.wait()
        asyncio.get_running_loop().call_later(0.1, works.leave.set)
    assert works.ended == ["stay"]
