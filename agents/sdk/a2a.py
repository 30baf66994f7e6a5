"""A2A agents outside, as an agent uses them: the client of the package `a2a-sdk`, whose requests are calls of the exit."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sealbus.agents.sdk.http import API_URL, SendRequest, api_request, of_others
from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from a2a.client import Client

__all__ = ["a2a_client"]


@asynccontextmanager
async def a2a_client(send: SendRequest, path: str, card: str) -> AsyncGenerator[Client, None]:
    """Yield a client of the agent at `path` of an API, whose card is at the path `card`.

    The card is got first, so that the policy knows what it says. Where it says that the agent is, is not heeded: the exit
    reaches one host. Raises `ConfigurationError` without the extra `a2a` or for a card without JSON-RPC, and the package's
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
        raise ConfigurationError("ctx.a2a needs packages that are not here: pip install 'sealbus[a2a]'") from error

    class ExitTransport(httpx.AsyncBaseTransport):
        """What `api_client` does with httpx2; the package takes a client of httpx."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            """Return the API's answer to a request of this client."""
            asked = api_request(request.method, str(request.url), request.headers.items(), await request.aread())
            answer = await send(asked)
            return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)

    logging.getLogger("httpx").addFilter(of_others)
    async with httpx.AsyncClient(transport=ExitTransport(), base_url=API_URL, trust_env=False) as http:
        try:
            known = parse_agent_card((await http.get(card)).raise_for_status().json())
        except (httpx.HTTPStatusError, ValueError, ParseError) as error:
            # None of what it says: the texts of these errors hold some of it.
            raise AgentCardResolutionError("what is there is no card of an agent") from error
        spoken = [one for one in known.supported_interfaces if one.protocol_binding == TransportProtocol.JSONRPC]
        if not spoken:
            raise ConfigurationError("the card of this agent names no interface with JSON-RPC")
        del known.supported_interfaces[:]
        for one in spoken:
            one.url = f"{API_URL}{path}"
            known.supported_interfaces.append(one)
        yield ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create(known)
