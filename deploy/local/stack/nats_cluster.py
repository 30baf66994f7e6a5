"""Three nats-servers that are one cluster, each with its own writer of its SVID."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.identity_writer import IdentityWriter
from stack.nats_server import NatsServer, Route

__all__ = ["ServerPorts", "open_cluster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Where one server listens, on loopback: for clients, for the other servers, and for who asks about its health."""

    client: int
    route: int
    monitor: int


@asynccontextmanager
async def open_cluster(
    folder: Path,
    ports: Sequence[ServerPorts],
    *,
    address: str,
    server_id: SpiffeId,
    access: str,
    callout_health: Sequence[str] = (),
    uid: int | None = None,
) -> AsyncGenerator[tuple[NatsServer, ...], None]:
    """Start a server for each of `ports` in `folder`, together, and stop them afterwards.

    The Workload API at `address` must know `server_id` with the DNS name localhost. They are ready once they have a
    leader for JetStream. `access` is every server's, as `NatsServer` takes it.
    """
    routes = tuple(one.route for one in ports)
    async with AsyncExitStack() as stack:
        servers: list[NatsServer] = []
        for number, one in enumerate(ports, 1):
            server = NatsServer(
                folder / f"n{number}",
                svid=folder / f"n{number}-svid",
                port=one.client,
                monitor=one.monitor,
                access=access,
                name=f"n{number}",
                parts=(Route(port=one.route, ports=routes, server_id=server_id),),
                uid=uid,
            )
            await stack.enter_async_context(
                IdentityWriter(
                    folder / f"n{number}-svid",
                    address=address,
                    spiffe_id=server_id,
                    pid_file=server.pid_file,
                    callout_health=callout_health,
                    uid=uid,
                )
            )
            # Before it is started: one of them may fail while the others are on their way.
            stack.push_async_callback(server.program.stop)
            servers.append(server)
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.__aenter__())
        yield tuple(servers)
