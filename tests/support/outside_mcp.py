"""An MCP server of somebody else's on loopback, made with the package `mcp`, whose tools say what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import Route

from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.bus.telemetry import Counters

__all__ = ["OutsideServer", "outside_server"]

Context = ServerRequestContext[Any, Any]


@dataclass
class OutsideServer:
    """The server, and what it was asked. `says` are the descriptions of its tools by name, `answers` what they give."""

    says: dict[str, str] = field(default_factory=lambda: {"search": "Search issues.", "erase": "Erase all."})
    answers: dict[str, str] = field(default_factory=dict)
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""

    async def list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        schema = {"type": "object", "properties": {"words": {"type": "string"}}}
        tools = [types.Tool(name=name, description=said, input_schema=schema) for name, said in self.says.items()]
        return types.ListToolsResult(tools=tools, ttl_ms=0)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        self.called.append((params.name, dict(params.arguments or {})))
        text = self.answers.get(params.name, "found")
        return types.CallToolResult(content=[types.TextContent(text=text)])


@asynccontextmanager
async def outside_server(server: OutsideServer | None = None, *, legacy: bool = False) -> AsyncIterator[OutsideServer]:
    """Run a server; one that is `legacy` does not know the newer protocol."""
    server = server or OutsideServer()
    low: Server[Any] = Server("outside", on_list_tools=server.list_tools, on_call_tool=server.call_tool)
    manager = StreamableHTTPSessionManager(app=low, json_response=False)
    transport = StreamableHTTPASGIApp(manager)

    async def older(scope: Any, receive: Any, send: Any) -> None:
        # What an older server answers to a version that it does not know.
        if legacy and dict(scope["headers"]).get(b"mcp-protocol-version", b"").startswith(b"2026"):
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await transport(scope, receive, send)

    class Older:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await older(scope, receive, send)

    async with manager.run():
        app = Starlette(routes=[Route("/mcp", Older())])
        async with listening(
            app, "127.0.0.1:0", setting="test", limits=ConnectionLimits(), counters=Counters()
        ) as port:
            server.url = f"http://localhost:{port}"
            yield server
