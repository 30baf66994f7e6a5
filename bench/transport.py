"""Publishing and pulling 1 KiB over mTLS: the bus against nats-py's own calls, in turn, in the same run."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import nats
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from bench.report import Figure
from bench.rounds import Rounds
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["figures"]

ROUNDS = 5
MESSAGES = 20_000
PAIRS = {"publish": "nats-py publish", "pull": "nats-py fetch", "read": "nats-py fetch"}
GUARDS = {"publish": 2.5, "pull": 2.5, "read": 3.5}
PAYLOAD = b"x" * 1024
OWN_ID = "spiffe://example.org/agent/bench"
SUBJECT = "task.bench.run"


async def figures() -> AsyncIterator[Figure]:
    """Start a server in a temporary folder, and do every way in turn."""
    ca = ThrowawayCa("example.org")
    identity = StaticIdentity(ca, OWN_ID)
    with tempfile.TemporaryDirectory() as folder:
        async with NatsServer(Path(folder), ca, [User(id=OWN_ID)]) as server:
            rounds = Rounds(server.pid)
            expected = frozenset({SpiffeId(server.spiffe_id)})
            plain = await nats.connect(
                server.url, tls=client_context(identity.x509(), expected=expected), tls_handshake_first=True
            )
            try:
                async with Connection(
                    [server.url], identity=identity, server_ids=expected, inbox_prefix="_INBOX.bench."
                ) as connection:
                    for number in range(ROUNDS):
                        await _round(rounds, number, connection, plain.jetstream())
            finally:
                await plain.close()
    for name, base in PAIRS.items():
        yield rounds.ratio(f"{name}, 1 KiB / {base}", name, base, guard=GUARDS[name])
    for name in (*PAIRS, *dict.fromkeys(PAIRS.values())):
        yield rounds.rate(name)


async def _round(rounds: Rounds, number: int, connection: Connection, plain: JetStreamContext) -> None:
    transport = NatsTransport(connection)
    await api(connection.jetstream, "STREAM.CREATE.TASKS", {"name": "TASKS", "subjects": ["task.>"], "storage": "file"})
    for name, run in {
        "nats-py publish": lambda: _plain_publish(plain),
        "publish": lambda: _publish(transport),
        "nats-py fetch": lambda: _plain_pull(plain, f"plain-{number}"),
        "pull": lambda: _pull(transport, f"fast-{number}"),
        "read": lambda: _read(transport),
    }.items():
        with rounds.measured(name, MESSAGES):
            await run()
    await api(connection.jetstream, "STREAM.DELETE.TASKS")


async def _publish(transport: NatsTransport) -> None:
    """Publish as the outbox does: 256 messages per batch and 8 batches in flight."""
    room = asyncio.Semaphore(8)

    async def one(messages: Sequence[Outgoing]) -> None:
        async with room:
            answers = await transport.publish(messages, deadline=30.0)
            assert all(isinstance(answer, PubAck) for answer in answers)

    messages = [Outgoing(subject=SUBJECT, payload=PAYLOAD, message_id=secrets.token_hex(16)) for _ in range(MESSAGES)]
    async with asyncio.TaskGroup() as group:
        for start in range(0, MESSAGES, 256):
            group.create_task(one(messages[start : start + 256]))


async def _plain_publish(plain: JetStreamContext) -> None:
    """Publish with nats-py's `publish`, 256 in flight."""
    room = asyncio.Semaphore(256)

    async def one() -> None:
        async with room:
            await plain.publish(SUBJECT, PAYLOAD, timeout=30, headers={"Nats-Msg-Id": secrets.token_hex(16)})

    async with asyncio.TaskGroup() as group:
        for _ in range(MESSAGES):
            group.create_task(one())


async def _pull(transport: NatsTransport, name: str) -> None:
    pull = transport.pull("TASKS", name, ["task.bench.>"], batch=300, ack_wait=30.0, max_ack_pending=8192)
    seen = 0
    async for batch in pull.batches():
        seen += len(batch)
        pull.ack(batch)
        if seen >= MESSAGES:
            return


async def _plain_pull(plain: JetStreamContext, name: str) -> None:
    """Pull with nats-py's `fetch(200)`, and `ack` each message."""
    config = ConsumerConfig(max_ack_pending=8192)
    subscription = await plain.pull_subscribe("task.bench.>", durable=name, stream="TASKS", config=config)
    seen = 0
    while seen < MESSAGES:
        for message in await subscription.fetch(200, timeout=5):
            await message.ack()
            seen += 1
    await subscription.unsubscribe()


async def _read(transport: NatsTransport) -> None:
    seen = 0
    async for batch in transport.read("TASKS", ["task.>"]):
        seen += len(batch)
        if seen >= MESSAGES:
            return
