"""`/mcp`: verify the caller and bound the request before the transport of `mcp` sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken as KnownToken
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sealbus.agents.edge.front import DOOR, RESOURCE, Front, NamedResource
from sealbus.agents.edge.http.bodies import replaying
from sealbus.agents.edge.http.problem import HEADERS, EdgeError
from sealbus.agents.edge.mcp.client_request import TOKEN
from sealbus.agents.edge.mcp.sessions import OpenSessions, SessionOwner
from sealbus.agents.edge.mcp.tools import Tools
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.bodies import JSON
from sealbus.envelopes.errors import Code

_DOOR: Final = "mcp"
_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"
_FIELDS: Final = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}
"""Fields of each answer of the edge, unless the transport sets its own value."""


class McpEndpoint:
    """The one resource of the MCP server. `transport` is the application of `mcp`; pages of `origins` may use it."""

    def __init__(
        self,
        front: Front,
        tools: Tools,
        transport: ASGIApp,
        sessions: OpenSessions,
        *,
        url: str,
        origins: frozenset[str],
    ) -> None:
        parts = urlsplit(url)
        self._front = front
        self._tools = tools
        self._transport = transport
        self._sessions = sessions
        self._resource = NamedResource(url, tools.scopes)
        self._origins = origins | {f"{parts.scheme}://{parts.netloc}"}

    async def post(self, request: Request) -> Response:
        """Answer one MCP message. Refuses with 400, 401, 403, 408, 413, 415, 429 or 503.

        A 401 or a missing scope has a challenge.
        """
        token = await self._admitted(request)
        body = await self._front.body(request, token)
        if body.typ != JSON:
            raise EdgeError(Code.UNSUPPORTED_MEDIA_TYPE, 415, f"Content-Type must be {JSON}")
        self._check_scope(json.loads(body.body), token)
        user = _owner(token)
        session = request.headers.get(_SESSION)
        if session is None and request.headers.get(_VERSION, "") in ("", *HANDSHAKE_PROTOCOL_VERSIONS):
            leaving = self._sessions.admit(user)
            if leaving is not None:
                await self._end(request, *leaving)
        known = session if session is not None and session in self._sessions else ""
        return _Answer(
            self._transport,
            user,
            token.scope,
            body.body,
            lambda session: self._sessions.answering(session, user),
            known,
        )

    async def delete(self, request: Request) -> Response:
        """End a session of the older protocol."""
        token = await self._admitted(request)
        user = _owner(token)
        self._sessions.ended(request.headers.get(_SESSION, ""), user)
        return _Answer(self._transport, user, token.scope)

    async def _end(self, request: Request, session: str, owner: SessionOwner) -> None:
        """End a session, as its client would, to make room for another."""
        host = [(name, value) for name, value in request.scope["headers"] if name == b"host"]
        headers = [*host, (_SESSION.encode(), session.encode("latin-1"))]
        await _Answer(self._transport, owner)(
            {**request.scope, "method": "DELETE", "headers": headers}, _nothing, _unsent
        )

    async def _admitted(self, request: Request) -> AccessToken:
        request.scope[RESOURCE] = self._resource
        request.scope[DOOR] = _DOOR
        # Another page has no token, unless it made a browser keep one.
        if request.headers.get("origin", next(iter(self._origins))) not in self._origins:
            raise EdgeError(Code.DENIED, 403, "pages of this origin may not use this resource")
        token = request.scope[TOKEN] = await self._front.admitted(request)
        return token

    def _check_scope(self, message: Any, token: AccessToken) -> None:
        """Raise `Denied` for a missing scope before the answer begins, so that clients get a challenge."""
        if not isinstance(message, Mapping) or message.get("method") != "tools/call":
            return
        params = message.get("params")
        tool = self._tools.named(params.get("name")) if isinstance(params, Mapping) else None
        if tool is not None:
            tool.described.check_scope(token)


def _owner(token: AccessToken) -> SessionOwner:
    return SessionOwner(token.issuer, token.subject, token.client)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _unsent(message: Message) -> None:
    del message


class _Answer(Response):
    """The transport's answer to a request of `user` whose `body` was read.

    `answering` is entered for the session of the request, `known`, until the answer ends, and for a session that it opens.
    """

    def __init__(
        self,
        transport: ASGIApp,
        user: SessionOwner,
        scope: Sequence[str] = (),
        body: bytes = b"",
        answering: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
        known: str = "",
    ) -> None:
        super().__init__()
        self._transport = transport
        self._user = user
        self._scope = scope
        self._body = body
        self._answering = answering
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the transport's answer. The transport knows only the client, issuer and subject of the user."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower(): value for name, value in message["headers"]}
                message["headers"] = [*message["headers"], *((n, v) for n, v in _FIELDS.items() if n not in present)]
                begun = present.get(_SESSION.encode(), b"").decode("latin-1")
                if begun and begun != self._known:
                    # The request that opens the session counts as its first use.
                    with self._answering(begun):
                        pass
            await send(message)

        token = KnownToken(
            token="",
            client_id=self._user.client,
            scopes=list(self._scope),
            subject=self._user.subject,
            claims={"iss": self._user.issuer},
        )
        user = AuthenticatedUser(token)
        reset = auth_context_var.set(user)
        try:
            with self._answering(self._known) if self._known else nullcontext():
                await self._transport({**scope, "user": user}, replaying(self._body, receive), noting)
        finally:
            auth_context_var.reset(reset)
