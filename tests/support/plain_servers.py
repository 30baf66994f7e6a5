"""Plain nats-servers for tests of JetStream alone: no TLS, no users, one account; alone, or three as a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx2
import nats
from nats.aio.client import Client
from nats.errors import Error
from support.nats_server import find_nats_server
from support.ports import held_port

__all__ = ["PlainServer", "connected", "plain_client", "plain_server", "plain_servers", "replicated_assets"]

READY_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainServer:
    """A running server."""

    name: str
    port: int
    monitor: str
    """The address of its monitoring."""
    process: asyncio.subprocess.Process


@asynccontextmanager
async def plain_client(
    folder: Path, *, servers: int = 1, limits: Mapping[str, int] = MappingProxyType({})
) -> AsyncIterator[Client]:
    """Run so many servers with their stores below `folder`, and yield a client of the first once JetStream answers.

    `limits` are those of JetStream on each server.
    """
    async with plain_servers(folder, servers, jetstream={"limits": dict(limits)}) as (client, _):
        yield client


@asynccontextmanager
async def plain_servers(
    folder: Path, servers: int, *, jetstream: Mapping[str, object]
) -> AsyncIterator[tuple[Client, tuple[PlainServer, ...]]]:
    """Run so many servers with their stores below `folder` and these settings of JetStream; yield a client of the first."""
    ports = [(held_port(), held_port(), held_port()) for _ in range(servers)]
    running: list[PlainServer] = []
    async with AsyncExitStack() as stack:
        for number, (port, route, monitor) in enumerate(ports, 1):
            document = {
                "listen": f"127.0.0.1:{port}",
                "http": f"127.0.0.1:{monitor}",
                "server_name": f"n{number}",
                "jetstream": {"store_dir": str(folder / f"n{number}"), "max_file_store": 8 << 30, **jetstream},
            }
            if servers > 1:
                routes = [f"nats-route://127.0.0.1:{other}" for _, other, _ in ports]
                document["cluster"] = {"name": "plain", "listen": f"127.0.0.1:{route}", "routes": routes}
            running.append(await stack.enter_async_context(plain_server(folder, document, port=port, monitor=monitor)))
        async with asyncio.timeout(READY_SECONDS):
            client = await connected(ports[0][0])
            stack.push_async_callback(client.close)
            while not await _answers(client):  # noqa: ASYNC110  the server has no event for it
                await asyncio.sleep(0.1)
        yield client, tuple(running)


@asynccontextmanager
async def plain_server(
    folder: Path, document: Mapping[str, object], *, port: int, monitor: int
) -> AsyncIterator[PlainServer]:
    """Run a server with the configuration `document`, without waiting until it listens."""
    name = str(document["server_name"])
    config = folder / f"{name}.conf"
    config.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        find_nats_server(), "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield PlainServer(name=name, port=port, monitor=f"http://127.0.0.1:{monitor}", process=process)
    finally:
        await _end(process)


async def replicated_assets(server: PlainServer) -> int:
    """Return how many replicated streams and consumers a server has, as it says."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        found: int = (await http.get(f"{server.monitor}/jsz", timeout=READY_SECONDS)).json()["ha_assets"]
    return found


async def connected(port: int, user: str | None = None) -> Client:
    """Connect, once something listens, as `user`, whose password is the same."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            address = f"nats://127.0.0.1:{port}"
            return await nats.connect(address, allow_reconnect=False, user=user, password=user)
        await asyncio.sleep(0.05)


async def _answers(client: Client) -> bool:
    """Return whether JetStream answers; in a cluster it does once there is a leader."""
    try:
        answer = await client.request("$JS.API.INFO", b"", timeout=5.0)
    except Error:
        return False
    return "error" not in json.loads(answer.data)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
