"""Schedules as they stand in HELD: every version, of which the newest genuine one counts, and only whole ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.envelopes import NOW
from support.tick_site import TickSite

from sealbus.bus.sending.message import Content
from sealbus.bus.work.schedules.book import Schedule, ScheduleChange
from sealbus.bus.work.schedules.request import ScheduleRequest, ScheduleState, encode_schedule
from sealbus.bus.work.schedules.rule import At
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import Trust, TrustBundles


@pytest.fixture
def site() -> TickSite:
    return TickSite()


async def test_what_is_stored_is_read(site: TickSite) -> None:
    first, other = await site.add(), await site.add("other", when=At(time=NOW + SECOND))
    assert await site.operator.book.all() == {"nightly": first, "other": other}
    assert await site.operator.book.one("nightly") == first
    assert await site.operator.book.one("none") is None


async def test_of_two_that_write_one_fails(site: TickSite) -> None:
    await site.add()
    known = await site.operator.book.one("nightly")
    assert known is not None
    paused = replace(known, state=ScheduleState.PAUSED)
    assert await site.operator.book.store(paused, known)
    assert not await site.operator.book.store(known, known)
    assert await site.operator.book.one("nightly") == paused


async def test_a_value_that_is_no_whole_schedule_is_none(site: TickSite) -> None:
    """Another version of ours may have written what this one does not know."""
    good = site.schedule()
    for wrong in (
        replace(good, body=Content(b"{}", good.body.typ)),
        replace(good, body=good.body._replace(typ="application/json")),
        replace(good, body=encode_schedule(ScheduleRequest(name="nightly", state=ScheduleState.PAUSED))),
        replace(good, body=encode_schedule(ScheduleRequest(name="other", planned=good.planned))),
    ):
        other = TickSite()
        assert await other.operator.book.store(wrong, None)
        assert await other.operator.book.all() == {}


def test_a_schedule_stands_until_it_is_removed_or_over(site: TickSite) -> None:
    schedule = site.schedule(when=At(time=NOW + 10 * SECOND))
    assert schedule.stands(NOW)
    assert replace(schedule, state=ScheduleState.PAUSED).stands(NOW)
    assert not replace(schedule, state=ScheduleState.REMOVED).stands(NOW)
    assert not schedule.stands(NOW + 10 * SECOND)


@pytest.mark.parametrize("which", ["grant", "change"])
def test_it_ticks_while_nobody_is_revoked_who_asked_for_it(site: TickSite, which: str) -> None:
    boss, second = site.names.id_of("boss"), ScheduleChange(bytes(32), site.names.id_of("second"), NOW)

    def trust(before: int) -> Trust:
        return Trust(bundles=TrustBundles(), revoked_before={boss: before})

    schedule: Schedule = site.schedule()
    schedule = replace(schedule, change=second) if which == "grant" else replace(schedule, grant=second)
    assert schedule.ticks(trust(NOW))
    assert not schedule.ticks(trust(NOW + 1))
    assert not replace(schedule, state=ScheduleState.PAUSED).ticks(trust(0))
