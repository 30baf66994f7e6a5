"""A real server and connections to it, in a few words: what the tests of the bus on NATS start from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.ports import Outgoing
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["QUICK", "TRUST_DOMAIN", "Lab", "agent_id", "make_stream", "outgoing", "running", "until"]

TRUST_DOMAIN = "example.org"

QUICK = ConnectionOptions(
    connect=30.0,
    admission=30.0,
    ping=5.0,
    backoff=Backoff(initial_interval=0.02, maximum_interval=0.2, jitter=0.5),
    overlap=0.02,
    settle=8.0,
    jitter=0.0,
    margin=0.5,
)
"""Waits short enough for a test; otherwise the ordinary behavior."""


def agent_id(name: str) -> str:
    """Return the SPIFFE ID of an agent of the test's trust domain."""
    return f"spiffe://{TRUST_DOMAIN}/agent/{name}"


class Lab:
    """A server, and what connects to it."""

    def __init__(self, ca: ThrowawayCa, server: NatsServer) -> None:
        self.ca = ca
        self.server = server

    def identity(self, name: str, *, life: float = 3600.0) -> StaticIdentity:
        return StaticIdentity(self.ca, agent_id(name), life=life)

    def connection(
        self,
        name: str = "a",
        *,
        identity: StaticIdentity | None = None,
        server_id: str = "",
        url: str = "",
        counters: Counters | None = None,
        **options: object,
    ) -> Connection:
        """Return a connection of agent `name` to enter; `options` replace those of `QUICK`."""
        return Connection(
            [url or self.server.url],
            identity=identity or self.identity(name),
            server_ids=frozenset({SpiffeId.parse(server_id or self.server.spiffe_id)}),
            inbox_prefix=f"_INBOX.{name}.",
            options=replace(QUICK, **options),  # type: ignore[arg-type]  # whichever they are
            counters=counters,
        )


@asynccontextmanager
async def running(folder: Path, *agents: str | User, **server: object) -> AsyncIterator[Lab]:
    """Start a server whose users are `agents`, by name with all rights or as `User`; `server` goes to `NatsServer`."""
    ca = ThrowawayCa(TRUST_DOMAIN)
    users = [one if isinstance(one, User) else User(id=agent_id(one)) for one in (agents or ("a",))]
    async with NatsServer(folder, ca, users, **server) as started:  # type: ignore[arg-type]  # checked there
        yield Lab(ca, started)


async def make_stream(connection: Connection, name: str = "TASKS", *subjects: str, **config: object) -> None:
    """Create a stream on disk."""
    await api(
        connection.jetstream,
        f"STREAM.CREATE.{name}",
        {"name": name, "subjects": list(subjects or ("task.>",)), "storage": "file", **config},
    )


def outgoing(number: int, subject: str = "task.a.run", *, size: int = 0) -> Outgoing:
    """Return a message whose id is `number` in hex, whose payload starts with it in decimal."""
    return Outgoing(subject=subject, payload=b"%d" % number + b" " * size, message_id=f"{number:032x}")


async def until(holds: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait until `holds()`, for what has no event to wait for."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.005)
