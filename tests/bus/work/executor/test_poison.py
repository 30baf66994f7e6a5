"""Messages that end their process: counted across processes, handled alone, then given up."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.envelopes import NOW
from support.faulty_transport import FaultyTransport
from support.lab import until
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.ports import StreamRefused
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.executor import poison
from sealbus.bus.work.executor.poison import ATTEMPTS, PoisonGuard
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import BusyEffect
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.errors import Code, HandlingError, StateUnavailable
from sealbus.envelopes.limits import SECOND

SECONDS = 30.0


def delivered(name: str, number: int, *, once: bool = False) -> Work:
    """Return delivery `number` of the message `name`, as far as a guard looks at it."""
    work = SimpleNamespace(
        header=SimpleNamespace(digest=sha256(name.encode()).digest()),
        tried=SimpleNamespace(number=number),
        permitted=SimpleNamespace(route=SimpleNamespace(options=SimpleNamespace(once=once))),
    )
    return cast("Work", _Hashable(work))


class _Hashable:
    """What has the attributes of another, and is equal to itself alone, as `Work` is."""

    def __init__(self, of: SimpleNamespace) -> None:
        self.header, self.tried, self.permitted = of.header, of.tried, of.permitted


class Site:
    """Processes of one agent on one broker and one clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.transport = FaultyTransport(self.broker)
        self.keyed = KeyValue(self.broker.connect())

    def process(self, **named: Any) -> PoisonGuard:
        return PoisonGuard(counts=TimelyArrays(ATTEMPTS, site_of(self.transport, lambda: self.now)), **named)

    def subject(self, name: str) -> str:
        return f"state.inventory.attempts.{sha256(name.encode()).hexdigest()}"


@pytest.fixture
def site() -> Site:
    return Site()


async def died(guard: PoisonGuard, name: str, number: int) -> bool:
    """Begin to handle a delivery in a process that then ends; return whether nothing else could begin meanwhile."""
    await guard.begin(delivered(name, number))
    return guard.apart


async def test_a_message_that_ends_every_process_is_handled_alone_and_then_given_up(site: Site) -> None:
    assert [await died(site.process(), "bad", number) for number in (2, 3, 4)] == [False, True, True]
    for number in (5, 6):
        with pytest.raises(HandlingError) as given_up:
            await site.process().begin(delivered("bad", number))
        assert given_up.value.code is Code.KILLED
    # Others are as they were.
    assert await died(site.process(), "good", 2) is False


async def test_what_the_parent_kept_is_handled_alone_at_once(site: Site) -> None:
    digests = [delivered(name, 1).header.digest for name in ("bad", "good")]
    await site.process().suspect(digests)
    # Told twice, as by two replicas, it is no worse.
    await site.process().suspect(digests)
    assert await died(site.process(), "bad", 2) is True
    guard = site.process()
    good = delivered("good", 2)
    await guard.begin(good)
    assert guard.apart
    guard.end(good)
    await guard.close(good)
    assert not guard.apart
    assert await died(site.process(), "good", 3) is False
    assert await died(site.process(), "bad", 3) is True
    with pytest.raises(HandlingError):
        await site.process().begin(delivered("bad", 4))


async def test_an_attempt_that_ended_here_counts_for_nothing(site: Site) -> None:
    """As where a handler raised, or the process was told to stop."""
    for number in range(2, 8):
        guard, work = site.process(), delivered("failing", number)
        await guard.begin(work)
        assert not guard.apart
        guard.end(work)
        await (guard.close(work) if number % 2 else guard.forgive())


async def test_deaths_before_an_end_are_not_forgotten_by_it(site: Site) -> None:
    await site.process().suspect([delivered("bad", 1).header.digest])
    await died(site.process(), "bad", 2)
    guard, work = site.process(), delivered("bad", 3)
    await guard.begin(work)
    guard.end(work)
    await guard.forgive()
    assert [await died(site.process(), "bad", number) for number in (4, 5)] == [False, True]
    with pytest.raises(HandlingError):
        await site.process().begin(delivered("bad", 6))


async def test_a_process_counts_no_delivery_that_it_put_off_itself(site: Site) -> None:
    guard = site.process()
    first, second = delivered("a", 1), delivered("a", 2)
    for work in (first, second):
        await guard.begin(work)
        guard.end(work)
        guard.put_off(work)
    assert await site.keyed.get(site.subject("a")) is None
    # Another process had it in between.
    fourth = delivered("a", 4)
    await guard.begin(fourth)
    assert await site.keyed.get(site.subject("a")) is not None


