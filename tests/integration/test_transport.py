"""The `Transport` port on a real server: publishing, sending, listening and reading."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.lab import Lab, agent_id, make_stream, outgoing, running, until
from support.nats_server import User

from sealbus.bus.nats.api import make_reader
from sealbus.bus.nats.connection.connection import Connection, NoResponder
from sealbus.bus.nats.publisher import BATCH, IN_FLIGHT
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, NotPermitted, Outgoing, PubAck, StoredValue, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", "a", "b") as started:
        yield started


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection("a") as entered:
        await make_stream(entered)
        yield entered


@pytest.fixture
async def transport(connection: Connection) -> NatsTransport:
    return NatsTransport(connection)


def numbers(batches: Sequence[Sequence[Delivery]]) -> list[int]:
    return [int(delivery.payload) for batch in batches for delivery in batch]


class Collector:
    """Collects the batches of a generator in a task of its own."""

    def __init__(self, batches: AsyncGenerator[Sequence[Delivery], None]) -> None:
        self.batches: list[Sequence[Delivery]] = []
        self._source = batches
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with contextlib.aclosing(self._source) as batches:
            async for batch in batches:
                self.batches.append(batch)

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for batch in self.batches for delivery in batch]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


# publish


async def test_answers_come_in_order(transport: NatsTransport) -> None:
    messages = [outgoing(number) for number in range(BATCH + 10)]
    answers = await transport.publish(messages, deadline=60.0)
    assert [answer.sequence for answer in answers if isinstance(answer, PubAck)] == list(range(1, BATCH + 11))
    assert all(isinstance(answer, PubAck) and answer.stream == "TASKS" for answer in answers)
    again = await transport.publish([messages[3], outgoing(9_999)], deadline=60.0)
    assert again == [
        PubAck(stream="TASKS", sequence=4, duplicate=True),
        PubAck(stream="TASKS", sequence=BATCH + 11, duplicate=False),
    ]


async def test_nothing_to_publish(transport: NatsTransport) -> None:
    assert await transport.publish([], deadline=1.0) == []


async def test_each_failure_is_its_own(connection: Connection, transport: NatsTransport) -> None:
    await make_stream(connection, "SMALL", "small.>", max_bytes=2_000, discard="new")
    limit = connection.link.max_payload
    answers = await transport.publish(
        [
            outgoing(1),
            outgoing(2, "nowhere.a"),
            outgoing(3, "small.a", size=1_200),
            outgoing(4, "small.a", size=1_200),
            Outgoing(subject="task.a.run", payload=b"x" * (limit + 1)),
            outgoing(5),
        ],
        deadline=5.0,
    )
    assert [type(answer) for answer in answers] == [
        PubAck,
        NoResponder,
        PubAck,
        StreamRefused,
        StreamRefused,
        PubAck,
    ]
    assert "no stream stores this subject" in str(answers[1])
    assert isinstance(answers[3], StreamRefused)
    assert answers[3].err_code == 10_077
    assert "10077" in answers[3].detail
    assert isinstance(answers[4], StreamRefused)
    assert answers[4].err_code == 10_054
    # The largest that the server takes goes through.
    assert isinstance(
        (await transport.publish([Outgoing(subject="task.a.run", payload=b"x" * limit)], deadline=60.0))[0], PubAck
    )


@pytest.mark.parametrize(
    "message",
    [
        Outgoing(subject="task.*.run", payload=b""),
        Outgoing(subject="task..run", payload=b""),
        Outgoing(subject="task.a.run 5\r\nPUB x", payload=b""),
        Outgoing(subject="task.a.run", payload=b"", message_id="1\r\nX: 1"),
        Outgoing(subject="task.a.run", payload=b"", headers={"nats-msg-id": "1"}),
        Outgoing(subject="task.a.run", payload=b"", headers={"x": "1\r\ny: 2"}),
        Outgoing(subject="task.a.run", payload=b"", headers={"x y": "1"}),
    ],
)
async def test_what_would_not_arrive_as_it_is_is_not_sent(transport: NatsTransport, message: Outgoing) -> None:
    with pytest.raises(ConfigurationError):
        await transport.publish([message], deadline=1.0)
    with pytest.raises(ConfigurationError):
        transport.send([message])
    assert (await transport.publish([outgoing(1)], deadline=60.0))[0] == PubAck(
        stream="TASKS", sequence=1, duplicate=False
    )


async def test_silence_ends_at_the_deadline_and_leaves_nothing(lab: Lab, connection: Connection) -> None:
    transport = NatsTransport(connection)
    link = connection.link
    lab.server.pause()
    try:
        answers = await transport.publish([outgoing(number) for number in range(3)], deadline=0.2)
        assert ["not acknowledged within 0.2 s" in str(answer) for answer in answers] == [True] * 3
        assert link.replies.pending == 0
    finally:
        lab.server.resume()
    # The late answers are dropped, and the bytes may be repeated: the stream knows their ids.
    again = await transport.publish([outgoing(number) for number in range(3)], deadline=60.0)
    assert [answer.sequence for answer in again if isinstance(answer, PubAck)] == [1, 2, 3]


async def test_a_dying_server_fails_what_it_owes_at_once(lab: Lab, connection: Connection) -> None:
    transport = NatsTransport(connection)
    lab.server.pause()
    publishing = [
        asyncio.ensure_future(transport.publish([outgoing(100 * turn + n) for n in range(100)], deadline=3_600.0))
        for turn in range(5)
    ]
    link = connection.link
    await until(lambda: link.replies.pending == 500)
    await lab.server.kill9()
    async with asyncio.timeout(60):
        answers = [answer for batch in await asyncio.gather(*publishing) for answer in batch]
    assert len(answers) == 500
    assert all(isinstance(answer, BusUnavailable) and "connection lost" in answer.detail for answer in answers)
    assert link.replies.pending == 0
    with pytest.raises(BusUnavailable):
        transport.send([outgoing(1)])
    waiting = asyncio.ensure_future(transport.publish([outgoing(1)], deadline=60.0))
    await lab.server.restart()
    assert isinstance((await waiting)[0], PubAck)


async def test_what_is_in_flight_is_bounded(lab: Lab, connection: Connection) -> None:
    transport = NatsTransport(connection)
    lab.server.pause()
    publishing = [
        asyncio.ensure_future(transport.publish([outgoing(1000 * turn + n) for n in range(1000)], deadline=60.0))
        for turn in range(8)
    ]
    await until(lambda: connection.link.replies.pending == IN_FLIGHT // 1000 * 1000)
    late = await transport.publish([outgoing(n) for n in range(500)], deadline=0.1)
    assert all(isinstance(answer, BusUnavailable) for answer in late)
    assert connection.link.replies.pending <= IN_FLIGHT
    publishing[0].cancel()
    await asyncio.gather(publishing[0], return_exceptions=True)
    await until(lambda: connection.link.replies.pending == IN_FLIGHT // 1000 * 1000)
    lab.server.resume()
    answers = [answer for batch in await asyncio.gather(*publishing[1:]) for answer in batch]
    assert len(answers) == 7_000
    assert all(isinstance(answer, PubAck) for answer in answers)
    assert connection.link.replies.pending == 0


async def test_a_publish_that_is_not_permitted_fails_at_once(tmp_path: Path) -> None:
    user = User(id=agent_id("c"), publish=("$JS.API.>", "task.c.>"), subscribe=("_INBOX.c.>",))
    async with running(tmp_path / "nats", user) as lab, lab.connection("c") as connection:
        await make_stream(connection)
        async with asyncio.timeout(60):
            answers = await NatsTransport(connection).publish(
                [outgoing(1, "task.c.run"), outgoing(2, "task.d.run"), outgoing(3, "task.c.run")], deadline=3_600.0
            )
        assert [type(answer) for answer in answers] == [PubAck, NotPermitted, PubAck]
        assert "task.d.run: not permitted to publish" in str(answers[1])
        assert connection.counters.value("sealbus_bus_dropped_total", reason="permissions") == 1


# send and listen


async def test_what_is_sent_is_heard_as_it_is(transport: NatsTransport) -> None:
    heard = Collector(transport.listen("call.b.>"))
    await until(lambda: bool(transport._connection._attachments))
    await transport._connection.link.flush(60.0)
    transport.send(
        [
            Outgoing(subject="call.b.run", payload=b"1\r\n\x00", headers={"traceparent": "00-1"}),
            Outgoing(subject="call.b.stop", payload=b""),
            Outgoing(subject="call.c.run", payload=b"not for us"),
        ]
    )
    transport.send([])
    await until(lambda: len(heard.deliveries) == 2)
    assert heard.deliveries == [
        Delivery(subject="call.b.run", payload=b"1\r\n\x00", header_block=b"NATS/1.0\r\ntraceparent: 00-1\r\n\r\n"),
        Delivery(subject="call.b.stop", payload=b"", header_block=b""),
    ]
    await heard.stop()


async def test_listening_is_live_before_it_waits(lab: Lab, connection: Connection) -> None:
    """What another connection publishes once the first wait has begun is heard: SUB, then PING, then PONG."""
    async with lab.connection("b") as other:
        for _ in range(200):
            listening = NatsTransport(connection).listen("call.a.>")
            first = asyncio.ensure_future(anext(listening))
            await until(lambda: waits_for_input(connection))
            NatsTransport(other).send([outgoing(7, "call.a.run")])
            async with asyncio.timeout(60):
                assert numbers([await first]) == [7]
            await listening.aclose()


def waits_for_input(connection: Connection) -> bool:
    """Tell whether the one listener has been attached and its PONG has come."""
    return bool(connection._attachments) and not connection._moving.locked()


async def test_a_slow_listener_loses_the_newest_and_it_is_counted(connection: Connection) -> None:
    transport = NatsTransport(connection)
    listening = transport.listen("call.a.>", pending=10)
    first = asyncio.ensure_future(anext(listening))
    await until(lambda: waits_for_input(connection))
    transport.send([outgoing(0, "call.a.run")])
    assert numbers([await first]) == [0]
    transport.send([outgoing(number, "call.a.run") for number in range(25)])
    await connection.link.flush(60.0)
    assert connection.counters.value("sealbus_bus_dropped_total", reason="slow") == 15
    assert numbers([await anext(listening)]) == list(range(10))
    transport.send([outgoing(99, "call.a.run")])
    assert numbers([await anext(listening)]) == [99]
    await listening.aclose()


async def test_a_queue_group_hears_each_message_once(lab: Lab, connection: Connection) -> None:
    async with lab.connection("b") as other:
        heard = [
            Collector(NatsTransport(one).listen("call.q.>", queue="workers")) for one in (connection, other, other)
        ]
        await until(lambda: len(connection._attachments) == 1 and len(other._attachments) == 2)
        await other.link.flush(60.0)
        await connection.link.flush(60.0)
        NatsTransport(connection).send([outgoing(number, "call.q.run") for number in range(300)])
        await until(lambda: sum(len(one.deliveries) for one in heard) >= 300)
        assert sorted(numbers([one.deliveries for one in heard])) == list(range(300))
        assert all(one.deliveries for one in heard)
        for one in heard:
            await one.stop()
        assert connection._attachments == []


async def test_listening_goes_on_after_the_server_died(lab: Lab, connection: Connection) -> None:
    transport = NatsTransport(connection)
    heard = Collector(transport.listen("call.a.>"))
    await until(lambda: waits_for_input(connection))
    await lab.server.kill9()
    await lab.server.restart()
    await until(lambda: connection.counters.value("sealbus_bus_reconnects_total") == 1)
    await connection.link.flush(60.0)
    transport.send([outgoing(1, "call.a.run")])
    await until(lambda: numbers(heard.batches) == [1])
    await heard.stop()


async def test_listening_ends_with_the_connection(lab: Lab) -> None:
    async with lab.connection("b") as connection:
        heard = Collector(NatsTransport(connection).listen("call.b.>"))
        await until(lambda: waits_for_input(connection))
    await heard.task


async def test_listening_that_is_not_permitted_says_so(tmp_path: Path) -> None:
    user = User(id=agent_id("c"), subscribe=("_INBOX.c.>",))
    async with running(tmp_path / "nats", user) as lab, lab.connection("c") as connection:
        with pytest.raises(BusUnavailable, match="Permissions Violation"):
            await anext(NatsTransport(connection).listen("call.d.>", queue="workers"))
    with pytest.raises(ConfigurationError):
        await anext(NatsTransport(connection).listen("call..d"))


# read and created


async def test_reads_in_order_and_ends(transport: NatsTransport) -> None:
    await transport.publish([outgoing(number, f"task.{'ab'[number % 2]}.run") for number in range(1200)], deadline=9)
    whole = [batch async for batch in transport.read("TASKS", ["task.>"])]
    assert numbers(whole) == list(range(1200))
    positions = [delivery.arrival for batch in whole for delivery in batch]
    assert [position.sequence for position in positions if position] == list(range(1, 1201))
    created = await transport.created("TASKS")
    now = time.time() * 1e6
    assert all(position and now - 60e6 < position.stored < now + 1e6 for position in positions)
    assert all(position and position.created == created and position.delivery == 1 for position in positions)
    half = [batch async for batch in transport.read("TASKS", ["task.b.>"], start=601)]
    assert numbers(half) == list(range(601, 1200, 2))
    both = [batch async for batch in transport.read("TASKS", ["task.a.>", "task.b.>"], start=1199)]
    assert numbers(both) == [1198, 1199]
    assert [batch async for batch in transport.read("TASKS", ["task.c.>"])] == []
    assert [batch async for batch in transport.read("TASKS", ["task.>"], start=5000)] == []


async def test_reads_from_a_time_on(transport: NatsTransport) -> None:
    await transport.publish([outgoing(number) for number in range(5)], deadline=60.0)
    last = [batch async for batch in transport.read("TASKS", ["task.>"])][-1][-1].arrival
    assert last is not None
    await transport.publish([outgoing(number) for number in range(5, 8)], deadline=60.0)
    assert numbers([b async for b in transport.read("TASKS", ["task.>"], since=last.stored + 1)]) == [5, 6, 7]


async def test_reading_ends_at_what_was_there_when_it_began(transport: NatsTransport) -> None:
    await transport.publish([outgoing(number) for number in range(1000)], deadline=60.0)
    seen: list[int] = []
    async for batch in transport.read("TASKS", ["task.>"]):
        if not seen:
            await transport.publish([outgoing(number) for number in range(1000, 1010)], deadline=60.0)
        seen += numbers([batch])
    assert seen == list(range(1000))


async def values(transport: NatsTransport, pattern: str, since: int = 0) -> list[tuple[str, StoredValue]]:
    return [one async for batch in transport.values("TASKS", pattern, since=since) for one in batch]


async def test_what_a_stream_holds_is_read_once(transport: NatsTransport, connection: Connection) -> None:
    assert await values(transport, "task.>") == []
    await transport.publish([outgoing(number, f"task.{'ab'[number % 2]}.run") for number in range(1200)], deadline=9)
    read = [one async for batch in transport.read("TASKS", ["task.>"]) for one in batch]
    whole = await values(transport, "task.>")
    assert whole == [
        (one.subject, StoredValue(one.arrival.sequence, one.payload, one.arrival.stored)) for one in read if one.arrival
    ]
    assert [one.sequence for _, one in await values(transport, "task.b.*")] == list(range(2, 1201, 2))
    assert await values(transport, "task.c.>") == []
    since = whole[-1][1].stored
    assert await values(transport, "task.>", since) == [one for one in whole if one[1].stored >= since]
    assert await values(transport, "task.>", since + 1) == []
    with pytest.raises(ConfigurationError, match="sealbus streams apply"):
        await anext(transport.values("AUDIT", "audit.>"))
    with pytest.raises(ConfigurationError):
        await anext(transport.values("TASKS", "task..run"))
    # No consumer of it stays: each is deleted, the first one as well, which found nothing.
    async with asyncio.timeout(60):
        while json.loads(await connection.jetstream("$JS.API.CONSUMER.NAMES.TASKS", b"{}"))["consumers"]:
            pass


async def test_reading_once_ends_while_others_write(transport: NatsTransport) -> None:
    await transport.publish([outgoing(number) for number in range(700)], deadline=60.0)
    seen: list[int] = []
    async for batch in transport.values("TASKS", "task.>"):
        seen += [one.sequence for _, one in batch]
        await transport.publish([outgoing(700 + len(seen) + number) for number in range(300)], deadline=60.0)
    assert seen == list(range(1, 701))


async def test_reading_once_gives_no_part_for_the_whole(
    transport: NatsTransport, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server forgets what it said that it had: the stream is emptied after the consumer was made."""
    await transport.publish([outgoing(number) for number in range(700)], deadline=60.0)
    made = make_reader

    async def emptied(*arguments: Any, **named: Any) -> int:
        found = await made(*arguments, **named)
        await connection.jetstream("$JS.API.STREAM.PURGE.TASKS", b'{"keep": 5}')
        return found

    monkeypatch.setattr("sealbus.bus.nats.reader.make_reader", emptied)
    with pytest.raises(BusUnavailable, match="fewer messages came than were there"):
        await values(transport, "task.>")


