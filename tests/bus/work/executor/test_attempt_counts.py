"""Failed attempts are counted across processes, and where they cannot be, deliveries count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from types import SimpleNamespace
from typing import cast

import pytest
from support.envelopes import NOW
from support.faulty_transport import OUTRUN, FaultyTransport
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.ports import StoredValue
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.executor import attempt_counts
from sealbus.bus.work.executor.attempt_counts import FAILED, FailedAttempts
from sealbus.bus.work.executor.poison import ATTEMPTS
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND


def failed(name: str, number: int) -> Work:
    """Return delivery `number` of the message `name`, as far as a count looks at it."""
    header = SimpleNamespace(digest=sha256(name.encode()).digest())
    return cast("Work", SimpleNamespace(header=header, tried=SimpleNamespace(number=number)))


class Site:
    """Processes of one agent on one broker and one clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.transport = FaultyTransport(self.broker)
        self.keyed = KeyValue(self.broker.connect())

    def counts(self, name: str = FAILED) -> TimelyArrays:
        return TimelyArrays(name, site_of(self.transport, lambda: self.now))

    def process(self) -> FailedAttempts:
        return FailedAttempts(self.counts())

    def subject(self, name: str) -> str:
        return f"state.inventory.failed.{sha256(name.encode()).hexdigest()}"


@pytest.fixture
def site() -> Site:
    return Site()


async def test_what_several_processes_count_is_one_count(site: Site) -> None:
    numbers = [await site.process().count(failed("a", delivery)) for delivery in (9, 17, 40)]
    assert numbers == [1, 2, 3]
    # Others are as they were.
    assert await site.process().count(failed("b", 7)) == 1


async def test_a_first_delivery_that_fails_costs_one_round_trip(site: Site) -> None:
    async def unread(_: object) -> None:
        raise AssertionError

    site.transport.look = unread
    assert await site.process().count(failed("a", 1)) == 1
    site.transport.look = None
    # Its first delivery by an approval, when it had failed before that.
    assert await site.process().count(failed("a", 1)) == 2


async def test_attempts_that_fail_at_the_same_moment_are_each_counted(site: Site) -> None:
    met, waits = asyncio.Barrier(2), iter([True, True])

    async def together(look: Callable[[], Awaitable[StoredValue | None]]) -> StoredValue | None:
        found = await look()
        if next(waits, False):
            await met.wait()
        return found

    site.transport.look = together
    async with asyncio.timeout(60):
        numbers = await asyncio.gather(*[site.process().count(failed("a", 5)) for _ in range(2)])
    assert sorted(numbers) == [1, 2]


async def test_where_state_does_not_answer_deliveries_count(site: Site) -> None:
    process = site.process()
    assert await process.count(failed("a", 3)) == 1
    site.broker.fail("STATE", BusUnavailable("away"))
    assert await process.count(failed("a", 4)) == 4
    site.broker.fail("STATE", None)
    # What was not counted then is not forgotten: there are never more attempts than declared.
    assert await process.count(failed("a", 6)) == 5
    assert await site.process().count(failed("a", 9)) == 6


async def test_a_first_failure_that_state_did_not_take_counts_with_the_next(site: Site) -> None:
    process = site.process()
    site.broker.fail("STATE", BusUnavailable("away"))
    assert [await process.count(failed("a", number)) for number in (1, 2)] == [1, 2]
    site.broker.fail("STATE", None)
    assert await process.count(failed("a", 3)) == 3


async def test_where_state_says_nothing_for_too_long_deliveries_count(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(attempt_counts, "WITHIN", 0.01)
    site.transport.look = never
    assert await site.process().count(failed("a", 4)) == 4


async def test_where_others_write_all_the_time_deliveries_count(site: Site) -> None:
    await site.process().count(failed("a", 2))
    site.transport.refusal = OUTRUN
    assert await site.process().count(failed("a", 4)) == 4


@pytest.mark.parametrize("planted", [b"", b"\x00", encode([b"a", b"b", b"c", b"d"]), encode([1, 2])])
async def test_planted_bytes_give_no_attempt_and_take_none(site: Site, planted: bytes) -> None:
    await site.keyed.create(site.subject("a"), planted)
    assert await site.process().count(failed("a", 1)) == 1
    assert await site.process().count(failed("a", 9)) == 2
    kept = await site.keyed.get(site.subject("a"))
    assert kept is not None
    await site.keyed.replace(site.subject("a"), planted, last=kept.sequence)
    # Otherwise who plants them again and again would have it tried again for ever.
    assert await site.process().count(failed("a", 10)) == 10


@pytest.mark.parametrize("fields", [[], [0], [True], [2, 2]])
async def test_a_value_of_another_form_is_no_count(site: Site, fields: list[int]) -> None:
    await site.counts().write(failed("a", 1).header.digest, fields, 0)
    assert await site.process().count(failed("a", 4)) == 4


async def test_a_count_that_is_moved_or_stored_again_later_is_none(site: Site) -> None:
    await site.process().count(failed("a", 1))
    kept = await site.keyed.get(site.subject("a"))
    assert kept is not None
    await site.keyed.create(site.subject("b"), kept.payload)
    assert await site.process().count(failed("b", 5)) == 5
    await site.process().count(failed("a", 2))
    site.now += 120 * SECOND
    newest = await site.keyed.get(site.subject("a"))
    assert newest is not None
    await site.keyed.replace(site.subject("a"), kept.payload, last=newest.sequence)
    assert await site.process().count(failed("a", 7)) == 7


async def test_a_count_of_another_name_is_none(site: Site) -> None:
    digest = failed("a", 1).header.digest
    await site.counts(ATTEMPTS).write(digest, [5], 0)
    kept = await site.keyed.get(f"state.inventory.attempts.{digest.hex()}")
    assert kept is not None
    await site.keyed.create(site.subject("a"), kept.payload)
    assert await site.process().count(failed("a", 2)) == 2
