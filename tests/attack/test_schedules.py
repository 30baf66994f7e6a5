"""Schedules under attack: nobody but the owner makes its processes send, withholds more than one tick, or brings one back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import pytest
from pydantic import BaseModel
from support.envelopes import NOW
from support.floods import forged_value
from support.tick_site import Host, TickSite

from sealbus import Agent, Context, Denied
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.signed_value import signed
from sealbus.bus.work.schedules.request import ScheduleState
from sealbus.bus.work.schedules.scheduler import UNPROVED
from sealbus.bus.work.schedules.tick import TakenTick, Tick, TickStage
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus


class Item(BaseModel):
    item_id: str = "1"


PLACE = "held.clerk.schedule.nightly"
HELD_SCHEDULE = "application/vnd.sealbus.held-schedule.v1"


@pytest.fixture
async def site() -> AsyncIterator[TickSite]:
    made = TickSite()
    yield made
    await made.stop()


def held(site: TickSite) -> list[bytes]:
    return [one.payload for one in site.broker.streams["HELD"].stored]


async def forged(site: TickSite) -> list[bytes]:
    """Return the best that others can make of a schedule of `clerk`: its fields under their keys, and keys of their own."""
    other = TickSite(now=site.now)
    await other.add()
    [unknown] = held(other)
    payload = decode(unknown, step=0)
    assert isinstance(payload, list)
    fields, *_, body = (one for one in payload if isinstance(one, bytes))
    boss = MemoryIdentity(site.authority, site.names.id_of("boss")).sealer()
    return [unknown, encode([*signed(fields, "application/vnd.sealbus.held-schedule.v1", boss), body])]


async def test_bytes_of_others_make_no_schedule(site: TickSite) -> None:
    for payload in (b"", b"\x90", *await forged(site)):
        site.broker.inject(PLACE, payload)
    process = site.start()
    await site.pass_time(60)
    assert (site.ticks(), dict(process.scheduler.known)) == ([], {})


async def test_forgeries_under_any_number_of_names_hold_up_no_schedule(site: TickSite) -> None:
    await site.add()
    process = site.start()
    boss = MemoryIdentity(site.authority, site.names.id_of("boss")).sealer()
    for number in range(UNPROVED + 50):
        place = f"held.clerk.schedule.made-up-{number}"
        site.broker.inject(place, b"junk")
        site.broker.inject(place, forged_value(place, site.own, HELD_SCHEDULE, boss, at=site.now))
        # One by one, so that each is looked at.
        for _ in range(10):
            await asyncio.sleep(0)
    await site.pass_time(20)
    assert site.ticks() == [10, 20]
    assert list(process.scheduler.known) == ["nightly"]
    assert 0 < len(process.scheduler._unproved) <= UNPROVED


async def test_bytes_of_others_neither_end_a_schedule_nor_change_it(site: TickSite) -> None:
    await site.add()
    site.start()
    for payload in (b"", *await forged(site), b"\x95" + b"\xc4\x00" * 5):
        site.broker.inject(PLACE, payload)
    await site.pass_time(20)
    assert site.ticks() == [10, 20]
    # Nor do they keep its owner from changing it.
    await site.change("nightly", ScheduleState.REMOVED)
    await site.pass_time(20)
    assert site.ticks() == [10, 20]


async def test_the_owner_writes_over_what_stands_in_its_place(site: TickSite) -> None:
    site.broker.inject(PLACE, b"\x90")
    await site.add()
    site.start()
    await site.pass_time(10)
    assert site.ticks() == [10]


@pytest.mark.parametrize("later", [0, 30, 61 * 60])
async def test_a_removed_schedule_that_is_stored_again_stays_removed(site: TickSite, later: int) -> None:
    await site.add()
    site.start()
    await site.pass_time(10)
    await site.change("nightly", ScheduleState.REMOVED)
    site.now += later * SECOND
    site.broker.inject(PLACE, held(site)[0])
    fresh = site.start()
    await site.pass_time(60)
    assert site.ticks() == [10]
    assert fresh.scheduler.kept == 0


async def test_a_schedule_does_not_come_back_once_its_removal_is_forgotten(site: TickSite) -> None:
    """The stream keeps 32 days. What was stored before is stored again into an empty one, by who could read it."""
    await site.add()
    old = held(site)[0]
    await site.change("nightly", ScheduleState.REMOVED)
    site.now += 3_600 * SECOND
    site.broker.add_stream("HELD", ["held.>"])
    site.broker.inject(PLACE, old)
    site.start()
    await site.pass_time(60)
    assert site.ticks() == []


async def test_a_genuine_schedule_counts_in_its_own_place_only(site: TickSite) -> None:
    await site.add()
    for place in ("held.clerk.schedule.other", "held.boss.schedule.nightly"):
        site.broker.inject(place, held(site)[0])
    process = site.start()
    await site.pass_time(10)
    assert list(process.scheduler.known) == ["nightly"]


async def test_a_tick_that_somebody_planted_early_is_sent_all_the_same(site: TickSite) -> None:
    schedule = await site.add()
    tick = Tick(schedule.grant.digest, NOW + 10 * SECOND)
    stranger = TickSite(now=site.now)
    boss = stranger.process(Host(stranger.broker), who="boss").claims
    claimed = await boss.claim(tick)
    assert isinstance(claimed, TakenTick)
    assert await boss.mark(claimed, TickStage.SENT)
    site.broker.inject(tick.subject("clerk"), stranger.broker.streams["STATE"].stored[-1].payload)
    process = site.start()
    await site.pass_time(20)
    assert sorted(site.ticks()) == [10, 20]
    assert "sealbus_ticks_unverified_total 1" in process.counters.render()


async def test_a_mark_that_somebody_wrote_over_repeats_nothing_within_the_memory_of_the_stream(site: TickSite) -> None:
    schedule = await site.add()
    site.start()
    await site.pass_time(10)
    site.broker.inject(Tick(schedule.grant.digest, NOW + 10 * SECOND).subject("clerk"), b"\x90")
    site.start()
    await site.pass_time(40)
    assert sorted(site.ticks()) == [10, 20, 30, 40, 50]


async def test_an_id_that_somebody_used_withholds_that_tick_and_says_so(site: TickSite) -> None:
    schedule = await site.add()
    tick = Tick(schedule.grant.digest, NOW + 10 * SECOND)
    planted = Outgoing("task.nobody.anything", b"junk", message_id=tick.message_id.hex())
    await Host(site.broker).publish([planted], deadline=1)
    process = site.start()
    await site.pass_time(10)
    assert process.ticks("withheld") == 1
    site.broker.streams["TASKS"].remove(1)
    await site.pass_time(20)
    assert site.ticks() == [20, 30]


async def test_a_key_that_was_revoked_makes_no_schedules(site: TickSite) -> None:
    """With it, somebody stores what looks like the owner's own, with the time of today."""
    await site.add()
    site.now += 3_600 * SECOND
    site.revoked = {site.own: site.now}
    site.broker.inject(PLACE, held(site)[0])
    site.start()
    await site.pass_time(60)
    assert site.ticks() == []


