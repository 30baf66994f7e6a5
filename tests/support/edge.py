"""An edge on a bus in memory, behind a real listener on loopback, with an issuer of its own.

::

    async with door(shop.inventory, engine=engine) as edge:
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from support.engines import ScriptedEngine
from support.issuer import AUDIENCE, TRUSTS_NOBODY, LoopbackIssuer

from sealbus import Agent
from sealbus.agents.edge.edge import RunningEdge, serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.runtime.settings.schema import EdgeTable, IssuerTable
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.testing import TestBus

__all__ = ["ACTIONS", "ENDS_SOON", "QUICK", "Door", "door", "edge_table", "raw"]

ACTIONS = ("inventory.*", "pricing.quote", "absent.work")
ENDS_SOON = ConnectionLimits(stop_seconds=1)
"""As usual, but for the end of a test, which waits a second for requests that are open."""
QUICK = replace(ENDS_SOON, head_seconds=0.2, unread_seconds=0.2, write_seconds=0.5)
"""For tests whose peers are slow on purpose; a busy machine makes the peers of others as slow."""
_WITHIN = 60.0


@dataclass(kw_only=True)
class Door:
    """What a test of the edge holds."""

    bus: TestBus
    edge: RunningEdge
    issuer: LoopbackIssuer
    http: httpx2.AsyncClient
    table: EdgeTable
    limits: EdgeLimits

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Door]:
        """Run a second process of the same edge, as far as settings and bus make it one."""
        node = self.edge.node
        async with (
            serve_edge(self.table, node, limits=self.limits, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            ) as http,
        ):
            yield replace(self, edge=edge, http=http)

    def authorized(self, **claims: Any) -> dict[str, str]:
        """Return the field with a good token, its claims changed as `LoopbackIssuer.token` does."""
        return {"Authorization": f"Bearer {self.issuer.token(**claims)}"}

    async def post(
        self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, **claims: Any
    ) -> httpx2.Response:
        """POST JSON with a good token, unless `headers` have another."""
        fields = {"Content-Type": "application/json", **self.authorized(**claims), **(headers or {})}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, headers=fields)

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None, **claims: Any) -> httpx2.Response:
        """GET with a good token."""
        return await self.http.get(path, headers={**self.authorized(**claims), **(headers or {})})

    def published(self) -> dict[str, int]:
        """Return how many messages each stream holds, without the refusals."""
        return {name: len(self.bus.stored(name)) for name in ("TASKS", "EVENTS", "RESULTS", "DEAD", "AUDIT", "STATE")}


def edge_table(issuer: LoopbackIssuer, *, row: Mapping[str, Any] | None = None, **changes: Any) -> EdgeTable:
    """Return the edge's settings for one issuer, whose `row` may say more."""
    said = {"issuer": issuer.issuer, "algorithms": ("ES256",), "claims": {"region": "region"}, **(row or {})}
    return EdgeTable(
        **{
            "address": "127.0.0.1:0",
            "resource": AUDIENCE,
            "actions": ACTIONS,
            "issuers": (IssuerTable(**said),),
            **changes,
        }
    )


def _bus(
    agents: Sequence[Agent],
    engine: ScriptedEngine | None,
    own: Sequence[OwnSubject],
    revocations: Callable[[], Revocations],
) -> TestBus:
    return TestBus(*agents, engine=engine or ScriptedEngine(), own=own, revocations=revocations)


@asynccontextmanager
async def door(
    *agents: Agent,
    engine: ScriptedEngine | None = None,
    connections: ConnectionLimits = ENDS_SOON,
    limits: Mapping[str, float] | None = None,
    actions: Sequence[str] = ACTIONS,
    own: Sequence[OwnSubject] = (),
    revocations: Callable[[], Revocations] = lambda: NONE_REVOKED,
    **changes: Any,
) -> AsyncIterator[Door]:
    """Run `agents` on a bus in memory with an edge in front; `limits` replace some of the edge's, `changes` its settings."""
    bounds: EdgeLimits = replace(DEFAULT_EDGE_LIMITS, **{"fetch_seconds": _WITHIN, **(limits or {})})  # type: ignore[arg-type]
    async with LoopbackIssuer() as issuer, _bus(agents, engine, own, revocations) as bus:
        node = (await bus.client("edge")).node
        table = edge_table(issuer, actions=tuple(actions), **changes)
        async with (
            serve_edge(table, node, limits=bounds, connections=connections, issuer_tls=TRUSTS_NOBODY) as edge,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            ) as http,
        ):
            yield Door(bus=bus, edge=edge, issuer=issuer, http=http, table=table, limits=bounds)


async def raw(port: int, *parts: bytes, pause: float = 0.0, end: bool = False) -> bytes:
    """Send `parts` as they are and return all that comes back until the other side closes or resets the connection.

    What came back is read while parts are sent: a reset, which a part may meet after the answer, loses none of it.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))

        async def send() -> None:
            with suppress(ConnectionResetError, BrokenPipeError):
                for part in parts:
                    await loop.sock_sendall(connection, part)
                    await asyncio.sleep(pause)
                if end:
                    connection.shutdown(socket.SHUT_WR)

        answer = bytearray()
        async with asyncio.timeout(_WITHIN), asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            with suppress(ConnectionResetError):
                while piece := await loop.sock_recv(connection, 65_536):
                    answer += piece
            sending.cancel()
        return bytes(answer)
