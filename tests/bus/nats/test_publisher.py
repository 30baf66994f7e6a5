"""Publishing in bulk: answers in order, room that is bounded, and every way in which an answer does not come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest
from support.lab import until

from sealbus.bus.nats import publisher as bulk
from sealbus.bus.nats.connection.connection import NO_RESPONDER_PAUSE, Connection, NoResponder
from sealbus.bus.nats.connection.inbox import Replies
from sealbus.bus.nats.publisher import BulkPublisher
from sealbus.bus.ports import Outgoing, PubAck, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

Answer = tuple[bytes, bytes] | None
"""A header block and a payload, or silence."""


def stored(number: int) -> Answer:
    return b"", json.dumps({"stream": "TASKS", "seq": number}).encode()


class FakeConnection:
    """A connection that is its own link; answers each frame by its number, once the loop turns."""

    def __init__(self, answer: Callable[[int], Answer] = stored) -> None:
        self.replies = Replies("_INBOX.a.")
        self.max_payload = 1_000
        self.written: list[bytes] = []
        self.alive = True
        self._answer = answer

    async def ready(self, seconds: float) -> FakeConnection:
        assert seconds >= 0
        if not self.alive:
            raise BusUnavailable("not connected")
        return self

    def write(self, frames: bytes) -> None:
        for frame in frames.split(b"PUB ")[1:]:
            self.written.append(frame)
            answer = self._answer(len(self.written))
            if answer is not None:
                reply = frame.split(b" ")[1]
                asyncio.get_running_loop().call_soon(self.replies.take_answer, reply, b"", *answer)

    def publisher(self) -> BulkPublisher:
        return BulkPublisher(cast("Connection", self))


def messages(count: int, size: int = 1) -> list[Outgoing]:
    return [Outgoing(subject=f"task.a.{number}", payload=b"x" * size) for number in range(count)]


async def test_answers_are_in_the_order_of_the_messages() -> None:
    link = FakeConnection()
    answers = await link.publisher().publish(messages(3), deadline=5)
    assert answers == [PubAck(stream="TASKS", sequence=number, duplicate=False) for number in (1, 2, 3)]
    assert [frame.split(b" ")[0] for frame in link.written] == [b"task.a.0", b"task.a.1", b"task.a.2"]
    assert len({frame.split(b" ")[1] for frame in link.written}) == 3
    assert link.replies.pending == 0


async def test_nothing_is_published_for_nothing() -> None:
    assert await FakeConnection().publisher().publish([], deadline=5) == []


async def test_a_duplicate_says_so_in_exactly_one_way() -> None:
    for said, duplicate in ((True, True), (1, False), ("true", False), (None, False)):
        block = json.dumps({"stream": "TASKS", "seq": 1, "duplicate": said}).encode()
        link = FakeConnection(lambda _, block=block: (b"", block))  # type: ignore[misc]
        assert await link.publisher().publish(messages(1), deadline=5) == [
            PubAck(stream="TASKS", sequence=1, duplicate=duplicate)
        ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"7",
        b"{",
        b'{"stream":"TASKS"}',
        b'{"seq":1}',
        b'{"stream":"T","seq":"x"}',
        b'{"error":7}',
        b'{"error":{"err_code":"x"}}',
        b'{"stream":"T","seq":Infinity}',
        b"[" * 100_000,
    ],
)
async def test_what_is_no_acknowledgement_is_none(payload: bytes) -> None:
    (answer,) = await FakeConnection(lambda _: (b"", payload)).publisher().publish(messages(1), deadline=5)
    assert type(answer) is BusUnavailable


async def test_refusals_and_statuses_are_told_apart() -> None:
    said: list[Answer] = [
        (b"", b'{"error":{"err_code":10077,"description":"maximum bytes exceeded"}}'),
        (b"NATS/1.0 503\r\n\r\n", b""),
        (b"NATS/1.0 408 Timeout\r\n\r\n", b'{"stream":"TASKS","seq":1}'),
        stored(4),
    ]
    full, nobody, status, good = (
        await FakeConnection(lambda n: said[n - 1]).publisher().publish(messages(4), deadline=0.2)
    )
    assert isinstance(full, StreamRefused)
    assert full.err_code == 10077
    assert isinstance(nobody, BusUnavailable)
    assert "no stream stores" in nobody.detail
    assert isinstance(status, BusUnavailable)
    assert "408" in status.detail
    assert good == PubAck(stream="TASKS", sequence=4, duplicate=False)


def nobody_for(times: int) -> Callable[[int], Answer]:
    """No stream takes message 1 of two, so many times."""
    return lambda n: (b"NATS/1.0 503\r\n\r\n", b"") if n == 1 or 2 < n < 2 + times else stored(n)


@pytest.fixture
def brief_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "NO_RESPONDER_PAUSE", 0.001)


@pytest.mark.usefixtures("brief_pause")
@pytest.mark.parametrize("times", [1, 2])
async def test_what_no_stream_took_for_a_moment_is_written_again_and_alone(times: int) -> None:
    link = FakeConnection(nobody_for(times))
    answers = await link.publisher().publish(messages(2), deadline=60)
    assert answers == [PubAck(stream="TASKS", sequence=n, duplicate=False) for n in (2 + times, 2)]
    subjects = [frame.split(b" ")[0] for frame in link.written]
    assert subjects == [b"task.a.0", b"task.a.1", *[b"task.a.0"] * times]
    assert link.replies.pending == 0


@pytest.mark.usefixtures("brief_pause")
async def test_what_no_stream_takes_fails_after_the_last_retry() -> None:
    link = FakeConnection(nobody_for(3))
    answer, other = await link.publisher().publish(messages(2), deadline=60)
    assert isinstance(answer, NoResponder)
    assert isinstance(other, PubAck)
    assert len(link.written) == 4


async def test_nothing_is_written_again_after_the_deadline() -> None:
    link = FakeConnection(lambda _: (b"NATS/1.0 503\r\n\r\n", b""))
    (answer,) = await link.publisher().publish(messages(1), deadline=NO_RESPONDER_PAUSE)
    assert isinstance(answer, NoResponder)
    assert len(link.written) == 1


async def test_silence_costs_only_the_silent_one_its_answer() -> None:
    link = FakeConnection(lambda n: None if n == 2 else stored(n))
    first, second, third = await link.publisher().publish(messages(3), deadline=0.01)
    assert isinstance(first, PubAck)
    assert isinstance(third, PubAck)
    assert isinstance(second, BusUnavailable)
    assert link.replies.pending == 0


async def test_what_the_server_would_not_take_is_never_written() -> None:
    link = FakeConnection()
    big = Outgoing(subject="task.a.big", payload=b"x" * 1_001)
    answers = await link.publisher().publish([big, *messages(1)], deadline=5)
    assert isinstance(answers[0], StreamRefused)
    assert answers[0].err_code == bulk.TOO_LARGE
    assert isinstance(answers[1], PubAck)
    assert len(link.written) == 1
    (alone,) = await link.publisher().publish([big], deadline=5)
    assert isinstance(alone, StreamRefused)


async def test_without_a_connection_all_fail() -> None:
    link = FakeConnection()
    link.alive = False
    answers = await link.publisher().publish(messages(2), deadline=0)
    assert [type(answer) for answer in answers] == [BusUnavailable] * 2
    link.alive = True
    assert isinstance((await link.publisher().publish(messages(1), deadline=5))[0], PubAck)


async def test_a_lost_link_fails_what_it_was_owed() -> None:
    link = FakeConnection(lambda _: None)
    publishing = asyncio.create_task(link.publisher().publish(messages(2), deadline=60))
    await until(lambda: bool(link.written))
    link.replies.fail_all(BusUnavailable("the link is gone"))
    answers = await publishing
    assert [str(answer) for answer in answers] == [str(BusUnavailable("the link is gone"))] * 2


async def test_a_subject_that_may_not_be_written_is_the_callers_mistake_and_takes_no_room() -> None:
    link = FakeConnection()
    publisher = link.publisher()
    with pytest.raises(ConfigurationError):
        await publisher.publish([Outgoing(subject="task.a 1\r\nPUB b", payload=b"")], deadline=5)
    assert link.written == []
    assert isinstance((await publisher.publish(messages(1), deadline=5))[0], PubAck)


async def test_room_is_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "IN_FLIGHT", 4)
    silent = FakeConnection(lambda _: None)
    publisher = silent.publisher()
    first = asyncio.create_task(publisher.publish(messages(3), deadline=60))
    await until(lambda: len(silent.written) == 3)
    second = asyncio.create_task(publisher.publish(messages(2), deadline=60))
    refused = await publisher.publish(messages(2), deadline=0.01)
    assert [type(answer) for answer in refused] == [BusUnavailable] * 2
    assert len(silent.written) == 3
    silent.replies.fail_all(BusUnavailable("gone"))
    await first
    await until(lambda: len(silent.written) == 5)
    silent.replies.fail_all(BusUnavailable("gone"))
    await second


async def test_cancelling_gives_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "IN_FLIGHT", 2)
    silent = FakeConnection(lambda n: None if n < 3 else stored(n))
    publisher = silent.publisher()
    first = asyncio.create_task(publisher.publish(messages(2), deadline=60))
    await until(lambda: len(silent.written) == 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert silent.replies.pending == 0
    assert all(isinstance(answer, PubAck) for answer in await publisher.publish(messages(2), deadline=5))


def test_batches_are_bounded_by_count_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 3)
    monkeypatch.setattr(bulk, "IN_FLIGHT_BYTES", 10)
    sizes = [1, 1, 1, 1, 6, 5, 20, 1]
    made = [Outgoing(subject="task.a.run", payload=b"x" * size) for size in sizes]
    cut = [[len(one.payload) for one in batch] for batch in bulk.batches_of(made)]
    assert cut == [[1, 1, 1], [1, 6], [5], [20], [1]]
