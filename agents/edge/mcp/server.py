"""The whole MCP server of an edge: its routes, for as long as its block lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.foreign_logs import quieten
from sealbus.agents.edge.http.application import Methods
from sealbus.agents.edge.mcp.client_request import TASKS
from sealbus.agents.edge.mcp.endpoint import McpEndpoint
from sealbus.agents.edge.mcp.sessions import IDLE_SECONDS, OpenSessions
from sealbus.agents.edge.mcp.tool_calls import TaskParams, ToolCalls, UpdateParams
from sealbus.agents.edge.mcp.tools import Tools
from sealbus.agents.edge.oauth.bearer import metadata_answer, metadata_path
from sealbus.bus.background import Background, BoundedTasks

_LEAVING: Final = 64
"""Cancels at a time for clients that left."""


@asynccontextmanager
async def open_mcp(
    actions: Actions,
    described: Sequence[DescribedAction],
    *,
    url: str,
    state_keys: Sequence[bytes],
    sessions: int,
    page: str | None = None,
    origins: frozenset[str] = frozenset(),
) -> AsyncGenerator[Sequence[BaseRoute], None]:
    """Yield the routes of an MCP server whose tools are `described`, at `url`; leaving ends its sessions.

    What clients bring back is sealed under the first of `state_keys` (32 bytes each) and opened under all of them. Raises
    `ConfigurationError` as `Tools` does.
    """
    front, tools = actions.front, Tools(described)
    quieten("mcp")
    async with Background() as group:
        calls = ToolCalls(actions, tools, BoundedTasks(group, _LEAVING), page)
        server = _server(calls, tools, state_keys, url=url, state_seconds=front.limits.approval_wait_seconds)
        manager = StreamableHTTPSessionManager(
            app=server,
            json_response=False,
            session_idle_timeout=IDLE_SECONDS,
            max_request_body_size=front.limits.body_bytes,
            max_sessions=sessions,
        )
        endpoint = McpEndpoint(
            front,
            tools,
            StreamableHTTPASGIApp(manager),
            OpenSessions(time.monotonic, whole=sessions),
            url=url,
            origins=origins,
        )

        async def metadata(request: Request) -> Response:
            del request
            return metadata_answer(
                url, front.issuers, certificates=front.shows_certificates, scopes=tools.scopes.split()
            )

        ready, ending = asyncio.Event(), asyncio.Event()
        # In a task of its own: its group would wrap what the caller's block raises.
        group.create_task(_served(manager, ready, ending), name="mcp")
        await ready.wait()
        try:
            yield [
                Route(urlsplit(url).path, Methods(POST=endpoint.post, DELETE=endpoint.delete)),
                Route(metadata_path(url), Methods(GET=metadata)),
            ]
        finally:
            ending.set()


async def _served(manager: StreamableHTTPSessionManager, ready: asyncio.Event, ending: asyncio.Event) -> None:
    async with manager.run():
        ready.set()
        await ending.wait()


def _server(
    calls: ToolCalls, tools: Tools, state_keys: Sequence[bytes], *, url: str, state_seconds: float
) -> Server[object]:
    server: Server[object] = Server(
        "sealbus",
        version=version("sealbus"),
        get_tool_input_schema=tools.input_schema,
        on_list_tools=calls.list_tools,
    )
    # In place of its spans: the edge has one for each request, and one for each message.
    security = RequestStateSecurity(keys=state_keys, ttl=state_seconds)
    server.middleware[:] = [RequestStateBoundary(security, default_audience=url)]
    server.extensions[TASKS] = {}
    server.add_request_handler("tools/call", types.CallToolRequestParams, calls.call)
    server.add_request_handler("tasks/get", TaskParams, calls.get)
    server.add_request_handler("tasks/update", UpdateParams, calls.update)
    server.add_request_handler("tasks/cancel", TaskParams, calls.cancel)
    return server
