"""Room for messages of verbs that a process lacks: by sender and user, in messages and bytes, kept once it was given."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from sealbus.bus.ports import ConsumerLoad, Delivery, Pull
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.verb_room import LAST_TRY, PACE, PLACE_BYTES, ROOM_BYTES, VerbRoom
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival

HOUR = 3_600 * SECOND


@dataclass
class Consumer:
    """A pull that has the load that the test says, beside what was put off through it."""

    most: int = 1_000
    unsettled: int = 0
    silent: bool = False
    looked: int = 0
    delays: list[float] = field(default_factory=list)

    def retry(self, delivery: Delivery, delay: float) -> None:
        self.delays.append(delay)

    async def load(self) -> ConsumerLoad:
        self.looked += 1
        if self.silent:
            raise BusUnavailable("no answer")
        return ConsumerLoad(unsettled=self.unsettled, most=self.most)


@dataclass
class Hands:
    """A clock that the test moves."""

    time: float = 0.0

    def __call__(self) -> float:
        return self.time


class Desk:
    """A room, the consumer that it is asked for, and one clock for both."""

    def __init__(self, most: int = 1_000) -> None:
        self.hands = Hands()
        self.counters = Counters()
        self.room = VerbRoom(most, counters=self.counters, clock=self.hands)
        self.pull = Consumer(most)

    async def put_off(
        self,
        sender: str = "a",
        user: str | None = None,
        *,
        number: int = 1,
        size: int = 100,
        exp: int = HOUR,
        stream: str = "TASKS",
    ) -> float | None:
        context = SimpleNamespace(idp="idp", sub=user) if user is not None else None
        header = SimpleNamespace(iss=SimpleNamespace(value=sender), exp=exp)
        arrival = StreamArrival("task.a.new", b"", stream, 1, 0, 0, number)
        delivery = Delivery("task.a.new", b"x" * size, b"", arrival)
        message = cast("VerifiedMessage", SimpleNamespace(header=header, context=context))
        now = int(self.hands.time * SECOND)
        return await self.room.put_off(message, delivery, cast("Pull", self.pull), random=0.0, now=now)

    async def fill(self, sender: str, user: str | None = None, *, size: int = 100) -> int:
        """Put off messages of one sender until there is no room; return how many it had."""
        count = 0
        while await self.put_off(sender, user, size=size) is not None:
            count += 1
        return count


async def test_senders_that_come_one_after_the_other_each_get_some_and_half_of_the_consumer_stays_free() -> None:
    desk = Desk(8_000)
    had = [await desk.fill(f"sender-{number}") for number in range(10)]
    assert had[0] == -(-4_000 // 3)
    assert all(count > 0 for count in had)
    assert sum(had) <= 4_000
    assert desk.counters.value("sealbus_no_place_total", cause="unknown_verb") == 10


async def test_one_user_of_an_edge_leaves_room_to_its_others_and_an_edge_to_other_senders() -> None:
    desk = Desk(8_000)
    first, second = await desk.fill("edge", "carol"), await desk.fill("edge", "dave")
    assert first == -(-4_000 // 3)
    assert second > 100
    for number in range(40):
        await desk.fill("edge", f"user-{number}")
    assert await desk.fill("other") > 100


async def test_what_has_room_keeps_it_when_there_is_none_for_others() -> None:
    desk = Desk(100)
    assert await desk.put_off("a") is not None
    desk.hands.time = 5.0
    desk.pull.unsettled = 100
    assert await desk.put_off("b") is None
    assert await desk.put_off("a", number=2) is not None
    assert desk.room.waiting() == 1


async def test_what_other_processes_have_put_off_takes_room_here() -> None:
    desk = Desk(1_000)
    desk.pull.unsettled = 497
    assert await desk.fill("a") == 1


async def test_room_is_free_again_when_messages_are_delivered_again() -> None:
    desk = Desk(60)
    assert await desk.fill("a") == 10
    desk.hands.time = 3_600.0
    assert desk.room.waiting() == 0
    assert await desk.put_off("a", exp=2 * HOUR) is not None


async def test_large_messages_take_as_many_places_as_their_bytes() -> None:
    desk = Desk(131_072)
    megabyte = 1_048_576
    had = await desk.fill("a", size=megabyte)
    assert had == -(-ROOM_BYTES // megabyte // 3)
    assert await desk.put_off("b", size=megabyte) is not None
    # The pace is in places, too: so many bytes are taken again in a second, and no more.
    assert desk.pull.delays[-1] == pytest.approx((had + 1) * megabyte / PLACE_BYTES / PACE)


async def test_messages_are_taken_again_at_a_pace_whatever_number_waits_at_whatever_process() -> None:
    desk = Desk(131_072)
    assert await desk.put_off() == pytest.approx(0.02)
    desk.hands.time = 2.0
    desk.pull.unsettled = 12_800
    assert await desk.put_off(number=2) == pytest.approx(12_800 / PACE)
    # Many tries of few messages are bounded by their backoff.
    desk.hands.time, desk.pull.unsettled = 100.0, 0
    assert await desk.put_off(number=1_000) == pytest.approx(30.0)


async def test_a_pause_that_would_pass_the_end_of_a_message_leaves_it_a_last_try() -> None:
    desk = Desk(131_072)
    desk.pull.unsettled = 12_800
    assert await desk.put_off(exp=40 * SECOND) == pytest.approx(40 - LAST_TRY)
    desk.hands.time = 40 - LAST_TRY
    assert await desk.put_off(number=2, exp=40 * SECOND) is None
    assert desk.pull.looked == 2


async def test_the_broker_is_asked_once_a_second_and_its_silence_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk(600)
    desk.pull.silent = True
    with caplog.at_level(logging.WARNING):
        assert await desk.fill("a") == 100
    assert desk.pull.looked == 1
    assert "the load of a consumer is not known" in caplog.text
    desk.hands.time = 1.5
    await desk.put_off("b")
    assert desk.pull.looked == 2


async def test_events_have_a_room_beside_that_of_tasks() -> None:
    desk = Desk(60)
    assert await desk.fill("a") == 10
    assert await desk.put_off("a", stream="EVENTS") is not None
    assert desk.room.notes() == {
        "verbs": "11 tasks or events for verbs that this version does not have wait for one that does"
    }
    desk.hands.time = 3_600.0
    assert desk.room.notes() == {}
