"""The lease: one holder at a time, taken over when it is silent, and believed only in our own words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.notary import NAMES, ORIGIN, Bench

from sealbus.agents.control.notary.lease import Lease, Leased, LeaseLost, lease_subject
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError, SealError

SUBJECT = lease_subject("notary", ORIGIN)
HERE, THERE = bytes([1]) * 16, bytes([2]) * 16


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lease(
    bench: Bench, name: str = "notary", seconds: float = 0.4, waiting: Callable[[], None] = lambda: None
) -> Lease:
    identity = MemoryIdentity(bench.authority, NAMES.id_of(name))
    return Lease(
        KeyValue(bench.broker.connect()), SUBJECT, identity=identity, seconds=seconds, clock=bench.now, waiting=waiting
    )


async def test_the_first_finds_nothing_and_the_next_what_was_announced(bench: Bench) -> None:
    first = lease(bench)
    assert await first.acquire(HERE, above=0) is None
    assert first.number == 1
    await first.renew(7, bytes(32))
    found = await lease(bench).acquire(HERE, above=0)
    assert found is not None
    assert (found.size, found.root, found.place, found.number) == (7, bytes(32), HERE, 1)


@pytest.mark.parametrize("place", [HERE, HERE[:-1] + b"\2", b"\2" + HERE[1:]])
async def test_only_one_of_the_same_store_is_not_waited_for(bench: Bench, place: bytes) -> None:
    await lease(bench).acquire(HERE, above=0)
    waits: list[None] = []
    assert await lease(bench, waiting=lambda: waits.append(None)).acquire(place, above=0) is not None
    assert bool(waits) == (place != HERE)


@pytest.mark.slow
async def test_one_of_another_store_is_waited_for_until_it_is_silent(bench: Bench) -> None:
    first, second = lease(bench, seconds=3.0), lease(bench, seconds=3.0)
    await first.acquire(HERE, above=0)
    waiting = asyncio.create_task(second.acquire(THERE, above=0))
    for _ in range(8):
        await asyncio.sleep(0.5)
        await first.keep()
        assert not waiting.done()
    found = await waiting
    assert found is not None
    assert found.place == HERE
    assert second.number == 2
    with pytest.raises(LeaseLost):
        await first.keep()
    with pytest.raises(LeaseLost, match="not held"):
        await first.renew(1, bytes(32))
    await second.keep()


async def test_the_number_is_over_all_that_were_known(bench: Bench) -> None:
    first = lease(bench)
    await first.acquire(HERE, above=41)
    assert first.number == 42
    second = lease(bench)
    await second.acquire(HERE, above=3)
    assert second.number == 43


async def test_what_was_announced_is_kept_through_keeping_and_taking_over(bench: Bench) -> None:
    first = lease(bench)
    await first.acquire(HERE, above=0)
    await first.renew(7, bytes(32))
    await first.keep()
    second = lease(bench)
    await second.acquire(HERE, above=0)
    await second.keep()
    found = await lease(bench).acquire(HERE, above=0)
    assert found is not None
    assert found.size == 7


@pytest.mark.parametrize("planted", [b"", b"garbage", encode([b"1", b"2"]), encode([b"1", b"2", b"3", b"4"])])
async def test_what_others_planted_says_nothing_and_gives_nothing_away_at_once(bench: Bench, planted: bytes) -> None:
    bench.broker.inject(SUBJECT, planted)
    mine = lease(bench)
    started = asyncio.get_running_loop().time()
    assert await mine.acquire(HERE, above=0) is None
    assert asyncio.get_running_loop().time() - started >= 0.35
    assert mine.number == 1


async def test_a_lease_that_another_identity_signed_is_not_ours(bench: Bench) -> None:
    stranger = lease(bench, "shop")
    await stranger.acquire(HERE, above=7)
    mine = lease(bench)
    assert await mine.acquire(HERE, above=0) is None
    assert mine.number == 1


async def test_of_two_at_the_same_moment_one_gets_it(bench: Bench) -> None:
    leases = [lease(bench) for _ in range(4)]
    tasks = [asyncio.create_task(one.acquire(bytes([n]) * 16, above=0)) for n, one in enumerate(leases)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert sum(one.number > 0 for one in leases) == 1
    for task in tasks:
        task.cancel()


async def test_without_a_broker_nothing_is_held(bench: Bench) -> None:
    mine = lease(bench)
    await mine.acquire(HERE, above=0)
    bench.broker.fail("STATE", BusUnavailable("away"))
    with pytest.raises(BusUnavailable):
        await mine.keep()


def test_what_no_lease_can_be() -> None:
    good: dict[str, Value] = {"number": 1, "by": HERE, "place": HERE, "size": 0, "root": bytes(32), "at": 0}
    for name, value in {"number": 0, "by": b"", "place": b"x", "size": -1, "root": bytes(31), "at": -1}.items():
        with pytest.raises(SealError):
            Leased(**{**good, name: value})  # type: ignore[arg-type]
    leased = Leased(**good)  # type: ignore[arg-type]
    assert Leased.parse(leased.payload()) == leased
    for payload in (b"", encode({**good, "v": 1, "size": 1, "number": 0}), encode({**good, "v": 1, "more": 1})):
        with pytest.raises(EnvelopeError):
            Leased.parse(payload)
