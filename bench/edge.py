"""What the edge adds to a call: HTTP, the token's verification, a fresh user context and what that costs its consumer.

The same call is made in turn over HTTP and from the edge's own node with a context that was minted before, on the same
server in the same process; the difference of the medians is the edge's. It includes the HTTP client of the measurement.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.edge import edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.real_bus import real_bus

from bench.report import Figure
from sealbus import Client
from sealbus.agents.demo.shop import Item, Quote, inventory
from sealbus.agents.edge.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.server import serve_edge
from sealbus.agents.worker import Worker
from sealbus.envelopes.wire import Statement
from sealbus.policies.embedded import EmbeddedEngine

__all__ = ["figures"]

CALLS = 600
WARM = 50
ADDED_GOAL = 1.5
BODY = b'{"item_id":"42"}'


async def figures() -> AsyncIterator[Figure]:
    """Measure a lone call both ways in turn, then how many requests a second one edge takes with 32 in flight."""
    limits = replace(DEFAULT_EDGE_LIMITS, user_rate=1e6, user_burst=10**6, address_rate=1e6, address_burst=10**6)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "inventory", "edge") as bus,
            LoopbackIssuer() as issuer,
            AsyncExitStack() as s,
        ):
            engine = await s.enter_async_context(EmbeddedEngine.of_folder())
            worker = await s.enter_async_context(Worker(inventory, await bus.node("inventory", engine)))
            node = await bus.node("edge", engine)
            edge = await s.enter_async_context(
                serve_edge(edge_table(issuer), node, limits=limits, issuer_tls=TRUSTS_NOBODY)
            )
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                await worker.ready.wait()
                user = bus.user("alice", "edge")
                request = _request(issuer.token(sub="alice", life=3_600))
                direct, over_http = await _in_turn(Client.on(node), user, edge.port, request)
                rate = await _rate(edge.port, request)
                stop.set()
    yield Figure(name="a call from the edge's node, p50", value=direct, unit="ms")
    yield Figure(name="the same call over HTTP with a token, p50", value=over_http, unit="ms")
    yield Figure(name="  added by the edge", value=over_http - direct, unit="ms", limit=ADDED_GOAL)
    yield Figure(name="calls over HTTP, 32 in flight, all in one process", value=rate, unit="/s")


async def _in_turn(client: Client, user: Statement, port: int, request: bytes) -> tuple[float, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    direct, over_http = [], []
    for _ in range(CALLS + WARM):
        started = time.perf_counter()
        await client.call("inventory.read", Quote(item_id="42"), returns=Item, user=user)
        between = time.perf_counter()
        await _ask(reader, writer, request)
        direct.append(between - started)
        over_http.append(time.perf_counter() - between)
    writer.close()
    return statistics.median(direct[WARM:]) * 1e3, statistics.median(over_http[WARM:]) * 1e3


async def _rate(port: int, request: bytes) -> float:
    async def lane() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(CALLS // 8):
            await _ask(reader, writer, request)
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(lane())
    return 32 * (CALLS // 8) / (time.perf_counter() - started)


def _request(token: str) -> bytes:
    head = (
        "POST /v1/calls/inventory/read HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(head.partition(b"\r\n")[0].decode())
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
