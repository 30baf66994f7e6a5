"""Cancelling on real NATS, with the permissions that agents have: three agents on connections of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client, Context, TaskHandle
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.frames import publish_frame
from sealbus.bus.ports import Outgoing
from sealbus.bus.routing.retry import Retry
from sealbus.bus.sending.status import State
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply

pytestmark = [pytest.mark.nats]


class Job(BaseModel):
    number: int = 0


@dataclass
class Chain:
    """A task of `plans` waits for one of `works`, which waits for a call of `ends`, which waits for ever."""

    deepest: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: list[str] = field(default_factory=list)
    handled: list[int] = field(default_factory=list)
    leaves: dict[int, asyncio.Event] = field(default_factory=dict)
    entered: dict[int, asyncio.Event] = field(default_factory=dict)

    @property
    def agents(self) -> list[Agent]:
        plans, works, ends = Agent("plans"), Agent("works"), Agent("ends")

        @plans.task("plan")
        async def plan(job: Job, ctx: Context) -> None:
            try:
                await (await ctx.submit("works.work", job)).result(object)
            except asyncio.CancelledError:
                self.stopped.append("plan")
                raise

        @works.task("work")
        async def work(job: Job, ctx: Context) -> None:
            try:
                await ctx.call("ends.end", job, returns=str)
            except asyncio.CancelledError:
                self.stopped.append("work")
                raise

        @works.task("later")
        async def later(job: Job, ctx: Context) -> None:
            self.handled.append(job.number)
            raise Retry(after=3_000.0, note="later")

        @works.task("wait")
        async def wait(job: Job, ctx: Context) -> str:
            self.entered[job.number].set()
            await self.leaves[job.number].wait()
            return "done"

        @ends.call("end", timeout=60.0)
        async def end(job: Job, ctx: Context) -> str:
            self.deepest.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.stopped.append("end")
                raise
            return ""

        return [plans, works, ends]


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "plans", "works", "ends", "shop", "rogue", permitted=True) as made:
        yield made


async def ended(handle: TaskHandle) -> tuple[State, str, str]:
    async with aclosing(handle.statuses()) as statuses:
        found = [status async for status in statuses]
    return found[-1].state, found[-1].code, found[-1].note


CANCELED = (State.CANCELED, "canceled", "enough")


async def until_settled(bus: RealBus, consumer: str) -> None:
    """Wait until the broker holds nothing for a consumer that it would deliver, again or for the first time."""
    found: object = None
    async with asyncio.timeout(60):
        while found != (0, 0):
            info = await api(bus.connections["operator"].jetstream, f"CONSUMER.INFO.TASKS.{consumer}")
            found = (info["num_ack_pending"], info["num_pending"])
            await asyncio.sleep(0.05)


async def test_three_agents_stop_and_a_process_that_starts_later_knows(bus: RealBus, chain: Chain) -> None:
    await bus.node("operator", ScriptedEngine())
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    async with bus.workers(*chain.agents):
        handle = await client.submit("plans.plan", Job())
        await chain.deepest.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await until(lambda: sorted(chain.stopped) == ["end", "plan", "work"])
    # All are down: the next task waits, is canceled while its agent is down, and comes with its cancel.
    late = await client.submit("works.later", Job(number=7))
    with pytest.raises(TimeoutError):
        await late.cancel("enough", timeout=0.2)
    async with bus.workers(chain.agents[1]):
        assert await ended(late) == CANCELED
    await until_settled(bus, "works")
    # It was taken before its cancel, or never: either way nothing of it is left.
    assert chain.handled in ([], [7])


async def test_one_that_is_put_off_leaves_nothing_at_the_broker(bus: RealBus, chain: Chain) -> None:
    await bus.node("operator", ScriptedEngine())
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    async with bus.workers(chain.agents[1]):
        handle = await client.submit("works.later", Job(number=1))
        async with aclosing(handle.statuses()) as statuses:
            assert (await anext(statuses)).note == "later"
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await until_settled(bus, "works")
    assert chain.handled == [1]


async def test_a_cancel_holds_through_a_restart_of_the_server(bus: RealBus, chain: Chain) -> None:
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    async with bus.workers(*chain.agents) as running:
        await bus.server.kill9()
        await until(lambda: not any(worker.parts.stops.current.is_set() for worker in running))
        await bus.server.restart()
        await until(lambda: all(worker.parts.stops.current.is_set() for worker in running))
        handle = await client.submit("plans.plan", Job())
        await chain.deepest.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await until(lambda: sorted(chain.stopped) == ["end", "plan", "work"])


async def test_a_cancel_holds_after_the_stream_of_stops_was_deleted_and_made_again(bus: RealBus, chain: Chain) -> None:
    """Nothing is handled while it is not known what was canceled, and everything is once it is."""
    await bus.node("operator", ScriptedEngine())
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    request = bus.connections["operator"].jetstream
    async with bus.workers(*chain.agents) as running:
        await api(request, "STREAM.DELETE.STATE")
        await until(lambda: not any(worker.parts.stops.current.is_set() for worker in running))
        assert all("state" in worker.not_ready() for worker in running)
        await apply(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}), request)
        await until(lambda: all(worker.parts.stops.current.is_set() for worker in running))
        handle = await client.submit("plans.plan", Job())
        await chain.deepest.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED


async def test_bytes_that_were_stored_over_a_stop_undo_nothing(bus: RealBus, chain: Chain) -> None:
    """Who is in the account of the streams can have the server store its answers anywhere; in one account everybody can."""
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    works = chain.agents[1]
    async with bus.workers(works) as [worker]:
        handle = await client.submit("works.later", Job(number=1))
        await until(lambda: chain.handled == [1])
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        [place] = worker.parts.stops._room.under(handle.digest)
        frame = publish_frame(Outgoing(subject="$JS.API.STREAM.NAMES", payload=b"{}"), reply=place.subject)
        bus.operator.link.write(frame)
        await until(lambda: worker.node.counters.value("sealbus_stops_unverified_total", code="malformed") == 1)
        assert place in worker.parts.stops._room
    # A process that knows nothing but what is stored now: HELD tells it of the cancel.
    async with bus.workers(works) as [worker]:
        assert place not in worker.parts.stops._room
        [stop] = await worker.parts.kept_stops.under(handle.digest)
        assert (stop.by, stop.reason) == (bus.names.id_of("shop"), "enough")


async def test_completion_and_cancel_at_once_have_one_winner_for_every_reader(bus: RealBus, chain: Chain) -> None:
    client = Client.on(await bus.node("shop", ScriptedEngine()))
    found: Counter[State] = Counter()
    async with bus.workers(chain.agents[1]):
        for number in range(100):
            chain.leaves[number], chain.entered[number] = asyncio.Event(), asyncio.Event()
            handle = await client.submit("works.wait", Job(number=number))
            await chain.entered[number].wait()
            canceling = asyncio.create_task(handle.cancel())
            await asyncio.sleep(0.0002 * (number % 25))
            chain.leaves[number].set()
            first, second = await asyncio.gather(ended(handle), ended(client.handle(handle.text)))
            await canceling
            assert first == second
            found[first[0]] += 1
    assert set(found) <= {State.COMPLETED, State.CANCELED}
