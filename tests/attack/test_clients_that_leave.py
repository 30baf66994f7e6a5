"""Thousands of clients that ask and are gone, at whatever moment: nothing of them stays, and who stays is served."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp_types.version import LATEST_MODERN_VERSION
from support.a2a import Lines, site
from support.edge import Door
from support.mcp_desk import Workshop, mcp_desk

from sealbus.agents.edge.http.protocol import ConnectionLimits

pytestmark = [pytest.mark.slow]

CLIENTS = 1_000
AT_A_TIME = 50
PATIENCE = 0.5
FEW = 60
"""What may have changed otherwise: caches fill, and pools of threads and connections grow to their size."""
LIMITS = {f"{name}_{kind}": 10**6 for name in ("user", "client", "address") for kind in ("rate", "burst")}
CONNECTIONS = ConnectionLimits(connections=2_000, connections_of_address=2_000, connections_of_network=2_000)
META = {
    "io.modelcontextprotocol/protocolVersion": LATEST_MODERN_VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def tool(name: str) -> dict[str, Any]:
    return {"method": "tools/call", "params": {"name": name, "arguments": {"item": "saw"}, "_meta": META}}


def message(method: str, skill: str) -> dict[str, Any]:
    said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {"value": 3}}], "metadata": {"skillId": skill}}
    return {"method": method, "params": {"message": said}}


@asynccontextmanager
async def by_mcp(folder: Path) -> AsyncIterator[tuple[Door, Callable[[], None]]]:
    workshop = Workshop()
    async with mcp_desk(folder, workshop.agent, limits=LIMITS, connections=CONNECTIONS) as desk:
        yield desk.door, workshop.go.set


@asynccontextmanager
async def by_a2a(folder: Path) -> AsyncIterator[tuple[Door, Callable[[], None]]]:
    lines = Lines()
    limits = {**LIMITS, "event_streams": 2_000, "event_streams_of_user": 2_000}
    async with site(folder, lines.agent, limits=limits, connections=CONNECTIONS) as running:
        yield running.door, lines.go_on.set


async def left(port: int, request: bytes, moment: int) -> bytes:
    """Send a request and cut the connection: in its body, after it, or once the answer has begun; return its beginning."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request[:-10] if moment == 0 else request)
        await writer.drain()
        if moment == 2:
            # What hangs is not answered at all.
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    return await reader.read(4_096)
        return b""
    finally:
        writer.transport.abort()


async def leave(port: int, requests: list[bytes], clients: int) -> None:
    for start in range(0, clients, AT_A_TIME):
        numbers = range(start, start + AT_A_TIME)
        await asyncio.gather(*(left(port, requests[one % len(requests)], one // len(requests) % 3) for one in numbers))


def kept() -> int:
    """Return how many objects of the edge and of the protocols' packages there are."""
    gc.collect()
    own = ("sealbus.agents.edge", "mcp.", "a2a.", "uvicorn.", "starlette.", "sse_starlette.", "h11.")
    return sum(str(type(one).__module__).startswith(own) for one in gc.get_objects())


async def settled(there: Callable[[], int], most: int) -> None:
    """Wait until there is no more than that."""
    async with asyncio.timeout(120):
        while there() > most:  # noqa: ASYNC110  the loop's own tasks: there is no event to wait for
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("opened", "path", "headers", "asked"),
    [
        (
            by_mcp,
            "/mcp",
            {"mcp-protocol-version": LATEST_MODERN_VERSION, "mcp-method": "tools/call"},
            [tool("workshop_hang"), tool("workshop_make"), tool("workshop_price")],
        ),
        (
            by_a2a,
            "/a2a/writer/rpc",
            {"a2a-version": "1.0"},
            [message("SendStreamingMessage", "writer.write"), message("SendMessage", "writer.hang")],
        ),
    ],
    ids=["mcp", "a2a"],
)
async def test_nothing_of_them_stays(
    tmp_path: Path,
    opened: Callable[[Path], Any],
    path: str,
    headers: dict[str, str],
    asked: list[dict[str, Any]],
) -> None:
    async with opened(tmp_path) as (door, go_on):
        fields = {
            "host": "edge",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **door.authorized(),
            **headers,
        }
        requests = []
        for one in asked:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, **one}).encode()
            named = {"mcp-name": one["params"]["name"]} if "name" in one["params"] else {}
            head = {**fields, **named, "content-length": len(body)}.items()
            lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head), "", ""]
            requests.append("\r\n".join(lines).encode() + body)
        for request in requests:
            assert b'"error"' not in await left(door.edge.port, request, 2)
        await leave(door.edge.port, requests, AT_A_TIME * 2)
        tasks, objects = len(asyncio.all_tasks()), kept()
        await leave(door.edge.port, requests, CLIENTS)
        await settled(lambda: len(asyncio.all_tasks()), tasks + FEW)
        await settled(kept, objects + FEW * 5)
        answer = await door.get("/.well-known/oauth-protected-resource")
        assert answer.status_code == 200
        go_on()
        await door.bus.idle(within=120)
