"""`client.schedules`: what is refused at the call, what is listed, and the task that a schedule sent last."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, deny

from sealbus import Agent, Client, Context, Denied
from sealbus.envelopes.errors import SealError
from sealbus.testing import TestBus


class Count(BaseModel):
    number: int = 1


def clerk_of(counted: list[int]) -> Agent:
    agent = Agent("clerk")

    @agent.task("count")
    async def count(body: Count, ctx: Context) -> Count:
        counted.append(body.number)
        return Count(number=body.number + 1)

    return agent


@pytest.fixture
def counted() -> list[int]:
    return []


@pytest.fixture
async def bus(counted: list[int]) -> AsyncIterator[TestBus]:
    async with TestBus(clerk_of(counted), engine=ScriptedEngine()) as running:
        yield running


@pytest.fixture
async def client(bus: TestBus) -> Client:
    return await bus.client("clerk")


async def test_schedules_are_listed_by_name(client: Client) -> None:
    await client.schedules.add(
        "weekly",
        "clerk.count",
        Count(),
        cron="0 7 * * 1",
        zone="Europe/Berlin",
        overlap="queue",
        catchup=3_600,
        until=timedelta(days=30),
        life=600,
        grants=["inventory.read"],
    )
    await client.schedules.submit("clerk.count", Count(), after=60, name="once")
    once, weekly = await client.schedules.list()
    assert (weekly.name, weekly.state, weekly.action, weekly.when) == (
        "weekly",
        "on",
        "clerk.count",
        "0 7 * * 1 Europe/Berlin",
    )
    assert (weekly.overlap, weekly.catchup, weekly.asked_by.path) == ("queue", 3_600, "/agent/clerk")
    assert timedelta(days=29) < weekly.until - datetime.now(UTC) < timedelta(days=30)
    assert weekly.next is not None
    assert weekly.next.weekday() == 0
    assert once.when == "once"
    assert once.until - datetime.now(UTC) < timedelta(hours=1, minutes=3)


async def test_the_task_that_was_sent_last_can_be_waited_for(bus: TestBus, client: Client) -> None:
    assert await client.schedules.last("nightly") is None
    await client.schedules.add("nightly", "clerk.count", Count(number=6), every=600)
    assert await client.schedules.last("nightly") is None
    assert await bus.advance(1_200) == 2
    handle = await client.schedules.last("nightly")
    assert handle is not None
    assert handle.action == "clerk.count"
    assert await handle.result(Count) == Count(number=7)


async def test_something_is_sent_once_at_a_time(bus: TestBus, client: Client, counted: list[int]) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    name = await client.schedules.submit("clerk.count", Count(number=1), at=tomorrow)
    other = await client.schedules.submit("clerk.count", Count(number=2), after=0)
    assert name != other
    await bus.advance(60)
    assert counted == [2]
    assert await bus.advance(86_400) == 1
    assert counted == [2, 1]
    assert await client.schedules.list() == []
    assert await bus.advance(86_400) == 0


async def test_a_declared_handler_can_be_scheduled(bus: TestBus, client: Client) -> None:
    agent = clerk_of([])
    [handler] = agent.handlers.values()
    await client.schedules.add("nightly", handler, Count(), every=600)
    [known] = await client.schedules.list()
    assert known.action == "clerk.count"


@pytest.mark.parametrize(
    "said",
    [
        {}, {"cron": "* * * * *", "every": 60}, {"cron": "0 0 30 2 *"}, {"cron": "* * * * *", "zone": "Mars"},
        {"cron": "* * * * * *"}, {"every": 9}, {"every": 60, "until": timedelta(days=367)},
        {"every": 60, "until": timedelta(0)},
        {"every": 60, "until": datetime(2099, 1, 1)}, {"every": 60, "overlap": "cancel"}, {"every": 60, "catchup": 86_401},
        {"every": 60, "life": 0}, {"every": 60, "grants": ["*"]}, {"every": 3_600, "until": timedelta(minutes=10)},
        {"every": 60, "name": "a.b"}, {"every": 60, "action": "clerk._schedule"}, {"every": 60, "action": "clerk"},
        {"every": 60, "body": "x" * 49_151},
    ],
)  # fmt: skip
async def test_what_nobody_would_take_is_refused_at_the_call(
    bus: TestBus, client: Client, said: dict[str, Any]
) -> None:
    named = {"name": "n", "action": "clerk.count", "body": Count(), **said}
    with pytest.raises(SealError):
        await client.schedules.add(**named)
    assert bus.stored("TASKS") == []


@pytest.mark.parametrize(
    "said",
    [
        {}, {"after": 1, "at": datetime(2099, 1, 1, tzinfo=UTC)}, {"after": -1}, {"at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"at": datetime(2099, 1, 1, tzinfo=UTC)}, {"after": 60, "name": ""}, {"after": 10**11},
    ],
)  # fmt: skip
async def test_a_time_that_cannot_be_is_refused_at_the_call(bus: TestBus, client: Client, said: dict[str, Any]) -> None:
    with pytest.raises(SealError):
        await client.schedules.submit("clerk.count", Count(), **said)
    assert bus.stored("TASKS") == []


async def test_others_schedules_are_asked_for_by_name(counted: list[int]) -> None:
    engine = ScriptedEngine()
    async with TestBus(clerk_of(counted), engine=engine) as bus:
        boss = await bus.client("boss")
        await boss.schedules.add("nightly", "clerk.count", Count(number=5), every=60, owner="clerk")
        assert await bus.advance(60) == 1
        assert counted == [5]
        # Its own are none; and what its policy denies it hears.
        assert await boss.schedules.list() == []
        engine.verdict = lambda _: deny("not_yours")
        with pytest.raises(Denied):
            await boss.schedules.remove("nightly", owner="clerk")
        for name in ("a.b", ""):
            with pytest.raises(SealError):
                await boss.schedules.remove(name, owner="clerk")