async def test_reading_once_through_a_crash_says_so(lab: Lab, transport: NatsTransport) -> None:
    await transport.publish([outgoing(number) for number in range(700)], deadline=60.0)
    reading = transport.values("TASKS", "task.>")
    await anext(reading)
    await lab.server.kill9()
    with pytest.raises(BusUnavailable):
        _ = [batch async for batch in reading]
    await lab.server.restart()
    assert len(await values(transport, "task.>")) == 700


async def test_following_through_a_rotation_and_a_crash(lab: Lab) -> None:
    identity = lab.identity("a")
    async with lab.connection("a", identity=identity) as connection:
        await make_stream(connection)
        transport = NatsTransport(connection)
        read = Collector(transport.read("TASKS", ["task.>"], follow=True))
        await transport.publish([outgoing(number) for number in range(700)], deadline=60.0)
        await until(lambda: len(read.deliveries) == 700)
        old = connection.link
        identity.rotate()
        await until(lambda: not old.alive)
        await transport.publish([outgoing(number) for number in range(700, 1400)], deadline=60.0)
        await until(lambda: len(read.deliveries) == 1400)
        await lab.server.kill9()
        await lab.server.restart()
        await transport.publish([outgoing(number) for number in range(1400, 2000)], deadline=60.0)
        await until(lambda: len(read.deliveries) >= 2000)
        assert numbers(read.batches) == list(range(2000))
        await read.stop()


