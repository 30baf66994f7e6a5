"""Publishing and pulling 1 KiB over mTLS: the bus against nats-py's own calls, in turn, in the same run.

`python bench/transport.py` prints each figure and its ratio to nats-py's. Rates depend on the machine and its other
load; ratios of rounds that take turns depend on them much less.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Figures", "measure"]

MESSAGES = 20_000
PAYLOAD = b"x" * 1024
OWN_ID = "spiffe://example.org/agent/bench"
SUBJECT = "task.bench.run"


@dataclass(slots=True)
class Figures:
    """Messages per second by name, one entry per round."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median over the rounds, messages per second."""
        return statistics.median(self.rates[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median over the rounds of `name` divided by `base`."""
        return statistics.median(one / other for one, other in zip(self.rates[name], self.rates[base], strict=True))

    async def add(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run once, and store the rate."""
        start = time.perf_counter()
        await run()
        self.rates.setdefault(name, []).append(MESSAGES / (time.perf_counter() - start))


async def measure(rounds: int = 5) -> Figures:
    """Start a server in a temporary folder, run every way `rounds` times in turn, and return the figures."""
    ca = ThrowawayCa("example.org")
    identity = StaticIdentity(ca, OWN_ID)
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        async with NatsServer(Path(folder), ca, [User(id=OWN_ID)]) as server:
            expected = frozenset({SpiffeId(server.spiffe_id)})
            plain = await nats.connect(
                server.url, tls=client_context(identity.x509(), expected=expected), tls_handshake_first=True
            )
            try:
                async with Connection(
                    [server.url], identity=identity, server_ids=expected, inbox_prefix="_INBOX.bench."
                ) as connection:
                    await _rounds(rounds, figures, connection, plain.jetstream())
            finally:
                await plain.close()
    return figures


async def _rounds(rounds: int, figures: Figures, connection: Connection, plain: JetStreamContext) -> None:
    transport = NatsTransport(connection)
    for number in range(rounds):
        await api(
            connection.jetstream, "STREAM.CREATE.TASKS", {"name": "TASKS", "subjects": ["task.>"], "storage": "file"}
        )
        await figures.add("nats-py publish", lambda: _plain_publish(plain))
        await figures.add("publish", lambda: _publish(transport))
        # The default argument binds the round's number; mypy cannot infer the type of a lambda that has one.
        await figures.add("nats-py fetch", lambda number=number: _plain_pull(plain, f"plain-{number}"))  # type: ignore[misc]
        await figures.add("pull", lambda number=number: _pull(transport, f"fast-{number}"))  # type: ignore[misc]
        await figures.add("read", lambda: _read(transport))
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


def main() -> None:
    """Print the figures."""
    figures = asyncio.run(measure())
    print(f"{'1 KiB, mTLS':24} {'msg/s':>8} {'x nats-py':>10}")
    for name, base in (("publish", "nats-py publish"), ("pull", "nats-py fetch"), ("read", "nats-py fetch")):
        print(f"{base:24} {figures.median(base):8.0f}")
        print(f"{name:24} {figures.median(name):8.0f} {figures.ratio(name, base):10.2f}")


if __name__ == "__main__":
    main()
