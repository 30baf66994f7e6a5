"""What it costs that the streams have an account of their own: the same work in one account and in two, in turn."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from bench.report import Figure
from bench.rounds import Rounds
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["figures"]

ROUNDS = 6
MESSAGES = 4_000
ONE_BY_ONE = 200
PAYLOAD = b"x" * 1_024
AGENT, OPERATOR = (f"spiffe://example.org/agent/{name}" for name in ("bench", "operator"))
GOALS = {"publish in batches": 0.9, "publish one by one": 0.9, "pull and acknowledge": 0.5, "read": 0.5}
ALWAYS = ", sync_interval: always"
"""As all configurations of ours have it."""


async def figures() -> AsyncIterator[Figure]:
    """Start a server of each kind in a temporary folder, and do the same at both in turn."""
    ca = ThrowawayCa("example.org")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = {}
        for name, apart in (("one account", False), ("two accounts", True)):
            users = [User(id=AGENT), User(id=OPERATOR, with_streams=apart)]
            places[name] = await stack.enter_async_context(NatsServer(folder / name, ca, users, jetstream=ALWAYS))
        rounds = Rounds()
        for number in range(ROUNDS):
            for name in sorted(places, reverse=number % 2 == 1):
                await _round(rounds, name, places[name], ca)
    for what, goal in GOALS.items():
        yield rounds.ratio(f"{what}: two accounts / one", f"{what}, two accounts", f"{what}, one account", goal=goal)
        for name in places:
            yield rounds.rate(f"{what}, {name}")


async def _round(rounds: Rounds, name: str, server: NatsServer, ca: ThrowawayCa) -> None:
    expected = frozenset({SpiffeId(server.spiffe_id)})
    async with AsyncExitStack() as stack:
        agent, operator = [
            await stack.enter_async_context(
                Connection(
                    [server.url],
                    identity=StaticIdentity(ca, one),
                    server_ids=expected,
                    inbox_prefix=f"_INBOX.{one[-5:]}.",
                )
            )
            for one in (AGENT, OPERATOR)
        ]
        stream = {"name": "TASKS", "subjects": ["task.>"], "storage": "file"}
        await api(operator.jetstream, "STREAM.CREATE.TASKS", stream)
        transport = NatsTransport(agent)
        with rounds.measured(f"publish in batches, {name}", MESSAGES, server=server.pid):
            for _ in range(0, MESSAGES, 250):
                await _publish(transport, 250)
        with rounds.measured(f"publish one by one, {name}", ONE_BY_ONE, server=server.pid):
            for _ in range(ONE_BY_ONE):
                await _publish(transport, 1)
        with rounds.measured(f"pull and acknowledge, {name}", MESSAGES, server=server.pid):
            await _pull(transport)
        with rounds.measured(f"read, {name}", MESSAGES, server=server.pid):
            seen = 0
            async for batch in transport.read("TASKS", ["task.>"]):
                seen += len(batch)
            assert seen == MESSAGES + ONE_BY_ONE
        await api(operator.jetstream, "STREAM.DELETE.TASKS")


async def _publish(transport: NatsTransport, count: int) -> None:
    messages = [
        Outgoing(subject="task.bench.run", payload=PAYLOAD, message_id=secrets.token_hex(16)) for _ in range(count)
    ]
    answers = await transport.publish(messages, deadline=30.0)
    assert all(isinstance(answer, PubAck) for answer in answers)


async def _pull(transport: NatsTransport) -> None:
    pull = transport.pull("TASKS", "bench", ["task.bench.>"], batch=256, ack_wait=30.0, max_ack_pending=8_192)
    seen = 0
    async for batch in pull.batches():
        seen += len(batch)
        pull.ack(batch)
        if seen >= MESSAGES:
            return
