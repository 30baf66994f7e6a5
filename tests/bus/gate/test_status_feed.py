"""Readings that wait together: one consumer for all of them, and nothing is missed."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from support.lab import until
from support.results import TASK
from support.status_desk import Desk

from sealbus.agents.dev.memory.broker import MemoryTransport
from sealbus.bus.gate import status_feed
from sealbus.bus.gate.status_feed import StatusFeed
from sealbus.bus.ports import Delivery
from sealbus.bus.sending.status import State
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS

SUBJECT = f"status.planner.{TASK.id.hex()}"


class Seen(MemoryTransport):
    """A transport that counts what is read at a time, and whose feed fails as a test says."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open = 0
        self.following = 0
        self.most = 0
        self.since: list[int] = []
        self.failures: list[Exception] = []
        self.lost = False
        """Whether a feed finds at once that its stream was created again."""
        self.told = 0
        """Batches that the feed has taken in."""
        self.stale = 0
        """Readings that find nothing, as of a replica that is behind."""

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        if headers_only:
            self.since.append(since)
            assert follow
            if self.failures:
                raise self.failures.pop(0)
        elif self.stale:
            self.stale -= 1
            return
        self.open += not headers_only
        self.following += follow
        self.most = max(self.most, self.open)
        source = super().read(
            stream, subjects, start=start, since=since, follow=follow, current=current, headers_only=headers_only
        )
        try:
            async with aclosing(source) as batches:
                async for batch in batches:
                    if headers_only and self.lost:
                        self.lost = False
                        raise ConfigurationError("created again")
                    assert not headers_only or not any(one.payload for one in batch)
                    yield batch
                    self.told += headers_only
        finally:
            self.open -= not headers_only
            self.following -= follow


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(status_feed, "_AGAIN", Backoff(initial_interval=0.001, maximum_interval=0.01))
    return Desk(connect=Seen)


def seen(desk: Desk) -> Seen:
    assert isinstance(desk.transport, Seen)
    return desk.transport


async def read(desk: Desk) -> list[int]:
    async with aclosing(desk.reader.statuses(desk.task)) as found:
        return [one.sequence async for one in found]


async def test_a_thousand_wait_with_one_consumer(desk: Desk) -> None:
    desk.say("working", 1024)
    async with desk.reader.together(), asyncio.timeout(60):
        reading = [asyncio.ensure_future(read(desk)) for _ in range(2_000)]
        await until(lambda: desk.reader.reading == 2_000 and seen(desk).open == 0)
        assert seen(desk).following == 1
        assert seen(desk).most <= status_feed.READINGS
        desk.done()
        assert {tuple(await one) for one in reading} == {(1024, 1025)}
    assert desk.reader.reading == 0
    assert seen(desk).following == 0


class Subject(str):
    """A subject that can be seen to be forgotten."""

    __slots__ = ("__weakref__",)


async def test_nothing_else_wakes_a_reading(desk: Desk) -> None:
    async with StatusFeed(desk.site) as feed:
        with feed.watching(SUBJECT) as watch, feed.watching(elsewhere := Subject("status.planner.other")) as other:
            await until(lambda: seen(desk).following == 1)
            desk.broker.inject("status.planner.other", b"x")
            desk.broker.inject("status.elsewhere.other", b"x")
            await other.news.wait()
            assert (watch.news.is_set(), watch.sequence, other.sequence) == (False, 0, 1)
            desk.say("working", 1024)
            await watch.news.wait()
            assert watch.sequence == 3
        # What nobody watches any more is not remembered.
        kept = weakref.ref(elsewhere)
        del elsewhere
        assert kept() is None


async def test_it_begins_with_what_is_stored_while_it_begins(desk: Desk) -> None:
    async with StatusFeed(desk.site):
        await until(lambda: seen(desk).following == 1)
    assert seen(desk).since == [desk.now - DEFAULT_LIMITS.clock_skew]


@pytest.mark.parametrize("failure", [BusUnavailable("down"), ConfigurationError("created again")])
async def test_it_goes_on_where_it_was(desk: Desk, failure: Exception) -> None:
    transport = seen(desk)
    transport.failures = [failure, failure]
    async with desk.reader.together(), asyncio.timeout(60):
        reading = asyncio.ensure_future(read(desk))
        desk.say("working", 1024)
        await until(lambda: transport.following == 1)
        desk.done()
        assert await reading == [1024, 1025]
    assert transport.since == [desk.now - DEFAULT_LIMITS.clock_skew] * 3