async def test_who_is_not_granted_it_asks_in_vain() -> None:
    """By the starter policy: to have another identity do what one may not do oneself."""

    agent = Agent("pricing")
    handled: list[str] = []

    @agent.task("appraise")
    async def appraise(body: Item, ctx: Context) -> None:
        handled.append(body.item_id)

    async with TestBus(agent) as bus:
        for who in ("shop-web", "inventory", "pricing"):
            with pytest.raises(Denied):
                await (await bus.client(who)).schedules.add("n", "pricing.appraise", Item(), every=60, owner="pricing")
        await bus.assert_denied("pricing._schedule")
        assert bus.stored("HELD") == []
        assert await bus.advance(600) == 0
    assert handled == []


async def test_a_schedule_for_nobody_is_kept_by_nobody() -> None:
    """Its subject is the owner's: whoever is named in it is the only one who may take it in."""
    agent = Agent("clerk")
    async with TestBus(agent) as bus:
        client = await bus.client("shop-web")
        with pytest.raises((TimeoutError, BusUnavailable)):
            await client.schedules.add("n", "clerk.count", {}, every=60, owner="other", timeout=0.2)
        await bus.idle()
        assert bus.stored("HELD") == []


async def test_an_older_schedule_that_is_kept_later_takes_no_newer_ones_place(site: TickSite) -> None:
    """A process that had stood still writes what it took in before: the stream has another version by then."""
    first = await site.add()
    known = await site.operator.book.one("nightly")
    await site.change("nightly", ScheduleState.REMOVED)
    late = replace(first, change=first.change._replace(digest=sha256(b"late").digest()))
    assert not await site.operator.book.store(late, known)
    site.start()
    await site.pass_time(20)
    assert site.ticks() == []
