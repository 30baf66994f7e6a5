"""The difference of two clocks: half of the round trip taken off, and no older than the last time that ours was set."""

from __future__ import annotations

import asyncio
import logging
from math import isnan

import pytest

from sealbus.bus.clocks import HostClock
from sealbus.bus.nats import clock_difference
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND

START = 1_795_528_800 * SECOND


class World:
    """A broker's time and ours, `trip` seconds from each other there and back; a test moves all of it."""

    def __init__(self) -> None:
        self.passed = 1_000.0
        self.ahead = 0.0
        self.trip = 0.0
        self.away = False
        self.silent = False
        self.asked = 0
        self.slept = 0.0

    def clock(self) -> int:
        return START + int((self.passed + self.ahead) * SECOND)

    async def ask(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise BusUnavailable("away")
        self.passed += self.trip / 2
        told = 0 if self.silent else START + int((self.passed + self.slept) * SECOND)
        self.passed += self.trip / 2
        return told

    def difference(self) -> ClockDifference:
        return ClockDifference(self.ask, clock=HostClock(self.clock), elapsed=lambda: self.passed)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_difference, "AGAIN", 0.0)
    monkeypatch.setattr(clock_difference, "LOOK", 0.0)


async def test_nothing_is_decided_before_the_broker_told_its_time(world: World) -> None:
    difference = world.difference()
    assert difference.ahead is None
    assert isnan(difference.seconds_ahead())
    problem = difference.problem
    assert problem is not None
    assert problem.code is Code.CLOCK_SKEW
    assert await difference.settle() is None
    assert difference.ahead == 0


async def test_the_start_is_told_by_the_time_that_was_agreed_on_first(world: World) -> None:
    world.ahead = 3_600.0
    difference, begun = world.difference(), world.clock()
    assert difference.started == begun
    world.passed += 7.0
    assert await difference.settle() is not None
    assert difference.started == begun
    for world.ahead in (0.0, 1.5, 4.0):
        world.passed += 20.0
        assert await difference.settle() is None
        assert difference.started == begun - 3_600 * SECOND
        # The broker's clock may run otherwise than ours.
        world.slept += 0.5


@pytest.mark.parametrize(("ahead", "later"), [(-4.0, 4 * SECOND), (0.0, 0), (4.0, 0)])
async def test_the_start_is_the_later_of_both_times(world: World, ahead: float, later: int) -> None:
    """Whoever tells the broker's time cannot have calls taken again that came before it."""
    world.ahead = ahead
    difference, begun = world.difference(), world.clock()
    assert await difference.settle() is None
    assert difference.started == begun + later


@pytest.mark.parametrize("trip", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("ahead", [0.0, 3.0, -4.25, 300.0, -300.0])
async def test_half_of_the_round_trip_is_taken_off(world: World, ahead: float, trip: float) -> None:
    world.ahead, world.trip = ahead, trip
    difference = world.difference()
    problem = await difference.settle()
    assert difference.seconds_ahead() == pytest.approx(ahead, abs=1e-5)
    assert (problem is not None) is (abs(ahead) > 5)


async def test_the_limit_is_that_of_the_format_and_what_is_not_sure_is_none(world: World) -> None:
    for ahead, trip, apart in ((5.0, 0.0, False), (5.1, 0.0, True), (5.4, 1.0, False), (-5.6, 1.0, True)):
        world.ahead, world.trip = ahead, trip
        assert (await world.difference().settle() is not None) is apart, (ahead, trip)


async def test_a_slow_or_empty_answer_says_nothing(world: World) -> None:
    difference = world.difference()
    world.trip = 2.5
    assert await difference.settle() is not None
    world.trip, world.silent = 0.0, True
    assert await difference.settle() is not None
    assert difference.ahead is None


async def test_a_clock_that_was_set_is_noticed_without_an_answer(world: World) -> None:
    difference = world.difference()
    await difference.settle()
    world.passed += 100
    assert await difference.settle() is None
    assert world.asked == 1
    world.away, world.ahead = True, 60.0
    assert await difference.settle() is not None
    assert difference.seconds_ahead() == pytest.approx(60.0)
    world.ahead = 0.9
    assert difference.problem is None


async def test_a_host_that_was_suspended_asks_again(world: World) -> None:
    """The monotonic clock stands still meanwhile, the others go on."""
    difference = world.difference()
    await difference.settle()
    world.ahead = world.slept = 3_600.0
    assert await difference.settle() is None
    assert (world.asked, difference.ahead) == (2, 0)


async def test_waiting_for_the_clocks_to_agree_and_to_come_apart(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    difference = world.difference()
    world.ahead = -300.0
    with caplog.at_level(logging.WARNING):
        waiting = asyncio.ensure_future(difference.agree())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        world.ahead = 0.0
        await waiting
        apart = asyncio.ensure_future(difference.disagree())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not apart.done()
        world.ahead = 300.0
        await apart
    said = [record.getMessage() for record in caplog.records]
    assert [one.split(",")[0].split(":")[0] for one in said] == [
        "this host is 300.0 s behind the broker",
        "this host's clock and the broker's agree again",
        "this host is 300.0 s ahead of the broker",
    ]


async def test_while_they_agree_they_are_measured_now_and_again(world: World) -> None:
    difference = world.difference()
    await difference.settle()
    apart = asyncio.ensure_future(difference.disagree())
    for _ in range(20):
        world.passed += clock_difference.EVERY / 2
        await asyncio.sleep(0)
    apart.cancel()
    assert world.asked >= 4


@pytest.mark.parametrize("ahead", [3_600.0, -3_600.0, 1.5])
async def test_a_clock_that_was_set_changes_no_date(world: World, ahead: float) -> None:
    difference = world.difference()
    assert difference.now() == world.clock()
    await difference.settle()
    world.ahead = ahead
    world.passed += 10
    assert difference.now() == START + int(world.passed * SECOND)
    await difference.settle()
    assert difference.now() == START + int(world.passed * SECOND)
    world.away = True
    world.passed += 100
    assert difference.now() == START + int(world.passed * SECOND)
    world.ahead, world.away = 0.0, False
    assert await difference.settle() is None
    assert difference.now() == world.clock()


@pytest.mark.parametrize(("ahead", "trip"), [(4.0, 0.0), (5.9, 2.0), (-5.9, 2.0)])
async def test_a_clock_that_is_a_little_off_dates_by_the_brokers(world: World, ahead: float, trip: float) -> None:
    """Who may work while the difference is not sure must not seal what its recipients refuse: 5.9 s ahead is too much."""
    difference = world.difference()
    world.ahead, world.trip = ahead, trip
    assert await difference.settle() is None
    assert difference.now() == pytest.approx(START + world.passed * SECOND, abs=2)
    world.ahead += 0.9
    assert difference.now() == pytest.approx(START + world.passed * SECOND, abs=2)


async def test_a_clock_that_was_wrong_from_the_start_counts_until_it_was_right(world: World) -> None:
    difference = world.difference()
    world.ahead = 600.0
    assert await difference.settle() is not None
    assert difference.now() == world.clock()
    world.ahead = 0.0
    assert await difference.settle() is None
    assert difference.now() == world.clock()
    world.ahead = 600.0
    assert await difference.settle() is not None
    assert difference.now() == START + int(world.passed * SECOND)
