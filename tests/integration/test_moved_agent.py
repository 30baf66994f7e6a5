"""An agent that has worked is moved to another cell, as docs/cells.md says: nothing is lost, nothing is handled twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest
from pydantic import BaseModel
from support.cells import CellsSite, cells_site, stored
from support.lab import until

from sealbus import Agent, Client, Context
from sealbus.bus.nats.api import api
from sealbus.bus.ports import Outgoing, PubAck, Transport
from sealbus.bus.streams.estimate import CONSUMERS_OF_AGENT, ExpectedAgents
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.policies.decision.placement import Placement

pytestmark = [pytest.mark.nats]

HOUR = 3600.0
BEFORE = MappingProxyType({"ruler": Placement("east")})
HELD_TYPE = "application/vnd.sealbus.parked-marker.v1"


class Job(BaseModel):
    number: int = 0


@dataclass
class Works:
    """The agent that is moved, and what it has done and heard."""

    done: Counter[int] = field(default_factory=Counter)
    heard: list[int] = field(default_factory=list)

    @property
    def works(self) -> Agent:
        works = Agent("works")

        @works.task("work", once=True)
        async def work(job: Job, ctx: Context) -> int:
            self.done[job.number] += 1
            await ctx.emit("made", job)
            return job.number

        return works

    @property
    def hears(self) -> Agent:
        hears = Agent("hears")

        @hears.on("event.works.made")
        async def made(job: Job, ctx: Context) -> None:
            self.heard.append(job.number)

        return hears


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[CellsSite]:
    async with cells_site(tmp_path, BEFORE) as started:
        yield started


async def move(site: CellsSite, folder: Path, *, after: float = 0.0) -> None:
    """Have the registry say that `works` is in the cell east, `after` seconds from now."""
    since = int((time.time() + after) * SECOND)
    await site.push(folder / f"moved-{since}", {**BEFORE, "works": Placement("east", "default", since)})


class Captured:
    """A transport's messages of TASKS, as somebody on the way sees them."""

    def __init__(self, transport: Transport, patch: pytest.MonkeyPatch) -> None:
        self.tasks: list[Outgoing] = []
        publish = transport.publish

        async def captured(messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
            self.tasks += [message for message in messages if message.subject.startswith("task.")]
            return await publish(messages, deadline=deadline)

        patch.setattr(transport, "publish", captured)


async def test_what_was_said_before_and_after_is_done_once(
    site: CellsSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = Works()
    node = await site.node("plans")
    captured, client = Captured(node.transport, monkeypatch), Client.on(node)
    async with site.running(agents.works):
        first = await client.submit("works.work", Job(number=1), idempotency_key="first")
        assert await first.result(int) == 1
    waiting = await client.submit("works.work", Job(number=2))
    await move(site, tmp_path, after=HOUR)
    # Until the time of the move it is told where it was.
    early = await client.submit("works.work", Job(number=3))
    await move(site, tmp_path)
    late = await client.submit("works.work", Job(number=4))
    first_cell, east = await stored(site, "operator"), await stored(site, "ruler")
    assert (first_cell["TASKS"], east["TASKS"]) == (3, 1)

    await site.run(agents.hears)
    async with site.running(agents.works):
        assert [await handle.result(int) for handle in (waiting, early, late)] == [2, 3, 4]
        # The claim of an effect that happened before counts: another message with its key is not handled.
        again = await client.submit("works.work", Job(number=1), idempotency_key="first")
        assert await again.result(int) == 1
        # Copies in the other cell, by somebody who captured them within the minute in which they may be stored.
        cells = node.transport.cells_of("task.works.work")
        assert list(cells) == ["east", "default"]
        for message, cell in zip(captured.tasks[2:4], cells, strict=True):
            [answer] = await cells[cell].publish([message], deadline=5.0)
            assert isinstance(answer, PubAck)
            assert not answer.duplicate
        last = await client.submit("works.work", Job(number=5))
        assert await last.result(int) == 5
        await until(lambda: sorted(agents.heard) == [1, 2, 3, 4, 5])
    assert agents.done == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    assert (await stored(site, "ruler"))["EVENTS"] == 4


async def test_a_copy_in_the_other_cell_is_refused(
    site: CellsSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of an agent that does not remember what it has done, because it promises nothing."""
    done, works = list[int](), Agent("works")

    @works.task("work")
    async def work(job: Job, ctx: Context) -> int:
        done.append(job.number)
        return job.number

    node = await site.node("plans")
    captured, client = Captured(node.transport, monkeypatch), Client.on(node)
    await move(site, tmp_path, after=HOUR)
    early = await client.submit("works.work", Job(number=1))
    await move(site, tmp_path)
    late = await client.submit("works.work", Job(number=2))
    async with site.running(works) as running:
        assert [await early.result(int), await late.result(int)] == [1, 2]
    async with site.running(works) as running:
        cells = node.transport.cells_of("task.works.work")
        for message, cell in zip(captured.tasks, cells, strict=True):
            await cells[cell].publish([message], deadline=5.0)
        assert await (await client.submit("works.work", Job(number=3))).result(int) == 3
        await until(lambda: running.counters.value("sealbus_refused_total", code=Code.REPLAYED.value) == 2)
    assert sorted(done) == [1, 2, 3]


async def test_what_it_kept_and_what_it_asked_for_is_there(site: CellsSite, tmp_path: Path) -> None:
    ends = Agent("ends")

    @ends.task("end")
    async def end(job: Job, ctx: Context) -> int:
        return job.number

    subject = "held.works.wait.plans." + "07" * 16
    async with site.running(Works().works) as node:
        asked = await Client.on(node).submit("ends.end", Job(number=6))
        kept = await node.held.write(subject, {"dig": b"d" * 32}, HELD_TYPE, node.identity.sealer())
        assert kept is not None
    await move(site, tmp_path)
    await site.run(ends)
    async with site.running(Works().works) as node:
        # The status of what it asked for before stands where it was when it asked.
        assert await Client.on(node).handle(asked.text).result(int, timeout=10.0) == 6
        value, last = await node.held.standing(subject, HELD_TYPE)
        assert value is not None
        assert (value.number, last) == (1, 0)
        written = await node.held.write(subject, {"dig": b"e" * 32}, HELD_TYPE, node.identity.sealer(), before=value)
        assert written is not None
        # Another process that has read the same version is too late.
        assert (
            await node.held.write(subject, {"dig": b"f" * 32}, HELD_TYPE, node.identity.sealer(), before=value) is None
        )
        for reader in (node, await site.node("plans")):
            [(_, counts)] = (await reader.held.newest(subject, HELD_TYPE)).items()
            assert (counts.number, counts.keys.octets("dig")) == (2, b"e" * 32)
    assert (await stored(site, "operator"))["HELD"] == (await stored(site, "ruler"))["HELD"] == 1


async def test_consumers_are_as_many_as_is_expected_of_so_many_agents_and_cells(
    site: CellsSite, tmp_path: Path
) -> None:
    ends = Agent("ends")

    @ends.task("end")
    async def end(job: Job, ctx: Context) -> int:
        return job.number

    await move(site, tmp_path)
    expected = ExpectedAgents(agents=2, cells=2, moved=1, processes=2)
    async with site.running(Works().works), site.running(ends):
        # `ends` has its own in the cell in which the moved agent was.
        wanted = {
            "operator": (expected.consumers, expected.processes),
            "ruler": (CONSUMERS_OF_AGENT, expected.processes),
        }
        async with asyncio.timeout(60.0):
            # Readers of another cell begin within some seconds, and nothing here says when.
            while {operator: await consumers(site, operator) for operator in wanted} != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def consumers(site: CellsSite, operator: str) -> tuple[int, int]:
    """Return how many consumers TASKS and STATE have in the cell of `operator`."""
    async with site.server.connection(operator) as connection:
        listed = (await api(connection.jetstream, "STREAM.LIST"))["streams"]
        assert isinstance(listed, list)
        counts = {stream["config"]["name"]: int(stream["state"]["consumer_count"]) for stream in listed}
        return counts["TASKS"], counts["STATE"]
