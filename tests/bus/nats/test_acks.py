"""Deliveries are settled once; what cannot be said now is said to the next link."""

from __future__ import annotations

import asyncio
from typing import cast

from sealbus.bus.nats.acks import FORGET, Acks
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.envelopes.errors import BusUnavailable


class FakeConnection:
    """A connection that is its own link."""

    def __init__(self) -> None:
        self.alive = True
        self.written: list[bytes] = []

    @property
    def link(self) -> Link:
        return cast("Link", self)

    def write(self, frames: bytes) -> None:
        if not self.alive:
            raise BusUnavailable("gone")
        self.written.append(frames)


def acks() -> tuple[Acks, FakeConnection]:
    connection = FakeConnection()
    made = Acks(cast("Connection", connection))
    for sequence in (3, 1, 2):
        made.add(f"t{sequence}", sequence)
    return made, connection


async def test_what_one_turn_settles_is_one_write_and_each_once() -> None:
    made, connection = acks()
    made.settle(["t1", "unknown"], "+ACK")
    made.settle(["t2"], "+ACK")
    made.settle(["t1", "t2"], "+TERM")
    assert connection.written == []
    await asyncio.sleep(0)
    assert connection.written == [b"PUB t1 4\r\n+ACK\r\nPUB t2 4\r\n+ACK\r\n"]
    assert len(made) == 1
    made.touch("t1")
    made.touch("t3")
    assert connection.written[1:] == [b"PUB t3 4\r\n+WPI\r\n"]


async def test_a_second_turn_is_a_second_write() -> None:
    made, connection = acks()
    made.settle(["t1"], "+ACK")
    made.flush()
    made.flush()
    made.settle(["t2"], "+TERM")
    await asyncio.sleep(0)
    assert connection.written == [b"PUB t1 4\r\n+ACK\r\n", b"PUB t2 5\r\n+TERM\r\n"]


async def test_what_is_to_be_redelivered_can_be_given_up_once() -> None:
    made, connection = acks()
    made.again(["t1"], "-NAK", delay=60.0)
    await asyncio.sleep(0)
    for token, sequence in (("t1", 1), ("t1", 1), ("t2", 2), ("unknown", 9)):
        made.give_up(token, sequence, "+TERM")
    await asyncio.sleep(0)
    assert len(made) == 1
    assert made.put_off == 0
    assert connection.written == [b"PUB t1 4\r\n-NAK\r\n", b"PUB t1 5\r\n+TERM\r\nPUB t2 5\r\n+TERM\r\n"]


async def test_what_is_not_settled_for_good_is_remembered() -> None:
    made, _ = acks()
    made.settle(["t1"], "+ACK")
    assert made.lowest(9) == 2
    made.again(["t2"], "-NAK")
    made.drop("t3")
    assert len(made) == 0
    assert made.lowest(9) == 2
    made.add("t2.again", 2)
    made.settle(["t2.again"], "+ACK")
    assert made.lowest(9) == 3
    made.add("t3.again", 3)
    made.settle(["t3.again"], "+TERM")
    assert made.lowest(9) == 9


async def test_what_another_replica_was_given_is_not_remembered_for_ever() -> None:
    """It would grow, and a consumer that must be made anew would begin with the first message that we ever put off."""
    now = 0.0
    made = Acks(cast("Connection", FakeConnection()), clock=lambda: now)
    for sequence in range(1, 1_001):
        made.add(f"t{sequence}", sequence)
        made.again([f"t{sequence}"], "-NAK", delay=60.0 if sequence == 1_000 else 0.0)
    now = FORGET
    assert made.lowest(2_000) == 1_000
    made.add("t1500", 1_500)
    made.drop("t1500")
    assert made.put_off == 2
    now = FORGET + 60.0
    assert made.lowest(2_000) == 1_500


async def test_what_is_owed_goes_first_over_the_next_link() -> None:
    made, connection = acks()
    connection.alive = False
    made.settle(["t1"], "+ACK")
    made.again(["t2"], "-NAK")
    made.touch("t3")
    await asyncio.sleep(0)
    try:
        made.pay(connection.link)
    except BusUnavailable:
        connection.alive = True
    made.pay(connection.link)
    made.pay(connection.link)
    assert connection.written == [b"PUB t1 4\r\n+ACK\r\nPUB t2 4\r\n-NAK\r\n"]
