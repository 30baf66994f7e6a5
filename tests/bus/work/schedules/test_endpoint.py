"""What takes schedules in: decided, recorded with its body, kept in the order of the stream, whatever comes again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, deny

from sealbus import Agent, Client, Context, Denied, RemoteError
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.work.idempotency import effects
from sealbus.bus.work.schedules import endpoint as endpoint_module
from sealbus.bus.work.schedules.request import SCHEDULE_TYPE
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.testing import TestBus


class Count(BaseModel):
    number: int = 1


class Clerk:
    """An agent that counts, and what it counted for which instants."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.ticks: list[datetime | None] = []
        self.agent = Agent("clerk")

        @self.agent.task("count")
        async def count(body: Count, ctx: Context) -> Count:
            self.counted.append(body.number)
            self.ticks.append(ctx.tick)
            return body


@pytest.fixture
def clerk(monkeypatch: pytest.MonkeyPatch) -> Clerk:
    # What comes again must be harmless without the memory of one process: it may come to another.
    monkeypatch.setattr(effects, "REMEMBERED", 1)
    return Clerk()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(clerk: Clerk, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(clerk.agent, engine=engine) as running:
        yield running


@pytest.fixture
async def client(bus: TestBus) -> Client:
    return await bus.client("clerk")


def asked(engine: ScriptedEngine) -> list[dict[str, Any]]:
    return [one for one in engine.asked if one["action"]["name"] == "clerk._schedule"]


async def test_the_policy_sees_what_is_asked_for_and_what_is_there(
    bus: TestBus, client: Client, engine: ScriptedEngine
) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(), cron="0 3 * * *", zone="Europe/Berlin")
    await (await bus.client("boss")).schedules.pause("nightly", owner="clerk")
    added, paused = asked(engine)
    assert added["action"]["properties"] == {
        "name": "nightly",
        "state": "on",
        "action": "clerk.count",
        "when": "0 3 * * * Europe/Berlin",
        "overlap": "skip",
    }
    assert added["resource"] == {
        "type": "schedule",
        "id": "nightly",
        "properties": {"state": "", "action": "", "by": ""},
    }
    assert paused["action"]["properties"] == {
        "name": "nightly",
        "state": "paused",
        "action": "",
        "when": "",
        "overlap": "",
    }
    own = str(bus.names.id_of("clerk"))
    assert paused["resource"]["properties"] == {"state": "on", "action": "clerk.count", "by": own}
    assert paused["subject"]["id"] == str(bus.names.id_of("boss"))


async def test_it_is_recorded_with_its_body_whatever_the_settings_say(bus: TestBus, client: Client) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(number=7), every=3_600)
    [decision] = await bus.decisions("clerk._schedule")
    assert decision.body is not None
    assert json.loads(decision.body)["do"]["text"] == '{"number":7}'
    await client.submit("clerk.count", Count())
    await bus.idle()
    [other] = await bus.decisions("clerk.count")
    assert other.body is None


async def test_what_is_denied_is_not_kept(bus: TestBus, client: Client, engine: ScriptedEngine) -> None:
    engine.verdict = lambda _: deny("not_yours")
    with pytest.raises(Denied):
        await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    assert bus.stored("HELD") == []
    assert await bus.advance(600) == 0


async def test_a_handler_knows_which_instant_was_meant(bus: TestBus, clerk: Clerk, client: Client) -> None:
    await client.schedules.add("hourly", "clerk.count", Count(number=3), cron="0 * * * *")
    assert await bus.advance(7_200) == 2
    await client.submit("clerk.count", Count(number=4))
    await bus.idle()
    assert clerk.counted == [3, 3, 4]
    first, second, none = clerk.ticks
    assert none is None
    assert first is not None
    assert second is not None
    assert (first.minute, first.second, second - first) == (0, 0, timedelta(hours=1))
    [decision, *_] = await bus.decisions("clerk.count")
    [granted] = await bus.decisions("clerk._schedule")
    assert parse_header(decision.header).re == parse_header(granted.header).digest


async def test_what_comes_again_changes_nothing(bus: TestBus, clerk: Clerk, client: Client) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    await client.schedules.add("nightly", "clerk.count", Count(number=2), every=60)
    await client.schedules.remove("nightly")
    held = len(bus.stored("HELD"))
    # The broker forgets what was acknowledged, and delivers all three again.
    bus.broker.consumers[("TASKS", "id-sch-clerk")].rewind()
    await bus.idle()
    assert len(bus.stored("HELD")) == held == 3
    assert await bus.advance(600) == 0
    assert await client.schedules.list() == []


