"""Claims on ticks: one process has one, its time ends, and only what the owner signed for this very tick counts."""

from __future__ import annotations

from typing import Any

import pytest
from support.envelopes import NOW
from support.tick_site import Host, TickSite

from sealbus.bus.ports import StreamRefused
from sealbus.bus.work.schedules.tick import TakenTick, Tick, TickStage, WaitingTick, tick_of
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND

TICK = Tick(bytes(32), NOW + 10 * SECOND)
SUBJECT = TICK.subject("clerk")


@pytest.fixture
def site() -> TickSite:
    return TickSite()


async def taken(site: TickSite, tick: Tick = TICK) -> TakenTick:
    found = await site.operator.claims.claim(tick)
    assert isinstance(found, TakenTick)
    return found


def test_two_ticks_have_nothing_in_common() -> None:
    others = (TICK._replace(time=TICK.time + 1_000), TICK._replace(grant=bytes([1] * 32)))
    for value in ("digest", "message_id", "idempotency_key"):
        assert len({getattr(one, value) for one in (TICK, *others)}) == 3
    assert TICK.message_id[:6] == (TICK.time // 1_000).to_bytes(6, "big")
    assert len(TICK.message_id) == 16
    assert TICK.subject("clerk").startswith("state.clerk.tick.")


async def test_one_has_it_until_its_time_is_over(site: TickSite) -> None:
    first = await taken(site)
    assert (first.fresh, first.until) == (True, NOW + 45 * SECOND)
    other = site.process(Host(site.broker)).claims
    site.now = first.until - 1
    assert await other.claim(TICK) == WaitingTick(first.until)
    site.now = first.until
    second = await other.claim(TICK)
    assert isinstance(second, TakenTick)
    assert (second.fresh, second.until) == (False, first.until + 45 * SECOND)
    assert await site.operator.claims.claim(TICK) == WaitingTick(second.until)
    # The first is too late, and cannot say what became of it.
    assert not await site.operator.claims.mark(first, TickStage.VOID)


@pytest.mark.parametrize("stage", [TickStage.SENT, TickStage.VOID])
async def test_what_is_done_is_done(site: TickSite, stage: TickStage) -> None:
    assert await site.operator.claims.mark(await taken(site), stage)
    site.now += 100 * SECOND
    assert await site.process(Host(site.broker)).claims.claim(TICK) is None
    assert isinstance(await site.operator.claims.claim(TICK._replace(time=TICK.time + SECOND)), TakenTick)


async def test_bytes_that_others_had_stored_there_are_no_claim(site: TickSite) -> None:
    # Another identity's claim on this tick, as good as it can make one.
    stranger = TickSite(now=site.now)
    boss = stranger.process(Host(stranger.broker), who="boss").claims
    found = await boss.claim(TICK)
    assert isinstance(found, TakenTick)
    assert await boss.mark(found, TickStage.SENT)
    [*_, forged] = stranger.broker.streams["STATE"].stored
    for number, planted in enumerate((b"", b"\x90", b"x" * 40_000, b"\x94\x00\x00\x00\x00", forged.payload), 1):
        site.broker.inject(SUBJECT, planted)
        again = await taken(site)
        assert not again.fresh
        assert f"sealbus_ticks_unverified_total {number}.0\n" in site.operator.counters.render()


async def test_a_claim_on_another_tick_or_of_another_time_is_none_on_this_one(site: TickSite) -> None:
    other = TICK._replace(time=TICK.time + SECOND)
    await site.operator.claims.mark(await taken(site, other), TickStage.SENT)
    [*_, done] = site.broker.streams["STATE"].stored
    site.broker.inject(SUBJECT, done.payload)
    assert isinstance(await site.operator.claims.claim(TICK), TakenTick)
    # What was genuine here once is not so when it is stored again.
    site.now += 61 * SECOND
    site.broker.inject(other.subject("clerk"), done.payload)
    assert isinstance(await site.operator.claims.claim(other), TakenTick)


async def test_one_that_cannot_be_marked_is_counted(site: TickSite) -> None:
    found = await taken(site)
    site.broker.fail("STATE", StreamRefused("full", 10_077))
    assert not await site.operator.claims.mark(found, TickStage.SENT)
    assert "sealbus_ticks_unmarked_total 1" in site.operator.counters.render()
    with pytest.raises(BusUnavailable):
        await site.operator.claims.claim(TICK)


async def test_which_task_was_sent_last_is_known_to_all_processes(site: TickSite) -> None:
    def task(number: int) -> PendingRequest:
        return PendingRequest(
            digest=bytes([number] * 32), id=bytes(16), aud=site.names.id_of("inventory"), end=NOW + SECOND
        )

    claims, other = site.operator.claims, site.process(Host(site.broker)).claims
    assert await claims.sent_last("nightly") is None
    for number in (1, 2):
        tick = TICK._replace(time=TICK.time + number)
        await claims.keep_sent("nightly", tick, task(number))
        assert await other.sent_last("nightly") == (tick.time, task(number))
    assert await other.sent_last("another") is None
    [*_, kept] = site.broker.streams["STATE"].stored
    for planted in (b"\x90", kept.payload):
        site.broker.inject("state.clerk.last.another", planted)
        assert await other.sent_last("another") is None


@pytest.mark.parametrize(
    ("ext", "time"), [(None, None), ({}, None), ({"_tick": 7}, 7), ({"_tick": "7"}, None), ({"_tick": True}, None)]
)
def test_a_task_says_which_instant_was_meant(ext: dict[str, Any] | None, time: int | None) -> None:
    assert tick_of(ext) == time


def test_a_tick_is_named_by_its_grant_and_the_microsecond() -> None:
    """As SPEC.md section 7 says, so that processes of every version claim one tick in one place: H(G || u64(t))."""
    grant = bytes(range(32))
    tick = Tick(grant, 1_800_000_000_000_001)
    assert tick.digest.hex() == "37bfeeafb1421c942f07d5c00362b54bd966b9fe83c6f9a523bf6bf24ad8bfa0"
    assert tick.message_id.hex() == "01a3185c50007966b9fe83c6f9a523bf"
    assert tick.idempotency_key == "tick-37bfeeafb1421c942f07d5c00362b54b"
    # Each byte of the time counts, and each of the grant, also the last.
    times = [tick.time ^ (1 << bit) for bit in range(0, 53, 8)]
    grants = [grant[:place] + b"\xff" + grant[place + 1 :] for place in range(32)]
    others = [tick._replace(time=one) for one in times] + [tick._replace(grant=one) for one in grants]
    assert len({tick.digest, *(one.digest for one in others)}) == len(others) + 1
