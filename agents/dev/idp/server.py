"""The development IdP as an HTTP server: its endpoints and the headers of each answer; on loopback only."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sealbus.agents.dev.idp.access import ScriptAccess, write_access
from sealbus.agents.dev.idp.grants import register_grants
from sealbus.agents.dev.idp.login import code_page, content_security_policy, message_page, users_page
from sealbus.agents.dev.idp.oauth import TOKEN_SECONDS, AuthorizationRefused, OAuthServer, Reply
from sealbus.agents.dev.idp.registry import CODE, DEMO_CLIENTS, DEMO_USERS, DEVICE_CODE, DemoUser, DevClient
from sealbus.agents.dev.idp.requests import LoopbackHostOnly, MalformedRequest, form_of, parameters
from sealbus.agents.dev.idp.signing import ALGORITHM
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

_MOST: Final = 64
_LIMITS: Final = ConnectionLimits(
    connections=_MOST,
    connections_of_address=_MOST,
    connections_of_network=_MOST,
    head_bytes=16_384,
    stop_seconds=1,
)
_HOSTS: Final = ("127.0.0.1", "::1")

ISSUER_PATH: Final = "/development-only"
"""Path of the issuer: it shows in each token that the token is for development."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer`, browsers would send `Origin: null` for our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_PUBLIC: Final = {**_HEADERS, "Cache-Control": "public, max-age=300"}
"""Headers of answers that anyone may read and cache for a while."""


class DevelopmentIdp:
    """An identity provider that serves logins of `users` to `clients`; tokens are for `audience` by default.

    `host` must be 127.0.0.1 or ::1, or the constructor raises `ConfigurationError`: every client of this server can log in as
    any user. `port` 0 is any free port. `access` is a file for `sealbus token`, which exists while the server runs. The
    signing key is made at each start and is only in memory.
    """

    def __init__(
        self,
        *,
        audience: str,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Iterable[DemoUser] = DEMO_USERS,
        clients: Iterable[DevClient] = DEMO_CLIENTS,
        access: Path | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        if host not in _HOSTS:
            raise ConfigurationError(
                f"the development IdP does not listen on {host!r}: it asks for no passwords, so 127.0.0.1 or ::1 only"
            )
        self._audience = audience
        self._host = host
        self._port = port
        self._users = tuple(users)
        self._clients = tuple(clients)
        self._access = access
        self._clock = clock
        self._secret = secrets.token_urlsafe(32)
        self._oauth: OAuthServer | None = None
        self._app: ASGIApp | None = None
        self._made = asyncio.Event()
        self._stack = AsyncExitStack()

    @property
    def origin(self) -> str:
        """`http://host:port`, once entered."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    @property
    def issuer(self) -> str:
        """The issuer of its tokens, once entered."""
        return f"{self.origin}{ISSUER_PATH}"

    @property
    def jwks_uri(self) -> str:
        """The URL of its public key."""
        return f"{self.issuer}/jwks"

    @property
    def access(self) -> ScriptAccess:
        """The credentials of `sealbus token`; their holder can log in as any user."""
        return ScriptAccess(issuer=self.issuer, secret=self._secret)

    def token(
        self,
        user: str,
        *,
        client: str = "dev",
        scope: str = "",
        audience: str = "",
        session: str = "",
        expires_in: int = TOKEN_SECONDS,
    ) -> str:
        """Return an access token of a demo user as a login would issue it; already expired if `expires_in` is below 0."""
        if self._oauth is None:
            raise RuntimeError("the development IdP is not running")
        if user not in self._oauth.users:
            raise ConfigurationError(f"there is no demo user {user!r}")
        login = self._oauth.login(
            self._oauth.users[user],
            client_id=client,
            scope=scope,
            audience=audience,
            session=session,
            expires_in=expires_in,
        )
        return self._oauth.signer.access_token(login)

    async def __aenter__(self) -> Self:
        """Start and return once it answers. Raises `ConfigurationError`, one line, if the port cannot be used."""
        async with AsyncExitStack() as stack:
            self._port = await stack.enter_async_context(
                listening(
                    self._answer,
                    self.origin.removeprefix("http://"),
                    setting="the development IdP at",
                    limits=_LIMITS,
                    counters=Counters(),
                )
            )
            self._oauth = OAuthServer(
                self.issuer,
                audience=self._audience,
                users=self._users,
                clients=self._clients,
                secret=self._secret,
                clock=self._clock,
            )
            register_grants(self._oauth)
            self._app = application(self._oauth, frozenset({self.origin, f"http://localhost:{self._port}"}))
            self._made.set()
            if self._access is not None:
                write_access(self._access, self.access)
                stack.callback(self._access.unlink, missing_ok=True)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._oauth = None
        await self._stack.aclose()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The application is made once the port is known. A request may come before that.
        while (app := self._app) is None:
            await self._made.wait()
        await app(scope, receive, send)


def metadata(issuer: str) -> dict[str, object]:
    """Return the discovery document (OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2)."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "jwks_uri": f"{issuer}/jwks",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [CODE, DEVICE_CODE],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "scopes_supported": ["openid"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "auth_time", "acr", "amr", "sid", "nonce"],
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
    }