async def test_what_comes_twice_is_kept_once(bus: TestBus, client: Client) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    await client.schedules.add("other", "clerk.count", Count(), every=60)
    bus.broker.consumers[("TASKS", "id-sch-clerk")].rewind()
    await bus.idle()
    assert len(bus.stored("HELD")) == 2


async def test_a_schedule_of_the_same_name_takes_the_place_of_the_first(
    bus: TestBus, clerk: Clerk, client: Client
) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    await client.schedules.add("nightly", "clerk.count", Count(number=2), every=300)
    assert await bus.advance(600) == 2
    assert clerk.counted == [2, 2]


async def test_one_that_is_paused_catches_up_on_nothing(bus: TestBus, clerk: Clerk, client: Client) -> None:
    await client.schedules.add("nightly", "clerk.count", Count(), every=60, catchup=86_400)
    await client.schedules.submit("clerk.count", Count(number=2), after=600, name="once")
    await client.schedules.pause("nightly")
    await client.schedules.pause("once")
    assert [one.state for one in await client.schedules.list()] == ["paused", "paused"]
    assert await bus.advance(3_570) == 0
    await client.schedules.resume("nightly")
    # What is to happen once, and is not too late, happens.
    await client.schedules.resume("once")
    await bus.advance(1)
    assert clerk.counted == [2]
    await client.schedules.resume("once")
    await bus.advance(1)
    assert clerk.counted == [2]
    assert await bus.advance(60) == 1
    assert clerk.counted == [2, 1]


async def test_there_is_nothing_to_pause_resume_or_remove(bus: TestBus, client: Client) -> None:
    for change in (client.schedules.pause, client.schedules.resume, client.schedules.remove):
        with pytest.raises(RemoteError) as refused:
            await change("nightly")
        assert refused.value.code == "unknown_schedule"
    await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    await client.schedules.remove("nightly")
    with pytest.raises(RemoteError, match="failed"):
        await client.schedules.resume("nightly")
    await client.schedules.add("nightly", "clerk.count", Count(), every=60)
    assert await bus.advance(60) == 1


async def test_an_owner_has_only_so_many(bus: TestBus, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MOST", 2)
    await client.schedules.submit("clerk.count", Count(), after=1)
    await client.schedules.add("one", "clerk.count", Count(), every=60)
    with pytest.raises(RemoteError) as refused:
        await client.schedules.add("two", "clerk.count", Count(), every=60)
    assert refused.value.code == "too_many_schedules"
    await client.schedules.add("one", "clerk.count", Count(), every=120)
    # What is over takes no room.
    await bus.advance(3_700)
    await client.schedules.add("two", "clerk.count", Count(), every=60)


@pytest.mark.parametrize(
    "changes",
    [
        {"until": 1},
        {"until": 2**53 - 1},
        {"do": {"partition": "a b"}},
        {"do": {"action": "clerk"}},
        {"do": {"action": "id-x.count"}},
    ],
)
async def test_what_could_never_be_sent_is_refused_at_once(
    bus: TestBus, client: Client, changes: dict[str, Any]
) -> None:
    now = client.node.clock()
    do = {
        "action": "clerk.count",
        "typ": "application/json",
        "text": "{}",
        "partition": None,
        "grants": None,
        "life": None,
    }
    said = {
        "v": 1,
        "name": "n",
        "state": "on",
        "when": {"every": 60, "from": now},
        "overlap": "skip",
        "catchup": 60,
        "until": now + 3_600 * SECOND,
        **changes,
        "do": {**do, **changes.get("do", {})},
    }
    owner = bus.names.id_of("clerk")
    message = OutgoingMessage(
        Draft(
            kind=Kind.TASK, to="control.clerk.schedule", aud=owner, body=json.dumps(said).encode(), typ=SCHEDULE_TYPE
        ),
        life=60 * SECOND,
        end_after=60 * SECOND,
    )
    with pytest.raises(RemoteError) as refused:
        await client.node.sending.tell(message, timeout=10)
    assert refused.value.code == "bad_body"
    assert bus.stored("HELD") == []
