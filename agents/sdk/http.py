"""APIs outside, as an agent reaches them: clients of HTTP, MCP and A2A whose requests are calls of the exit.

A request is a sealed call `<exit>.<api>`, or a task if it takes longer, with the user and the chain of the message that is
being handled. The exit's policy decides about method, host and path, and the decision is recorded, as for any action. The
exit alone holds tokens. The agent needs no route to the API, and sees neither its address nor a token.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import httpx2
from pydantic import BaseModel, ConfigDict, Field

from sealbus.envelopes.errors import ConfigurationError, SealError
from sealbus.envelopes.trust.names import is_token

if TYPE_CHECKING:
    from a2a.client import Client as A2aClient
    from mcp.client.client import Client as McpClient

EXIT: Final = "exit"
"""The agent that calls APIs, unless the API's name begins with another agent's."""

MOST_FIELDS: Final = 64

Fields = Annotated[tuple[tuple[str, str], ...], Field(max_length=MOST_FIELDS)]
"""Header fields in their order."""

_HOST: Final = "api.invalid"
API_URL: Final = f"https://{_HOST}"
"""The base URL of each client, in place of the API's; RFC 6761 section 6.4 keeps the name from ever being a host."""
_CONNECTION_FIELDS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "transfer-encoding", "user-agent"}
)
"""Fields about a connection to the API. The exit makes that connection and sets them."""


class _Content(BaseModel):
    """Bytes are base64url in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class ApiRequest(_Content):
    """A request to an API: `path` begins with `/` and stands below the API's own URL; `query` is without its `?`."""

    method: str
    path: str
    query: str = ""
    headers: Fields = ()
    body: bytes = Field(default=b"", repr=False)


class ApiAnswer(_Content):
    """The API's answer with any status; the exit passes on only the header fields needed to read or repeat it."""

    status: int
    headers: Fields = ()
    body: bytes = Field(default=b"", repr=False)


SendRequest: TypeAlias = Callable[[ApiRequest], Awaitable[ApiAnswer]]
"""Sends a request to the exit, as a call or as a task."""


def api_request(method: str, address: str, headers: Iterable[tuple[str, str]], body: bytes) -> ApiRequest:
    """Return a client's request as the exit takes it. Raises `SealError` for another host than that of `API_URL`."""
    url = httpx2.URL(address)
    if url.host != _HOST or url.scheme != "https":
        raise SealError("this client reaches one API only: give paths, not URLs")
    return ApiRequest(
        method=method,
        path=url.raw_path.decode("ascii").partition("?")[0],
        query=url.query.decode("ascii"),
        headers=tuple((name, value) for name, value in headers if name not in _CONNECTION_FIELDS),
        body=body,
    )


class _ExitTransport(httpx2.AsyncBaseTransport):
    """Sends requests by `send` in place of a network."""

    def __init__(self, send: SendRequest) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the API's answer to a request of this client; raise as the call does, or as `api_request`."""
        sent = api_request(request.method, str(request.url), request.headers.items(), await request.aread())
        answer = await self._send(sent)
        return httpx2.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)


def _hide_requests(record: logging.LogRecord) -> bool:
    """Return whether a log line of an HTTP client may be written: a line about `API_URL` shows the content of a call."""
    return _HOST not in record.getMessage()


logging.getLogger("httpx2").addFilter(_hide_requests)


def api_action(api: str) -> str:
    """Return the action that reaches `api`: `exit.<api>`, or `api` itself if it is `<agent>.<api>`.

    Raises `SealError` for a text that is no name.
    """
    exit_name, _, name = api.rpartition(".")
    if not is_token(name) or (exit_name and not is_token(exit_name)):
        raise SealError(f"{api[:255]!r} is not the name of an API")
    return f"{exit_name or EXIT}.{name}"


def api_client(send: SendRequest) -> httpx2.AsyncClient:
    """Return a client that sends its requests by `send`; its base URL stands for the API's.

    It holds nothing open, so you need not close it. It follows no redirect unless you ask for that, and then through `send`,
    too. It has no timeout of its own: the call has one.
    """
    return httpx2.AsyncClient(transport=_ExitTransport(send), base_url=API_URL, trust_env=False, timeout=None)


@asynccontextmanager
async def mcp_client(http: httpx2.AsyncClient, path: str) -> AsyncGenerator[McpClient, None]:
    """Yield a connected client of the MCP server at `path` of an API; it answers no questions of the server.

    It lists the server's tools first, so that the policy knows their descriptions. Raises `ConfigurationError` without the
    extra `mcp`.
    """
    try:
        from mcp.client.client import Client
        from mcp.client.streamable_http import streamable_http_client
    except ModuleNotFoundError as error:
        raise ConfigurationError("ctx.mcp needs packages that are not installed: pip install 'sealbus[mcp]'") from error
    transport = streamable_http_client(str(http.base_url.join(path)), http_client=http)
    try:
        async with Client(transport, cache=None) as client:
            await client.list_tools()
            yield client
    except BaseExceptionGroup as group:
        # The client wraps in groups what the block raises, and what one of its requests raises, such as `Denied`.
        raise _single_error(group) from None


def _single_error(error: BaseException) -> BaseException:
    """Return the only exception in nested groups, or the group if it has several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def a2a_client(send: SendRequest, path: str, card: str) -> AsyncGenerator[A2aClient, None]:
    """Yield a client of the A2A agent at `path` of an API, whose card is at the path `card`.

    It fetches the card first, so that the policy knows its content, and ignores the addresses in it: the exit reaches one
    host. Raises `ConfigurationError` without the extra `a2a` or for a card without JSON-RPC, and the package's
    `AgentCardResolutionError` if there is no card.
    """
    try:
        import httpx
        from a2a.client import ClientConfig, ClientFactory
        from a2a.client.card_resolver import parse_agent_card
        from a2a.client.errors import AgentCardResolutionError
        from a2a.utils.constants import TransportProtocol
        from google.protobuf.json_format import ParseError
    except ModuleNotFoundError as error:
        raise ConfigurationError("ctx.a2a needs packages that are not installed: pip install 'sealbus[a2a]'") from error

    class HttpxExitTransport(httpx.AsyncBaseTransport):
        """`_ExitTransport` for httpx, whose client the package takes."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            sent = api_request(request.method, str(request.url), request.headers.items(), await request.aread())
            answer = await send(sent)
            return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)

    logging.getLogger("httpx").addFilter(_hide_requests)
    async with httpx.AsyncClient(transport=HttpxExitTransport(), base_url=API_URL, trust_env=False) as http:
        try:
            agent_card = parse_agent_card((await http.get(card)).raise_for_status().json())
        except (httpx.HTTPStatusError, ValueError, ParseError) as error:
            # The texts of these errors quote the answer, which a stranger wrote.
            raise AgentCardResolutionError("there is no card of an agent at this path") from error
        interfaces = [
            interface
            for interface in agent_card.supported_interfaces
            if interface.protocol_binding == TransportProtocol.JSONRPC
        ]
        if not interfaces:
            raise ConfigurationError("the card of this agent names no interface with JSON-RPC")
        del agent_card.supported_interfaces[:]
        for interface in interfaces:
            interface.url = f"{API_URL}{path}"
            agent_card.supported_interfaces.append(interface)
        yield ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create(agent_card)
