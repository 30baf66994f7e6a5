"""What a reader does with deliveries that are out of order; the rest needs a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.pull_requests import Care
from sealbus.bus.nats.reader import _batches, _Reader


@dataclass
class FakeLink:
    alive: bool = True
    watchers: list[object] = field(default_factory=list)


def bring(reader: _Reader, sequence: int, count: int, pending: int = 9) -> None:
    reply = f"$JS.ACK.AUDIT.{reader.name}.1.{sequence}.{count}.1000000.{pending}"
    reader.deliver(b"audit.a", reply.encode(), b"", b"%d" % sequence)


async def test_a_gap_in_the_consumers_count_ends_the_attempt() -> None:
    reader = _Reader(cast("Link", FakeLink()), "AUDIT", 7, Care())
    bring(reader, 10, 1)
    bring(reader, 14, 2)
    bring(reader, 16, 4)
    bring(reader, 17, 3)
    assert reader.broken == "a delivery is missing"
    assert [one.arrival.sequence for one in reader.take_batch(None) if one.arrival] == [10, 14]


async def test_it_is_exhausted_when_nothing_is_left_to_come_or_to_take() -> None:
    reader = _Reader(cast("Link", FakeLink()), "AUDIT", 7, Care())
    bring(reader, 1, 1, pending=1)
    bring(reader, 2, 2, pending=0)
    assert not reader.exhausted
    (first, second) = reader.take_batch(1), reader.take_batch(None)
    assert [one.payload for one in first] == [b"1"]
    assert second == []
    assert reader.exhausted


async def test_others_deliveries_are_not_ours() -> None:
    reader = _Reader(cast("Link", FakeLink()), "AUDIT", 7, Care())
    reader.deliver(b"audit.a", b"$JS.ACK.AUDIT.other.1.1.1.1.0", b"", b"x")
    reader.deliver(b"audit.a", b"x", b"", b"x")
    assert reader.take_batch(None) == []
    assert reader.broken == ""


async def test_how_a_request_may_end() -> None:
    for status, text, broken in (
        (0, "", ""),
        (408, "Request Timeout", ""),
        (404, "No Messages", ""),
        (409, "Message Size Exceeds MaxBytes", ""),
        (409, "Batch Completed", ""),
        (409, "Consumer Deleted", "409 Consumer Deleted"),
        (503, "", "503 "),
    ):
        reader = _Reader(cast("Link", FakeLink()), "AUDIT", 7, Care())
        bring(reader, 1, 1, pending=5)
        reader.take_batch(None)
        reader.ended(status, text)
        assert reader.broken == broken
        assert reader.exhausted == (status in (404, 408))


@dataclass
class FakePulls:
    """Requests that count as forgotten at the times given, one after the other."""

    times: Iterator[float]
    asked: int = 0

    def ask(self) -> None:
        self.asked += 1

    def silent_at(self) -> float:
        return next(self.times)


async def test_only_a_server_that_shows_no_sign_of_life_has_forgotten_a_request() -> None:
    link = FakeLink()
    connection = cast("Connection", type("FakeConnection", (), {"link": link}))
    now = asyncio.get_running_loop().time()
    # At the first time that was waited for, a heartbeat had moved it on; at the second, none had.
    times = iter([now + 0.01, now + 60.0, now + 0.02, now + 0.02])
    reader = _Reader(cast("Link", link), "AUDIT", 7, Care())
    reader._pulls = FakePulls(times)  # type: ignore[assignment]
    async with asyncio.timeout(60):
        assert [batch async for batch in _batches(connection, reader, None, None)] == []
    assert reader.broken == "the server has forgotten the request"
    assert list(times) == []


async def test_a_request_that_ran_out_is_made_again_and_wakes_its_caller_only_if_that_changes_something() -> None:
    reader = _Reader(cast("Link", FakeLink()), "AUDIT", 7, Care())
    reader._pulls = pulls = FakePulls(iter(()))  # type: ignore[assignment]
    reader.ended(408, "Request Timeout")
    assert (pulls.asked, reader.arrived.is_set()) == (1, False)
    bring(reader, 1, 1, pending=1)
    reader.take_batch(None)
    reader.arrived.clear()
    # The message that was to follow has expired.
    reader.ended(408, "Request Timeout")
    assert (pulls.asked, reader.arrived.is_set()) == (1, True)