def application(server: OAuthServer, origins: frozenset[str]) -> Starlette:
    """Return the ASGI application of `server`, which answers under `origins` (`http://host:port`) only."""
    pages = _Pages(server, origins)
    at = ISSUER_PATH

    async def discovery(request: Request) -> Response:
        return JSONResponse(metadata(server.issuer), headers=_PUBLIC)

    async def jwks(request: Request) -> Response:
        return JSONResponse(server.signer.key_set(), headers=_PUBLIC)

    routes = [
        Route(f"{at}/.well-known/openid-configuration", discovery),
        # RFC 8414 puts the issuer's path after the well-known part, OpenID Connect before it.
        Route(f"/.well-known/oauth-authorization-server{at}", discovery),
        Route(f"{at}/jwks", jwks),
        Route(f"{at}/token", _oauth(server.token), methods=["POST"]),
        Route(f"{at}/device_authorization", _oauth(server.device_authorization), methods=["POST"]),
        Route(f"{at}/authorize", pages.authorize, methods=["GET"]),
        Route(f"{at}/authorize", pages.choose, methods=["POST"]),
        Route(f"{at}/device", pages.device, methods=["GET"]),
        Route(f"{at}/device", pages.decide, methods=["POST"]),
    ]
    hosts = frozenset(urlsplit(origin).netloc for origin in origins)
    return Starlette(routes=routes, middleware=[Middleware(LoopbackHostOnly, hosts=hosts)])


def _oauth(answer: Callable[[Mapping[str, str], str], Reply]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            fields = await form_of(request)
        except MalformedRequest as error:
            body = {"error": "invalid_request", "error_description": str(error)}
            return JSONResponse(body, 400, headers=_HEADERS)
        reply = answer(fields, request.headers.get("authorization", ""))
        # Headers that authlib sets in addition to its own media type, `WWW-Authenticate` for instance.
        extra = {name: value for name, value in reply.headers if name.lower() == "www-authenticate"}
        return JSONResponse(dict(reply.body or {}), reply.status, headers={**_HEADERS, **extra})

    return endpoint


class _Pages:
    """The pages for a browser; each form comes back with a value that only our own page has."""

    def __init__(self, server: OAuthServer, origins: frozenset[str]) -> None:
        self._server = server
        self._origins = origins

    async def authorize(self, request: Request) -> Response:
        """Show the users, or send the client its error."""
        try:
            query = parameters(request.url.query)
            key, client, redirect_uri = self._server.begin(query)
        except MalformedRequest as error:
            return _html(message_page("This request cannot be answered", str(error)), 400)
        except AuthorizationRefused as error:
            return self._refusal(error)
        page = users_page(
            action=f"{ISSUER_PATH}/authorize",
            hidden={"request": key},
            client=client,
            users=self._server.users.values(),
        )
        parts = urlsplit(redirect_uri)
        return _html(page, leads_to=(f"{parts.scheme}://{parts.netloc}",))

    async def choose(self, request: Request) -> Response:
        """Send the browser back to the client with a code, or with the user's refusal."""
        try:
            form = await self._own_form(request)
            location = self._server.finish(form.get("request", ""), None if "deny" in form else form.get("user", ""))
        except MalformedRequest as error:
            return _html(message_page("This request cannot be answered", str(error)), 400)
        except AuthorizationRefused as error:
            return self._refusal(error)
        if location is None:
            text = "It was answered before, or is too old: start again where you came from."
            return _html(message_page("This page is no longer good", text), 400)
        return RedirectResponse(location, 303, headers=_HEADERS)

    async def device(self, request: Request) -> Response:
        """Show the page for a device's code or, with a valid code, the page of users."""
        action = f"{ISSUER_PATH}/device"
        try:
            code = parameters(request.url.query).get("user_code", "")
        except MalformedRequest:
            return _html(code_page(action=action, wrong=True), 400)
        waiting = self._server.waiting_device(code)
        if waiting is None:
            return _html(code_page(action=action, wrong=bool(code)), 400 if code else 200)
        page = users_page(
            action=action,
            hidden={"user_code": waiting.user_code},
            client=waiting.client_id,
            users=self._server.users.values(),
            device_code=waiting.user_code,
        )
        return _html(page)

    async def decide(self, request: Request) -> Response:
        """Store the user's login or refusal for a device."""
        try:
            form = await self._own_form(request)
        except MalformedRequest as error:
            return _html(message_page("This request cannot be answered", str(error)), 400)
        waiting = self._server.waiting_device(form.get("user_code", ""))
        user = self._server.users.get(form.get("user", ""))
        if waiting is None or (user is None and "deny" not in form):
            return _html(code_page(action=f"{ISSUER_PATH}/device", wrong=True), 400)
        if user is None or "deny" in form:
            waiting.denied = True
            return _html(message_page("Refused", "Your device was refused. You may close this page."))
        waiting.login = self._server.login(
            user, client_id=waiting.client_id, scope=waiting.scope, audience=waiting.audience
        )
        return _html(message_page("Done", "Your device is logged in. You may close this page."))

    async def _own_form(self, request: Request) -> dict[str, str]:
        """Read a form of our own page; browsers show by `Origin` if another site sent it."""
        if request.headers.get("origin", next(iter(self._origins))) not in self._origins:
            raise MalformedRequest("it comes from another site")
        return await form_of(request)

    def _refusal(self, error: AuthorizationRefused) -> Response:
        if error.location is not None:
            return RedirectResponse(error.location, 303, headers=_HEADERS)
        return _html(message_page("This request cannot be answered", f"The client's mistake: {error.error}"), 400)


def _html(page: str, status: int = 200, leads_to: tuple[str, ...] = ()) -> Response:
    return HTMLResponse(
        page, status, headers={**_HEADERS, "Content-Security-Policy": content_security_policy(*leads_to)}
    )
