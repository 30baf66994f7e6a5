"""Agents in two cells, which the auth callout places by the registry: what they do for each other crosses, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.cells import PLACED, CellsSite, cells_site, stored
from support.lab import until
from support.policy_bus import ANCHORS, ROOT

from sealbus import Agent, Client, Context
from sealbus.agents.runtime import worker as worker_module
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.reach import refuse_cells
from sealbus.bus.sending.status import State
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE
from sealbus.bus.work.cancel import in_force
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.decision.placement import Placement

pytestmark = [pytest.mark.nats]


class Job(BaseModel):
    number: int = 0


@dataclass
class Chain:
    """A task of `plans` waits for one of `works`, in the other cell, which waits for a call of `ends` in the first one."""

    deepest: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: list[str] = field(default_factory=list)

    @property
    def agents(self) -> list[Agent]:
        plans, works, ends = Agent("plans"), Agent("works"), Agent("ends")

        @plans.task("plan")
        async def plan(job: Job, ctx: Context) -> int:
            try:
                return await (await ctx.submit("works.work", job)).result(int)
            except asyncio.CancelledError:
                self.stopped.append("plan")
                raise

        @works.task("work")
        async def work(job: Job, ctx: Context) -> int:
            try:
                return await ctx.call("ends.end", job, returns=int)
            except asyncio.CancelledError:
                self.stopped.append("work")
                raise

        @ends.call("end", timeout=60.0)
        async def end(job: Job, ctx: Context) -> int:
            self.deepest.set()
            if job.number < 0:
                await asyncio.Event().wait()
            return job.number + 1

        return [plans, works, ends]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[CellsSite]:
    async with cells_site(tmp_path) as started:
        yield started


async def test_work_and_its_answers_cross(site: CellsSite) -> None:
    await site.run(*Chain().agents)
    client = Client.on(await site.node("shop"))
    handle = await client.submit("plans.plan", Job(number=6))
    assert await handle.result(int) == 7
    first, east = await stored(site, "operator"), await stored(site, "ruler")
    # Each task, its records and the statuses for its requester are in the cell of the agent that they are about.
    assert (first["TASKS"], east["TASKS"]) == (1, 1)
    assert first["RESULTS"]
    assert not east["RESULTS"]
    assert first["AUDIT"]
    assert east["AUDIT"]


async def test_a_cancel_reaches_the_whole_chain(site: CellsSite) -> None:
    chain = Chain()
    await site.run(*chain.agents)
    client = Client.on(await site.node("shop"))
    handle = await client.submit("plans.plan", Job(number=-1))
    await chain.deepest.wait()
    await handle.cancel("enough")
    async with aclosing(handle.statuses()) as statuses:
        found = [status async for status in statuses]
    assert (found[-1].state, found[-1].note) == (State.CANCELED, "enough")
    await until(lambda: sorted(chain.stopped) == ["plan", "work"])


async def test_an_event_reaches_who_listens_in_another_cell(site: CellsSite) -> None:
    heard, hears, works = list[int](), Agent("hears"), Agent("works")

    @hears.on("event.works.made")
    async def made(job: Job, ctx: Context) -> None:
        heard.append(job.number)

    @works.task("work")
    async def work(job: Job, ctx: Context) -> int:
        await ctx.emit("made", job)
        return job.number

    await site.run(hears, works)
    client = Client.on(await site.node("plans"))
    for number in (1, 2):
        assert await (await client.submit("works.work", Job(number=number))).result(int) == number
    await until(lambda: sorted(heard) == [1, 2])
    assert (await stored(site, "operator"))["EVENTS"] == 0
    assert (await stored(site, "ruler"))["EVENTS"] == 2


async def test_who_listens_hears_a_cell_that_is_new(site: CellsSite, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (worker_module, in_force):
        monkeypatch.setattr(module, "NEW_CELLS", 0.05)
    heard, hears, works = list[int](), Agent("hears"), Agent("works")

    @hears.on("event.works.made")
    async def made(job: Job, ctx: Context) -> None:
        heard.append(job.number)

    @works.task("work")
    async def work(job: Job, ctx: Context) -> None:
        await ctx.emit("made", job)

    site.cells = {}
    await site.run(hears)
    site.cells = PLACED
    await site.run(works)
    client = Client.on(await site.node("plans"))
    await (await client.submit("works.work", Job(number=1))).result(type(None))
    await until(lambda: heard == [1])


@pytest.mark.parametrize("name", ["works", "ruler"])
async def test_policies_are_read_from_another_cell(site: CellsSite, name: str) -> None:
    """By an agent of the cell, and by who is in the account of its streams, as its notary is."""
    async with site.server.connection("operator") as operator, site.server.connection(name) as connection:
        store = PolicyStore(operator, "policies")
        await store.create()
        await push_content(store, ANCHORS, "platform", content_of(site.server.policy), ROOT)
        other = PolicyStore(connection, "policies@default")
        pushed = await store.current()
        assert pushed["platform"].raw
        assert await other.current() == pushed
        async with aclosing(other.objects.watch()) as changes:
            names = set[str]()
            while names != {"platform", "platform@1"}:
                names |= {info.name for info in await anext(changes)}


async def test_a_worker_ends_whose_cell_changes(site: CellsSite) -> None:
    async with Worker(Chain().agents[1], await site.node("works")) as worker:
        running = asyncio.create_task(worker.run(asyncio.Event()))
        await worker.ready.wait()
        site.cells = {"other": Placement("east")}
        with pytest.raises(ExceptionGroup) as ended:
            await running
        assert ended.group_contains(ConfigurationError, match="works is in the cell default now")


async def test_an_edge_looks_for_parked_tasks_in_every_cell(site: CellsSite) -> None:
    edge = await site.node("edge")
    assert list(edge.transport.cells_of("held.*.task.managers.*")) == ["default", "east"]
    assert await edge.held.newest(f"held.*.task.*.{'00' * 32}", PARKED_TYPE, flooded=False) == {}
    for cell in ("default", "east"):
        scan = await edge.held.scan("held.*.task.managers.*", most=10, cell=cell)
        assert (dict(scan.places), scan.complete) == ({}, True)


@pytest.mark.parametrize(
    "subject",
    [
        "task.works.work",
        "call.works.price",
        "control.works.cancel",
        "cell.east.task.plans.plan",
        "cell.east.status.shop.00",
        "cell.east._INBOX.shop.reply.1.1",
        "cell.east.state.works.x",
        "cell.east.held.plans.x",
        "cell.east.audit.plans",
        "cell.east.dead.plans.1",
        "cell.east.event.plans.made",
        "cell.east.task.works.other",
        "cell.east.task.shop.plan",
        "cell.east.call.works.price",
        "cell.east.$JS.API.CONSUMER.CREATE.TASKS.works.task.works.>",
        "cell.east.$JS.API.CONSUMER.DELETE.TASKS.works",
        "cell.east.$JS.API.CONSUMER.MSG.NEXT.TASKS.works",
        "cell.east.$JS.API.CONSUMER.CREATE.EVENTS.works.event.>",
        "cell.east.$JS.API.CONSUMER.CREATE.HELD.read-1.held.works.>",
        "cell.east.$JS.API.DIRECT.GET.STATE.state.works.x",
        "cell.east.$JS.API.STREAM.MSG.DELETE.DEAD",
        "cell.east.$O.policies.M.x",
    ],
)
async def test_nothing_else_crosses(site: CellsSite, subject: str) -> None:
    async with site.server.raw("plans") as client:
        for said in ("cell.east.task.works.work", "cell.east.control.works.cancel", "status.shop.00"):
            assert await client.may_publish(said)
        assert not await client.may_publish(subject)


async def test_an_agent_of_a_cell_answers_in_the_cell_of_who_asked(site: CellsSite) -> None:
    async with site.server.raw("works") as client:
        for said in ("status.plans.00", "_INBOX.plans.reply.1.1"):
            assert await client.may_publish(f"cell.default.{said}")
            assert not await client.may_publish(said)


async def test_a_process_without_the_policy_does_not_start_where_there_are_cells(site: CellsSite) -> None:
    for name in ("works", "shop", "operator"):
        async with site.server.connection(name) as connection:
            with pytest.raises(ConfigurationError, match=r"there may be cells.*: set policy\.bundle"):
                await refuse_cells(connection)


async def test_without_cells_a_process_needs_no_policy_of_its_own(tmp_path: Path) -> None:
    async with cells_site(tmp_path, {}) as site, site.server.connection("shop") as connection:
        await refuse_cells(connection)


async def test_a_reload_ends_the_grants_of_before_the_cells(tmp_path: Path) -> None:
    async with cells_site(tmp_path, {}) as site, site.server.raw("plans") as client:
        assert await client.may_publish("task.works.work")
        await site.push(tmp_path / "after", PLACED)
        assert await client.may_publish("task.works.work")
        await site.server.reload()
        assert not await client.may_publish("task.works.work")
        assert await client.may_publish("cell.east.task.works.work")


@pytest.mark.parametrize(
    "reply", ["state.works.stop.x.plans", "held.works.keys", "cell.east.state.works.x", "task.works.work"]
)
async def test_no_answer_of_another_cell_is_stored(site: CellsSite, reply: str) -> None:
    """The server checks no permission for where it answers: an answer must not come back into a stream."""
    before = [await stored(site, operator) for operator in ("operator", "ruler")]
    requests = [
        ("cell.east.$JS.API.STREAM.LIST", b"{}"),
        ("cell.east.$JS.API.CONSUMER.MSG.NEXT.EVENTS.plans", b'{"batch":3,"no_wait":true}'),
        ("cell.east.task.works.work", b"x"),
    ]
    async with site.server.raw("plans") as client:
        for subject, payload in requests:
            client.publish(subject, payload, reply=reply)
        assert await client.settle() == []
        assert await client.ask("cell.east.$JS.API.STREAM.LIST")
    first, east = [await stored(site, operator) for operator in ("operator", "ruler")]
    assert first == before[0]
    # The task itself is stored, and nothing beside it.
    assert east == {**before[1], "TASKS": before[1]["TASKS"] + 1}