async def test_what_ends_while_the_process_is_told_to_stop_is_closed_once(site: Site) -> None:
    guard, works = site.process(), [delivered(name, 2) for name in ("a", "b", "c")]
    for work in works:
        await guard.begin(work)
    # Their handlers end while the counts are closed.
    await asyncio.gather(guard.forgive(), *(guard.close(work) for work in works))
    # What begins after that may be ended by who told the process to stop.
    await guard.begin(delivered("d", 2))
    assert await site.keyed.get(site.subject("d")) is None
    assert [await died(site.process(), name, 3) for name in ("a", "b", "c", "d")] == [False] * 4


async def test_what_is_claimed_once_is_not_counted(site: Site) -> None:
    await site.process().begin(delivered("a", 5, once=True))
    assert await site.keyed.get(site.subject("a")) is None


async def test_nothing_begins_beside_what_is_handled_alone_and_that_waits_for_the_others(site: Site) -> None:
    guard = site.process()
    await guard.suspect([delivered(name, 1).header.digest for name in ("a", "b")])
    running, a, b, later = delivered("running", 1), delivered("a", 2), delivered("b", 2), delivered("later", 1)
    await guard.begin(running)
    order: list[str] = []

    async def handle(name: str, work: Work) -> None:
        await guard.begin(work)
        order.append(f"{name} begins")
        await asyncio.sleep(0)
        order.append(f"{name} ends")
        guard.end(work)

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(handle("a", a))
        await until(lambda: guard.apart)
        group.create_task(handle("later", later))
        group.create_task(handle("b", b))
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == []
        guard.end(running)
    assert order.index("a begins") + 1 == order.index("a ends")
    assert order.index("b begins") + 1 == order.index("b ends")
    assert len(order) == 6
    assert not guard.apart
    assert guard.running == set()


async def test_one_that_cannot_be_alone_in_time_is_put_off_and_blamed_for_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "ALONE_WITHIN", 0.01)
    guard = site.process()
    await guard.suspect([delivered("a", 1).header.digest])
    await guard.begin(delivered("running", 1))
    for number in (2, 4, 6):
        with pytest.raises(BusyEffect):
            await guard.begin(delivered("a", number))
        assert not guard.apart
        await guard.begin(delivered(f"next-{number}", 1))
        await guard.suspect([delivered("a", 1).header.digest])


async def test_without_state_nothing_of_unknown_end_is_handled(site: Site) -> None:
    guard = site.process()
    site.transport.refusal = StreamRefused("full", 10077)
    with pytest.raises(StateUnavailable):
        await guard.begin(delivered("a", 2))
    await guard.suspect([delivered("b", 1).header.digest])
    await guard.begin(delivered("a", 1))
    assert await site.keyed.get(site.subject("b")) is None


async def test_of_two_processes_that_count_the_same_delivery_one_handles_it(site: Site) -> None:
    guards = [site.process(), site.process()]
    done = await asyncio.gather(*(guard.begin(delivered("a", 2)) for guard in guards), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) in (["NoneType", "StateUnavailable"], ["NoneType", "NoneType"])


@pytest.mark.parametrize("planted", [b"", b"\x00", encode([b"a", b"b", b"c", b"d"]), encode([1, 2])])
async def test_planted_bytes_give_nobody_a_death(site: Site, planted: bytes) -> None:
    await site.keyed.create(site.subject("a"), planted)
    assert await died(site.process(), "a", 2) is False
    assert await died(site.process(), "a", 3) is True


async def test_a_count_that_is_moved_or_stored_again_later_says_nothing(site: Site) -> None:
    await site.process().suspect([delivered("bad", 1).header.digest])
    for number in (2, 3):
        await died(site.process(), "bad", number)
    kept = await site.keyed.get(site.subject("bad"))
    assert kept is not None
    assert await site.keyed.create(site.subject("good"), kept.payload)
    assert await died(site.process(), "good", 2) is False
    site.now += 120 * SECOND
    assert await site.keyed.replace(site.subject("bad"), kept.payload, last=kept.sequence)
    assert await died(site.process(), "bad", 4) is False
