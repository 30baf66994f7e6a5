"""What an MCP tool costs at the edge, beside the package `mcp` that answers by itself.

Both get the same requests of the newer protocol, in turn, from this process. Ours verifies the token and the arguments,
mints a user context, sends the call over a real NATS to an agent in a process of its own, which decides and records it, and
checks the answer; the other returns a constant.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Route

from bench.edge import BODY, TOKENS, inventory, rate_of
from bench.report import Figure
from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.dev.users import dev_token
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.schema import McpTable
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.bus.telemetry import Counters

__all__ = ["figures"]

SHARE_GUARD, SHARE_GOAL = 0.45, 0.5
ROUNDS = 5
CALLS = 12
IN_FLIGHT = 32
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def figures() -> AsyncIterator[Figure]:
    """Measure both in turn."""
    limits = replace(
        DEFAULT_EDGE_LIMITS,
        **{f"{name}_rate": 1e6 for name in ("user", "client", "address")},
        **{f"{name}_burst": 10**6 for name in ("user", "client", "address")},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema, key = folder / "inventory.json", folder / "state.key"
        schema.write_text(AgentSchema.of(inventory).text())
        write_key(key)
        options = DevOptions(folder=folder / "dev", agents=("inventory",), port=0, notary=False)
        async with open_environment(options) as running, AsyncExitStack() as s:
            table = running.settings.edge.model_copy(
                update={
                    "address": "127.0.0.1:0",
                    "token_service": None,
                    "schemas": (schema,),
                    "mcp": McpTable(actions=("inventory.read",), state_keys=(key,)),
                }
            )
            node = await s.enter_async_context(open_node("edge", running.settings))
            edge = await s.enter_async_context(serve_edge(table, node, limits=limits))
            alone = await _alone(s)
            await s.enter_async_context(_worker(running.settings_file))
            tokens = [await asyncio.to_thread(dev_token, running.settings, "alice") for _ in range(TOKENS)]
            requests = itertools.cycle([_request(token) for token in tokens])
            await _rate(edge.port, requests)
            plain = itertools.cycle([_plain(token) for token in tokens])
            rounds = [
                (await _rate(edge.port, requests), await _rate(alone, requests), await rate_of(edge.port, plain))
                for _ in range(ROUNDS)
            ]
    median = statistics.median
    yield Figure.of(
        [a / c for a, _, c in rounds],
        name="MCP tool calls, decided and recorded / the same calls at /v1",
        unit="x",
        guard=SHARE_GUARD,
        goal=SHARE_GOAL,
        at_least=True,
        beside=f"{median(c for _, _, c in rounds):.0f} /s",
    )
    yield Figure.of(
        [a / b for a, b, _ in rounds],
        name="  / the package's own with a lean handler",
        unit="x",
        goal=SHARE_GOAL,
        at_least=True,
        beside=f"{median(b for _, b, _ in rounds):.0f} /s",
    )
    yield Figure.of([a for a, _, _ in rounds], name="  MCP tool calls", unit="/s")


@asynccontextmanager
async def _worker(settings: Path) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "sealbus",
            "worker",
            "run",
            "bench.edge:inventory",
            "--config",
            str(settings),
            "--json",
        ),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if child.stdout is None or not json.loads(await child.stdout.readline()):
            raise RuntimeError("the worker did not start")
        yield
    finally:
        child.terminate()
        await child.communicate()


async def _alone(stack: AsyncExitStack) -> int:
    async def call(
        context: ServerRequestContext[object, object], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        del context, params
        return types.CallToolResult(content=[types.TextContent(text="{}")], structured_content={})

    server: Server[object] = Server("lean", on_call_tool=call, get_tool_input_schema=lambda _: {"type": "object"})
    manager = StreamableHTTPSessionManager(app=server, json_response=False)
    await stack.enter_async_context(manager.run())
    return await stack.enter_async_context(
        listening(
            Starlette(routes=[Route("/mcp", StreamableHTTPASGIApp(manager))]),
            "127.0.0.1:0",
            setting="bench",
            limits=ConnectionLimits(),
            counters=Counters(),
        )
    )


async def _rate(port: int, requests: Iterator[bytes]) -> float:
    async def lane() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(CALLS):
            writer.write(next(requests))
            head = await reader.readuntil(b"\r\n\r\n")
            _, _, length = head.lower().partition(b"\r\ncontent-length:")
            body = await reader.readexactly(int(length.partition(b"\r\n")[0]))
            if not head.startswith(b"HTTP/1.1 200 ") or b'"structuredContent"' not in body:
                raise RuntimeError(head.partition(b"\r\n")[0].decode())
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(lane())
    return IN_FLIGHT * CALLS / (time.perf_counter() - started)


def _plain(token: str) -> bytes:
    head = (
        "POST /v1/calls/inventory/read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


def _request(token: str) -> bytes:
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "inventory_read", "arguments": {"item_id": "42"}, "_meta": META},
    }
    body = json.dumps(message).encode()
    head = (
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\nMcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
        f"Mcp-Name: inventory_read\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
