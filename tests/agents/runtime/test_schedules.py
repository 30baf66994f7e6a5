"""The schedules of a worker: what it composes, what a busy predecessor does, and time that a test lets pass."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from support.engines import ScriptedEngine, deny

from sealbus import Agent, Context
from sealbus.agents.runtime.schedules import QUARTER, WEEK, scheduler_of
from sealbus.bus.streams.key_book import KeyBook
from sealbus.bus.work.schedules.request import ScheduleState
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.testing import TestBus


class Count(BaseModel):
    number: int = 1


class Slow:
    """An agent whose handler waits until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.twice = asyncio.Event()
        self.agent = Agent("clerk")

        @self.agent.task("count")
        async def count(body: Count, ctx: Context) -> None:
            self.begun += 1
            if self.begun > 1:
                self.twice.set()
            await self.go.wait()


def tasks(bus: TestBus) -> list[Header]:
    headers = (parse_header(parse_envelope(one.payload).header) for one in bus.stored("TASKS"))
    return [one for one in headers if one.to.startswith("task.")]


async def test_what_is_sent_is_what_was_asked_for() -> None:
    slow = Slow()
    slow.go.set()
    async with TestBus(slow.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("clerk")
        await client.schedules.add(
            "n", "clerk.count", Count(), every=60, life=120, partition="north", grants=["inventory.read"]
        )
        assert await bus.advance(60) == 1
        [sent] = tasks(bus)
        assert (sent.to, sent.exp - sent.iat, sent.grt) == ("task.clerk.count.north", 120 * SECOND, ("inventory.read",))
        assert (sent.ctx, sent.par, sent.iss) == (None, None, bus.names.id_of("clerk"))


async def test_a_predecessor_that_runs_has_the_next_one_left_out() -> None:
    slow = Slow()
    async with TestBus(slow.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("clerk")
        await client.schedules.add("n", "clerk.count", Count(), every=60)
        assert await bus.advance(300, idle=False) == 1
        slow.go.set()
        await bus.idle()
        assert await bus.advance(60) == 1
        assert slow.begun == 2


async def test_a_predecessor_that_runs_is_waited_for_where_one_is_to_queue() -> None:
    slow = Slow()
    async with TestBus(slow.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("clerk")
        await client.schedules.add("n", "clerk.count", Count(), every=60, overlap="queue")
        assert await bus.advance(300, idle=False) == 1
        slow.go.set()
        async with asyncio.timeout(60):
            await slow.twice.wait()
        await bus.idle()
        first, second = map(_tick, tasks(bus))
        assert second - first == 240 * SECOND


def _tick(header: Header) -> int:
    return int((header.ext or {})["_tick"])


async def test_a_result_is_not_decided_on_to_see_whether_a_task_has_ended() -> None:
    slow, engine = Slow(), ScriptedEngine()
    slow.go.set()
    async with TestBus(slow.agent, engine=engine) as bus:
        client = await bus.client("clerk")
        await client.schedules.add("n", "clerk.count", Count(), every=60)
        engine.verdict = lambda asked: (
            deny() if asked["action"]["name"].endswith(".reply") else ScriptedEngine().verdict(asked)
        )
        assert await bus.advance(180) == 3
        assert not [one for one in engine.asked if one["action"]["name"].endswith(".reply")]


async def test_credentials_come_and_go_while_time_passes() -> None:
    """A month of it: bundles, schedules written anew, and states that are forgotten."""
    slow = Slow()
    slow.go.set()
    async with TestBus(slow.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("clerk")
        await client.schedules.add("n", "clerk.count", Count(), cron="0 3 * * *", zone="Europe/Berlin")
        assert await bus.advance(31 * 86_400) == 31
        assert slow.begun == 31
        assert [one.state for one in await client.schedules.list()] == [ScheduleState.ON]


async def test_schedules_are_written_anew_more_often_where_past_keys_are_not_known() -> None:
    assert QUARTER < WEEK

    async with TestBus(Slow().agent, engine=ScriptedEngine()) as bus:
        node = (await bus.client("clerk")).node
        assert scheduler_of(node)._renewed_after == QUARTER
        node.past = KeyBook(
            node.transport,
            notaries=frozenset({bus.names.id_of("notary")}),
            trust=node.trust,
            names=bus.names,
            caches=node.caches,
        )
        assert scheduler_of(node)._renewed_after == WEEK
