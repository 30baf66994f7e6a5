"""Ticks of schedules: each once over all processes of the owner, however they are interleaved and wherever they die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.envelopes import NOW
from support.tick_site import Dies, Host, TickSite

from sealbus.bus.ports import Delivery
from sealbus.bus.work.schedules import scheduler as scheduler_module
from sealbus.bus.work.schedules.book import Schedule
from sealbus.bus.work.schedules.request import Overlap, ScheduleState
from sealbus.bus.work.schedules.rule import At, Every
from sealbus.bus.work.schedules.tick import Tick
from sealbus.envelopes.limits import SECOND


@pytest.fixture
async def site() -> AsyncIterator[TickSite]:
    made = TickSite()
    yield made
    await made.stop()


async def test_ticks_are_sent_at_their_times(site: TickSite) -> None:
    schedule = await site.add()
    process = site.start()
    await site.pass_time(9, step=1)
    assert site.ticks() == []
    await site.pass_time(31, step=1)
    assert site.ticks() == [10, 20, 30, 40]
    assert process.ticks("sent") == 4
    for header in site.sent():
        tick = Tick(schedule.grant.digest, int((header.ext or {})["_tick"]))
        assert (header.id, header.idm, header.re) == (tick.message_id, tick.idempotency_key, schedule.grant.digest)
        assert (header.iss, header.ctx, header.par) == (site.own, None, None)
        assert header.id[6] >> 4 == 7
        assert header.id[8] >> 6 == 2


async def test_several_processes_send_each_tick_once(site: TickSite) -> None:
    await site.add()
    for _ in range(3):
        site.start()
    await site.pass_time(60)
    assert site.ticks() == [10, 20, 30, 40, 50, 60]
    assert sum(one.ticks("sent") for one in site.processes) == 6


pauses = st.lists(st.integers(0, 3), max_size=40)
deaths = st.one_of(st.none(), st.builds(Dies, st.integers(4, 90), st.booleans()))


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(pauses, deaths), min_size=2, max_size=3), pauses)
def test_each_tick_is_sent_once_however_processes_are_interleaved_and_wherever_they_die(
    others: list[tuple[list[int], Dies | None]], last: list[int]
) -> None:
    async def play() -> None:
        site = TickSite()
        try:
            await site.add()
            for some, dies in others:
                site.start(Host(site.broker, pauses=chain(some, repeat(0)), dies=dies))
            # One lives, so that nothing is lost.
            site.start(Host(site.broker, pauses=chain(last, repeat(0))))
            await site.pass_time(100)
            # What the dead had claimed is another's by then.
            await site.pass_time(100)
            assert sorted(one for one in site.ticks() if one <= 100) == list(range(10, 101, 10))
            assert len({one.id for one in site.sent()}) == len(site.sent())
        finally:
            await site.stop()

    asyncio.run(play())


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", ["state.clerk.tick.", "read held.clerk.schedule.nightly", "task.", "state.clerk.last."])
async def test_what_a_process_leaves_that_dies_at_a_tick_another_finishes(site: TickSite, at: str, done: bool) -> None:
    await site.add()
    host = Host(site.broker)
    site.start(host)
    await site.pass_time(5)
    host.dies = Dies(at, done)
    await site.pass_time(5)
    assert host.dead.is_set()
    assert site.ticks() == ([10] if at == "state.clerk.last." or (at == "task." and done) else [])
    site.start()
    await site.pass_time(50)
    assert sorted(site.ticks()) == [10, 20, 30, 40, 50, 60]


async def test_a_dead_process_holds_up_its_tick_and_not_those_after_it(site: TickSite) -> None:
    schedule = await site.add()
    # Somebody claims the first tick and is never heard of again.
    await site.operator.claims.claim(Tick(schedule.grant.digest, NOW + 10 * SECOND))
    site.start()
    await site.pass_time(30)
    assert site.ticks() == [10 + 10, 10 + 20]
    await site.pass_time(20)
    assert sorted(site.ticks()) == [10, 20, 30, 40, 50]


async def test_a_tick_that_a_dead_process_sent_is_a_duplicate(site: TickSite) -> None:
    await site.add()
    host = Host(site.broker)
    site.start(host, claimed_for=45)
    await site.pass_time(5)
    # It dies once its task is stored, before it has marked that.
    host.dies = Dies("task.", True)
    await site.pass_time(5)
    assert (host.dead.is_set(), host.operations[-1]) == (True, "task.inventory.count")
    assert site.ticks() == [10]
    process = site.start()
    await site.pass_time(45)
    assert sorted(site.ticks()) == [10, 20, 30, 40, 50]
    assert process.ticks("sent") == 5


async def test_only_the_newest_of_those_missed_is_sent_after_a_pause_of_all(site: TickSite) -> None:
    await site.add(when=Every(seconds=20, start=NOW + 20 * SECOND))
    first = site.start()
    await site.pass_time(20)
    await first.kill()
    site.now += 90 * SECOND
    site.start()
    await site.settle()
    assert site.ticks() == [20, 100]
    await site.pass_time(10)
    assert site.ticks() == [20, 100, 120]


async def test_what_is_too_late_is_not_sent(site: TickSite) -> None:
    await site.add(when=At(time=NOW + 20 * SECOND), catchup=30)
    await site.add("other", when=At(time=NOW + 20 * SECOND), catchup=31)
    site.now += 56 * SECOND
    site.start()
    await site.pass_time(10)
    assert [one.re for one in site.sent()] == [sha256(b"other").digest()]


async def test_a_process_that_could_not_act_counts_what_it_missed(site: TickSite) -> None:
    await site.add()
    process = site.start()
    await site.pass_time(10)
    site.now += 300 * SECOND
    await site.settle()
    assert site.ticks() == [10, 310]
    assert process.ticks("missed") == 29


async def test_paused_and_removed_schedules_send_nothing(site: TickSite) -> None:
    await site.add()
    site.start()
    await site.pass_time(10)
    await site.change("nightly", ScheduleState.PAUSED)
    await site.pass_time(30)
    assert site.ticks() == [10]
    await site.change("nightly", ScheduleState.ON)
    await site.pass_time(10)
    assert site.ticks() == [10, 50]
    await site.change("nightly", ScheduleState.REMOVED)
    await site.pass_time(60)
    assert site.ticks() == [10, 50]


class Behind(Host):
    """The way to a replica that is `behind` with what is read of all schedules, and not of one."""

    behind = False

    async def read(self, stream: str, subjects: Sequence[str], **how: Any) -> AsyncGenerator[Sequence[Delivery], None]:
        async with aclosing(super().read(stream, subjects, **how)) as batches:
            async for batch in batches:
                if not (self.behind and subjects[0].endswith("*")):
                    yield batch


async def test_what_a_process_remembers_decides_nothing(site: TickSite) -> None:
    """It was removed, and this process has not heard of it: the schedule is read again before each tick."""
    await site.add()
    process = site.start(host := Behind(site.broker))
    await site.pass_time(5)
    host.behind = True
    await site.change("nightly", ScheduleState.REMOVED)
    await site.pass_time(5)
    assert process.scheduler.known["nightly"].state is ScheduleState.ON
    assert site.ticks() == []
    assert process.ticks("void") == 1


async def test_what_another_message_asked_for_since_is_not_sent_for_the_first(site: TickSite) -> None:
    first = await site.add()
    process = site.start(host := Behind(site.broker))
    await site.settle()
    host.behind = True
    known = await site.operator.book.one("nightly")
    assert await site.operator.book.store(replace(first, grant=first.grant._replace(digest=bytes(32))), known)
    await site.pass_time(10)
    assert site.ticks() == []
    assert process.ticks("void") == 1


@pytest.mark.parametrize("who", ["boss", "clerk"])
async def test_what_a_revoked_identity_asked_for_or_signed_is_sent_no_more(site: TickSite, who: str) -> None:
    await site.add()
    process = site.start()
    await site.pass_time(10)
    site.now += SECOND
    site.revoked = {site.names.id_of(who): site.now}
    await site.pass_time(29, step=1)
    assert site.ticks() == [10]
    assert process.ticks("void") == 3


async def test_a_schedule_is_written_anew_before_its_key_is_gone(
    site: TickSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "TEND", 0.0)
    await site.add(when=Every(seconds=3_600, start=NOW))
    await site.add("gone", when=At(time=NOW + SECOND))
    site.start()
    held = site.broker.streams["HELD"]
    await site.pass_time(10)
    assert len(held) == 2
    for _ in range(3):
        site.now += 7 * 3_600 * SECOND
        before = len(held)
        await site.settle()
        assert [one.subject for one in held.stored[before:]] == ["held.clerk.schedule.nightly"]
    known = await site.operator.book.one("nightly")
    assert known is not None
    assert known.held is not None
    assert known.held.number == 4


async def test_overlap_skip_leaves_a_tick_out_while_its_predecessor_runs(site: TickSite) -> None:
    site.ended = False
    await site.add()
    site.start()
    await site.pass_time(30)
    assert site.ticks() == [10]
    site.ended = True
    await site.pass_time(20)
    assert site.ticks() == [10, 40, 50]
    assert site.processes[0].ticks("skipped") == 2


async def test_overlap_queue_has_one_wait(site: TickSite) -> None:
    site.ended = False
    await site.add(overlap=Overlap.QUEUE)
    for _ in range(2):
        site.start()
    await site.pass_time(45)
    assert site.ticks() == [10]
    site.waits.set()
    site.ended = True
    await site.settle()
    assert site.ticks() == [10, 40]
    await site.pass_time(15)
    assert site.ticks() == [10, 40, 50, 60]


async def test_a_stream_that_takes_nothing_is_waited_for(site: TickSite) -> None:
    from sealbus.bus.ports import StreamRefused

    await site.add()
    site.start()
    await site.pass_time(5)
    site.broker.fail("TASKS", StreamRefused("full", 10_077))
    await site.pass_time(10)
    assert site.ticks() == []
    site.broker.fail("TASKS", None)
    await site.pass_time(10)
    assert sorted(site.ticks()) == [10, 20]


async def test_a_process_takes_up_what_is_written_while_it_runs(site: TickSite) -> None:
    site.start()
    await site.settle()
    await site.add("one")
    for number in range(10):
        await site.add(f"many-{number}")
    await site.settle()
    assert len(site.processes[0].scheduler.known) == 11
    await site.pass_time(10)
    assert site.ticks() == [10] * 11


async def test_a_process_that_stood_still_sends_nothing_that_may_be_anothers(
    site: TickSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add()
    process = site.start()
    await site.pass_time(5)
    read = process.book.one

    async def slowly(name: str) -> Schedule | None:
        found = await read(name)
        site.now += 41 * SECOND
        monkeypatch.setattr(process.book, "one", read)
        return found

    monkeypatch.setattr(process.book, "one", slowly)
    site.now += 5 * SECOND
    await site.settle()
    assert 10 not in site.ticks()
    site.start()
    await site.pass_time(10)
    assert site.ticks().count(10) == 1
    assert len(set(site.ticks())) == len(site.ticks())
