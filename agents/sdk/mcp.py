"""MCP servers outside, as an agent uses them: the client of the package `mcp`, whose requests are calls of the exit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from mcp.client.client import Client

__all__ = ["mcp_client"]


@asynccontextmanager
async def mcp_client(http: httpx2.AsyncClient, path: str) -> AsyncGenerator[Client, None]:
    """Yield a client of the server at `path` of an API, connected; it answers no questions of the server.

    Its tools are listed first, so that the policy knows what they say they are. Raises `ConfigurationError` without the extra
    `mcp`.
    """
    try:
        from mcp.client.client import Client
        from mcp.client.streamable_http import streamable_http_client
    except ModuleNotFoundError as error:
        raise ConfigurationError("ctx.mcp needs packages that are not here: pip install 'sealbus[mcp]'") from error
    transport = streamable_http_client(str(http.base_url.join(path)), http_client=http)
    try:
        async with Client(transport, cache=None) as client:
            await client.list_tools()
            yield client
    except BaseExceptionGroup as group:
        # The client's groups wrap what the block raises, and what a request of it does, such as `Denied`.
        raise _alone(group) from None


def _alone(error: BaseException) -> BaseException:
    """Return the one exception in nested groups, or the group of several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