async def test_after_a_gap_it_reads_again_from_the_last_it_had(desk: Desk) -> None:
    class Breaking(Seen):
        async def read(self, *arguments: Any, **named: Any) -> AsyncGenerator[Sequence[Delivery], None]:
            async with aclosing(super().read(*arguments, **named)) as batches:
                async for batch in batches:
                    yield batch
                    if named.get("headers_only") and len(self.since) == 1:
                        raise BusUnavailable("lost")

    desk = Desk(connect=Breaking)
    transport = seen(desk)
    async with desk.reader.together(), asyncio.timeout(60):
        await until(lambda: transport.following == 1)
        desk.now += 60_000_000
        desk.say("working", 1024)
        await until(lambda: len(transport.since) == 2)
        assert transport.since[1] == desk.now
        reading = asyncio.ensure_future(read(desk))
        desk.done()
        assert await reading == [1024, 1025]


async def test_a_replica_that_is_behind_is_asked_again(desk: Desk) -> None:
    transport = seen(desk)
    async with desk.reader.together(), asyncio.timeout(60):
        reading = asyncio.ensure_future(read(desk))
        await until(lambda: transport.following == 1 and desk.reader.reading == 1 and transport.open == 0)
        transport.stale = 3
        desk.done()
        assert await reading == [1025]
    assert transport.stale == 0


async def test_left_it_is_as_before(desk: Desk) -> None:
    async with desk.reader.together():
        pass
    desk.done()
    assert await read(desk) == [1025]


async def test_those_who_wait_together_leave_room_for_others(desk: Desk) -> None:
    desk = Desk(connect=Seen, limits=replace(desk.limits, readers=1))
    async with desk.reader.together(), asyncio.timeout(60):
        waiting = [asyncio.ensure_future(read(desk)) for _ in range(3)]
        await until(lambda: desk.reader.reading == 3)
        assert await desk.read(follow=False) == []
        desk.done()
        assert [await one for one in waiting] == [[1025]] * 3


async def test_who_takes_statuses_slowly_holds_up_nobody_and_misses_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_feed, "READINGS", 1)
    monkeypatch.setattr(status_feed, "HELD_SECONDS", 0.01)
    for number in (1024, 1025, 1026):
        desk.say("working", number)
    async with desk.reader.together(), asyncio.timeout(60), aclosing(desk.reader.statuses(desk.task)) as slow:
        assert (await anext(slow)).sequence == 1024
        other = asyncio.ensure_future(read(desk))
        desk.done(1027)
        assert await other == [1024, 1025, 1026, 1027]
        assert seen(desk).open == 0
        assert [one.sequence async for one in slow] == [1025, 1026, 1027]
    assert desk.counters.value("sealbus_refused_total") == 0


async def test_who_is_slow_until_the_end_is_told_what_is_there_before_it_has_expired(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_feed, "HELD_SECONDS", 0.01)
    desk.say("working", 1024)
    desk.done()
    async with desk.reader.together(), asyncio.timeout(60), aclosing(desk.reader.statuses(desk.task)) as slow:
        desk.now += 48 * 3_600_000_000
        assert (await anext(slow)).sequence == 1024
        await until(lambda: seen(desk).open == 0)
        assert [(one.sequence, one.state) async for one in slow] == [(1025, State.COMPLETED)]


async def test_what_the_feed_knew_before_a_reading_began_is_not_missed_at_a_replica_that_is_behind(desk: Desk) -> None:
    transport = seen(desk)
    async with desk.reader.together(), asyncio.timeout(60):
        await until(lambda: transport.following == 1)
        desk.done()
        await until(lambda: transport.told == 1)
        transport.stale = 2
        assert await read(desk) == [1025]


async def test_of_tasks_that_were_there_it_remembers_some(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_feed, "_RECENT", 2)
    async with StatusFeed(desk.site) as feed:
        await until(lambda: seen(desk).following == 1)
        with feed.watching("status.planner.d") as last:
            for task in "abacd":
                desk.broker.inject(f"status.planner.{task}", b"x")
            await last.news.wait()
        known = []
        for task in "abcd":
            with feed.watching(f"status.planner.{task}") as watch:
                known.append(watch.sequence)
        assert known == [0, 0, 4, 5]


async def test_a_stream_that_was_created_again_is_read_from_its_beginning(desk: Desk) -> None:
    transport = seen(desk)
    for number in (1024, 1025):
        desk.say("working", number)
    async with desk.reader.together(), asyncio.timeout(60):
        reading = asyncio.ensure_future(read(desk))
        await until(lambda: transport.following == 1 and desk.reader.reading == 1 and transport.open == 0)
        desk.now += 1
        transport.lost = True
        desk.broker.inject("status.planner.other", b"x")
        desk.broker.add_stream("RESULTS", ["status.>"])
        desk.done(1026)
        await until(lambda: len(transport.since) == 2)
        assert await reading == [1024, 1025, 1026]
    assert desk.counters.value("sealbus_refused_total") == 0
