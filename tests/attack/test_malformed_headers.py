"""Whatever header block or subject a peer sends: it costs its own message at most, never a listener or a consumer.

A raw client sends what nats-py's read loop ends at (a stored one would be a poison pill), statuses that only the server
may send, and subjects that a parser of white space takes apart. Each arrives as a delivery with its raw header block,
for the gate to refuse, and the next message arrives as well.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from support.lab import Lab, agent_id, make_stream, running, until
from support.nats_server import User
from support.raw_nats import RawNats

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery

pytestmark = pytest.mark.nats

BLOCKS = [
    b"\r\n\r\n",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0 \xff\xff\r\n\r\n",
    b"NATS/1.0 \xff\xff",
    b"NATS/1.0 1",
    b"NATS/1.0 ",
    b"NATS/1.0\r\n\r\n",
    b"N",
    b"\x00",
    b" ",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"NATS/1.0\r\nNats-Msg-Id\r\n\r\n",
    b"NATS/1.0\r\n: empty\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    b"NATS/1.0\r\na: 1\r\n folded\r\n\r\n",
    b"NATS/1.0\na: 1\n\n",
    b"NATS/1.0\r\na: \r b\r\n\r\n",
    b"NATS/1.0\r\nX: " + b"x" * 60_000 + b"\r\n\r\n",
    b"\r\nMSG call.a.run 1 5\r\nhello\r\n",
]
STATUSES = [
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 100 FlowControl Request\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 408 Request Timeout\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
]
TAILS = [
    b"\x0c7",
    b"\x0b1 1",
    b"\x0c1\x0c5",
    b"\xff\xfe",
    b"\x00",
    b"a\rb",
    b"\xc2\xa0",
    b"\x1c1",
    b"\x851",
    b"..",
    b"*",
    b">",
]
"""Last tokens of subjects: the server takes all but the one with a space for a subject."""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", "a", User(id=agent_id("evil"))) as started:
        yield started


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection("a") as entered:
        await make_stream(entered)
        yield entered


@pytest.fixture
async def peer(lab: Lab, tmp_path: Path) -> AsyncIterator[RawNats]:
    async with RawNats(lab.server.port, lab.ca, lab.ca.issue(agent_id("evil")), tmp_path) as entered:
        yield entered


async def collect(batches: AsyncIterator[Sequence[Delivery]], into: list[Delivery], last: bytes) -> None:
    async for batch in batches:
        into += batch
        if batch[-1].payload == last:
            return


async def listening(connection: Connection) -> tuple[asyncio.Task[None], list[Delivery]]:
    """Listen to everything under `call.a.` until the payload `end`, with the subscription live."""
    heard: list[Delivery] = []
    task = asyncio.create_task(collect(NatsTransport(connection).listen("call.a.>"), heard, b"end"))
    await until(lambda: bool(connection._attachments) and not connection._moving.locked())
    return task, heard


def send_raw(peer: RawNats, subject: bytes, payload: bytes) -> None:
    peer._writer.write(b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload))


async def test_a_listener_hears_every_block_and_what_comes_after(connection: Connection, peer: RawNats) -> None:
    link = connection.link
    task, heard = await listening(connection)
    for block in (*BLOCKS, *STATUSES):
        peer.publish("call.a.run", b"body", block=block)
        peer.publish("call.a.run", b"", block=block)
    peer.publish("call.a.run", b"end")
    assert await peer.settle() == []
    async with asyncio.timeout(60):
        await task
    sent = [block for block in (*BLOCKS, *STATUSES) for _ in range(2)]
    assert [delivery.header_block for delivery in heard] == [*sent, b""]
    assert [delivery.payload for delivery in heard[:-1]] == [b"body", b""] * (len(sent) // 2)
    assert connection.link is link


async def test_a_consumer_gets_every_stored_block_and_what_comes_after(connection: Connection, peer: RawNats) -> None:
    link = connection.link
    blocks = (*BLOCKS, *STATUSES)
    for block in blocks:
        peer.publish("task.a.run", b"body", block=block)
        peer.publish("task.a.run", b"", block=block)
    peer.publish("task.a.run", b"end")
    assert await peer.settle() == []
    transport = NatsTransport(connection)
    pull = transport.pull("TASKS", "a", ["task.a.>"], batch=4, ack_wait=30.0, max_ack_pending=100)
    pulled: list[Delivery] = []
    async with asyncio.timeout(60):
        async for batch in pull.batches():
            pulled += batch
            for delivery in batch:
                pull.term(delivery)
            if pulled[-1].payload == b"end":
                break
        read = [delivery async for batch in transport.read("TASKS", ["task.>"]) for delivery in batch]
    # A block that is a status and nothing else is taken away when the server stores it.
    sent = [b"" if _is_status(block) else block for block in blocks for _ in range(2)]
    for deliveries in (pulled, read):
        assert [delivery.header_block for delivery in deliveries] == [*sent, b""]
        assert [one.arrival.sequence for one in deliveries if one.arrival] == list(range(1, len(sent) + 2))
    assert connection.link is link


def _is_status(block: bytes) -> bool:
    return block.startswith(b"NATS/1.0 ") and block.endswith(b"\r\n\r\n")


async def test_random_blocks(connection: Connection, peer: RawNats) -> None:
    chance = random.Random(20_261_124)  # noqa: S311 - the same each time
    task, heard = await listening(connection)
    sent = []
    for _ in range(2_000):
        start = chance.choice([b"", b"NATS/1.0", b"NATS/1.0 ", b"NATS/1.0\r\n", b"NATS/1.0 4"])
        block = start + bytes(chance.choice(b"\r\n :4\xffaN/\x00") for _ in range(chance.randrange(1, 12)))
        sent.append(block)
        peer.publish("call.a.run", b"x", block=block)
    peer.publish("call.a.run", b"end")
    assert await peer.settle() == []
    async with asyncio.timeout(60):
        await task
    assert [delivery.header_block for delivery in heard] == [*sent, b""]


@pytest.mark.parametrize("tail", TAILS)
async def test_a_subject_reaches_only_whom_it_is_for(connection: Connection, peer: RawNats, tail: bytes) -> None:
    """nats-py reads a form feed as a space: a peer chooses the subscription that its message is given to."""
    link = connection.link
    task, heard = await listening(connection)
    elsewhere: list[bytes] = []
    for _ in range(8):
        link.subscribe("nothing.here", lambda subject, *_: elsewhere.append(subject))
    send_raw(peer, b"call.a." + tail, b"strange")
    peer.publish("call.a.run", b"end")
    await peer.settle()
    async with asyncio.timeout(60):
        await task
    assert [delivery.payload for delivery in heard] in ([b"strange", b"end"], [b"end"])
    assert elsewhere == []
    assert connection.link is link


async def test_a_stored_subject_is_no_poison_pill(connection: Connection, peer: RawNats) -> None:
    for tail in TAILS:
        send_raw(peer, b"task.a." + tail, b"strange")
    peer.publish("task.a.run", b"end")
    await peer.settle()
    pull = NatsTransport(connection).pull("TASKS", "a", ["task.>"], batch=50, ack_wait=30.0, max_ack_pending=100)
    pulled: list[Delivery] = []
    async with asyncio.timeout(60):
        await collect(pull.batches(), pulled, b"end")
    assert len(pulled) > 5
    assert all(delivery.subject.isascii() for delivery in pulled)
    assert connection.counters.value("sealbus_bus_reconnects_total") == 0


async def test_subscriptions_of_nats_py_itself_survive(connection: Connection, peer: RawNats) -> None:
    """nats-py drops what it cannot parse, where its own read loop would have ended; the drop is counted."""
    link = connection.link
    heard: list[bytes] = []

    async def take(message: Msg) -> None:
        heard.append(message.data)

    await link._client.subscribe("plain.>", cb=take)
    await link._client.flush()
    await link.flush(60.0)
    for block in BLOCKS:
        peer.publish("plain.a", b"body", block=block)
    peer.publish("plain.a", b"end")
    await peer.settle()
    await until(lambda: heard[-1:] == [b"end"])
    assert connection.counters.value("sealbus_bus_dropped_total") >= 3
    assert connection.link is link


async def test_a_sink_that_fails_costs_one_message(connection: Connection, peer: RawNats) -> None:
    heard: list[bytes] = []

    def sink(subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        del subject, reply, block
        heard.append(payload)
        if payload == b"0":
            raise ZeroDivisionError

    connection.link.subscribe("plain.>", sink)
    await connection.link.flush(60.0)
    for number in range(3):
        peer.publish("plain.a", b"%d" % number)
    await peer.settle()
    await until(lambda: heard == [b"0", b"1", b"2"])
    assert connection.counters.value("sealbus_bus_dropped_total", reason="ZeroDivisionError") == 1
