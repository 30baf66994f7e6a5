"""The HTTP side of the development IdP: its endpoints, and the headers that each answer has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sealbus.agents.dev.idp.clients import CODE, DEVICE_CODE
from sealbus.agents.dev.idp.oauth import AuthorizationRefused, OAuthServer, Reply
from sealbus.agents.dev.idp.pages import code_page, content_security_policy, message_page, users_page
from sealbus.agents.dev.idp.requests import LoopbackHostOnly, MalformedRequest, form_of, parameters
from sealbus.agents.dev.idp.signing import ALGORITHM

__all__ = ["ISSUER_PATH", "application", "metadata"]

ISSUER_PATH: Final = "/development-only"
"""Path of the issuer: whoever reads a token sees what it is worth."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with it browsers send `Origin: null` for our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


_PUBLIC: Final = {**_HEADERS, "Cache-Control": "public, max-age=300"}
"""Of what everybody may read and keep for a while."""


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
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "auth_time", "sid", "nonce"],
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
        # What authlib sets beside its own media type, `WWW-Authenticate` for instance.
        extra = {name: value for name, value in reply.headers if name.lower() == "www-authenticate"}
        return JSONResponse(dict(reply.body or {}), reply.status, headers={**_HEADERS, **extra})

    return endpoint


class _Pages:
    """What a browser is sent; each form leads back here with something that only our own page held."""

    def __init__(self, server: OAuthServer, origins: frozenset[str]) -> None:
        self._server = server
        self._origins = origins

    async def authorize(self, request: Request) -> Response:
        """Show the users, or send the client its error."""
        try:
            asked = parameters(request.url.query)
            key, client, redirect_uri = self._server.begin(asked)
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
        """Send the browser back to the client with a code, or with the user's no."""
        try:
            said = await self._own_form(request)
            location = self._server.finish(said.get("request", ""), None if "deny" in said else said.get("user", ""))
        except MalformedRequest as error:
            return _html(message_page("This request cannot be answered", str(error)), 400)
        except AuthorizationRefused as error:
            return self._refusal(error)
        if location is None:
            text = "It was answered before, or is too old: start again where you came from."
            return _html(message_page("This page is no longer good", text), 400)
        return RedirectResponse(location, 303, headers=_HEADERS)

    async def device(self, request: Request) -> Response:
        """Ask for the code of a device, and with a good one for the user."""
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
        """Give a device its user, or the user's no."""
        try:
            said = await self._own_form(request)
        except MalformedRequest as error:
            return _html(message_page("This request cannot be answered", str(error)), 400)
        waiting = self._server.waiting_device(said.get("user_code", ""))
        user = self._server.users.get(said.get("user", ""))
        if waiting is None or (user is None and "deny" not in said):
            return _html(code_page(action=f"{ISSUER_PATH}/device", wrong=True), 400)
        if user is None or "deny" in said:
            waiting.denied = True
            return _html(message_page("Refused", "Your device was told no. You may close this page."))
        waiting.login = self._server.login(
            user, client_id=waiting.client_id, scope=waiting.scope, audience=waiting.audience
        )
        return _html(message_page("Done", "Your device knows now. You may close this page."))

    async def _own_form(self, request: Request) -> dict[str, str]:
        """Read a form that our own page sent; browsers say by `Origin` when it was another site's."""
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