async def test_the_time_of_the_broker_is_told_with_the_stream_of_records_alone(
    connection: Connection, transport: NatsTransport
) -> None:
    await make_stream(connection, "RECORDS", "audit.>")
    before = int(time.time() * 1e6)
    assert before - 1 <= await transport.broker_time("RECORDS") <= int(time.time() * 1e6) + 1
    with pytest.raises(ConfigurationError):
        await transport.broker_time("TASKS")


async def test_a_stream_that_is_not_there(transport: NatsTransport) -> None:
    with pytest.raises(ConfigurationError, match="sealbus streams apply"):
        await transport.created("AUDIT")
    with pytest.raises(ConfigurationError, match="sealbus streams apply"):
        await anext(transport.read("AUDIT", ["audit.>"]))
    with pytest.raises(ConfigurationError):
        await transport.created("A.B")


async def test_a_stream_made_anew_while_it_is_read_is_not_mistaken_for_the_old(
    lab: Lab, connection: Connection
) -> None:
    transport = NatsTransport(connection)
    await transport.publish([outgoing(number) for number in range(5)], deadline=60.0)
    read = Collector(transport.read("TASKS", ["task.>"], follow=True))
    await until(lambda: len(read.deliveries) == 5)
    await connection.jetstream("$JS.API.STREAM.DELETE.TASKS", b"")
    await make_stream(connection)
    # It may look between the two, and find none.
    with pytest.raises(ConfigurationError, match=r"created again|does not exist"):
        await asyncio.wait_for(read.task, 30.0)
