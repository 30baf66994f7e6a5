"""`/a2a/<agent>/…`: verify the caller and bound the request before the package `a2a` sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from a2a.server.context import ServerCallContext
from a2a.server.routes.common import ServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.routes.rest_dispatcher import RestDispatcher
from a2a.utils.constants import A2A_JSON_MEDIA_TYPE
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.a2a.cards import Cards, card_document
from sealbus.agents.edge.a2a.handler import AgentHandler
from sealbus.agents.edge.a2a.principal import DOOR_NAME, Principal
from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.event_streams import COMMENT
from sealbus.agents.edge.front import DOOR, RESOURCE, NamedResource
from sealbus.agents.edge.http.bodies import replaying
from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.bodies import JSON
from sealbus.envelopes.errors import Code

_PRINCIPAL: Final = "sealbus.a2a.principal"
"""Key of the request's scope that holds its `Principal`."""
_STREAMING: Final = frozenset({"SendStreamingMessage", "SubscribeToTask"})
_CARD_SECONDS: Final = 60

Dispatch = Callable[[Request], Awaitable[Response]]


class _Contexts(ServerCallContextBuilder):
    """Gives handlers the principal of a request."""

    def build(self, request: Request) -> ServerCallContext:
        principal: Principal = request.scope[_PRINCIPAL]
        return principal.context()


@dataclass(frozen=True)
class ServedAgent:
    """One agent with a card: its handler, and the dispatchers that parse its requests."""

    handler: AgentHandler
    rpc: JsonRpcDispatcher
    rest: RestDispatcher
    card: bytes
    tag: str

    @classmethod
    def of(cls, handler: AgentHandler, cards: Cards) -> ServedAgent:
        """Return the agent of `cards`, with `handler` for its requests."""
        card, contexts = card_document(cards.public()), _Contexts()
        tag = f'"{sha256(card).hexdigest()[:32]}"'
        return cls(handler, JsonRpcDispatcher(handler, contexts), RestDispatcher(handler, contexts), card, tag)


class A2aEndpoint:
    """The resources of all agents with a card, by name. `scopes` are the scopes that their skills need."""

    def __init__(self, actions: Actions, agents: Mapping[str, ServedAgent], scopes: str) -> None:
        self._front = actions.front
        self._streams = actions.streams
        self._agents = agents
        self._resource = NamedResource(actions.front.resource, scopes)

    async def card(self, request: Request) -> Response:
        """Return the card of an agent; it needs no token."""
        agent = self._agent(request)
        headers = {**HEADERS, "cache-control": f"public, max-age={_CARD_SECONDS}", "etag": agent.tag}
        if agent.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(agent.card, headers=headers, media_type=JSON)

    async def rpc(self, request: Request) -> Response:
        """`POST /a2a/<agent>/rpc`: one request of JSON-RPC."""
        agent, token = self._agent(request), await self._admitted(request)
        body = (await self._front.body(request, token, (JSON,))).body
        message = _message(body)
        method = message.get("method") if isinstance(message, Mapping) else None
        streaming = isinstance(method, str) and method in _STREAMING
        return await self._answered(request, token, body, agent.rpc.handle_requests, streaming=streaming)

    def rest(self, name: str, *, reads: bool = False, streaming: bool = False) -> Dispatch:
        """Return the handler of requests that `RestDispatcher` knows by `name`; `reads` says whether they have a body."""

        async def answer(request: Request) -> Response:
            agent, token = self._agent(request), await self._admitted(request)
            body = b""
            if reads:
                body = (await self._front.body(request, token, (JSON, A2A_JSON_MEDIA_TYPE))).body
                _message(body)
            return await self._answered(request, token, body, getattr(agent.rest, name), streaming=streaming)

        return answer

    def _agent(self, request: Request) -> ServedAgent:
        agent = self._agents.get(request.path_params["agent"])
        if agent is None:
            raise EdgeError(Code.NOT_FOUND, 404, "no such agent")
        return agent

    async def _admitted(self, request: Request) -> AccessToken:
        request.scope[RESOURCE] = self._resource
        request.scope[DOOR] = DOOR_NAME
        return await self._front.admitted(request)

    async def _answered(
        self, request: Request, token: AccessToken, body: bytes, dispatch: Dispatch, *, streaming: bool
    ) -> Response:
        principal = Principal(request, token)
        inner = Request({**request.scope, _PRINCIPAL: principal}, replaying(body, request.receive))
        if not streaming:
            return _checked(principal, await dispatch(inner))
        self._streams.enter(token)
        try:
            answer = _checked(principal, await dispatch(inner))
            if not isinstance(answer, EventSourceResponse):
                self._streams.leave(token)
                return answer
        except BaseException:
            self._streams.leave(token)
            raise
        pause = self._front.limits.event_pause_seconds
        return self._streams.entered(token, _events(aiter(answer.body_iterator), pause))


def _message(body: bytes) -> object:
    """Return the JSON in `body`, which has been checked; raise `EdgeError` (400) for a text that is not Unicode.

    The package quotes such a text in its answer, which then cannot be encoded.
    """
    message = json.loads(body)
    if b"\\u" in body:
        # UTF-8 has no lone surrogate, so that only an escape can be one.
        try:
            json.dumps(message, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise EdgeError(Code.MALFORMED, 400, "a text of the body is not Unicode") from error
    return message


def _checked(principal: Principal, answer: Response) -> Response:
    """Return the dispatcher's answer; raise the principal's `refused` error, if there is one."""
    if principal.refused is not None:
        raise principal.refused
    if not isinstance(answer, EventSourceResponse):
        answer.headers.update(HEADERS)
    return answer


async def _events(items: AsyncIterator[Any], pause: float) -> AsyncGenerator[bytes, None]:
    """Yield the events of the package as bytes, and a comment after each `pause` seconds without an event."""
    following: asyncio.Future[Any] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(items, None))
            await asyncio.wait([following], timeout=pause)
            if not following.done():
                yield COMMENT
                continue
            item, following = following.result(), None
            if item is None:
                return
            yield (ServerSentEvent(**item) if isinstance(item, dict) else item).encode()
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await following
