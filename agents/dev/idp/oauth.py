"""The authorization server: authlib's flows over our stores, in memory, for one process.

authlib decides the order of checks, which errors go to the client and which to the page, client authentication, PKCE and the
states of the device flow. This module requires PKCE by S256, lets each code be used once, and decides the resource and the
contents of a token. All of it is synchronous, so no other request comes between the check and the use of a code.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from authlib.common.urls import add_params_to_uri  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # authlib has no types
    AuthorizationServer,
    BaseGrant,
)
from authlib.oauth2.rfc6749.requests import (  # type: ignore[import-untyped]  # authlib has no types
    BasicOAuth2Payload,
    OAuth2Request,
)

from sealbus.agents.dev.idp.login import DeviceLogin, IssuedCode, Login, valid_resource
from sealbus.agents.dev.idp.registry import DemoUser, DevClient, script_client, valid_scope
from sealbus.agents.dev.idp.signing import Expiring, TokenSigner
from sealbus.bus.ports import Clock
from sealbus.envelopes.limits import SECOND

TOKEN_SECONDS: Final = 900
"""Seconds that an access token lives: as long as a chain may start with the context that the edge makes from it."""
CODE_SECONDS: Final = 60
"""Seconds that an authorization code lives; RFC 6749 section 4.1.2 allows ten minutes at most."""
LOGIN_SECONDS: Final = 600
"""Seconds that the page of users may stay open, and that a device may wait."""
MOST: Final = 1_000
"""Most entries of each store."""
DEVICE_AUTHORIZATION: Final = "device_authorization"
"""authlib's name of the endpoint of RFC 8628 section 3.1."""


class TokenReply(dict[str, object]):
    """A token response whose text hides the tokens, because authlib logs it at DEBUG."""

    def __repr__(self) -> str:
        return "<token response>"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer: a JSON object, or headers only."""

    status: int
    body: Mapping[str, object] | None
    headers: tuple[tuple[str, str], ...]


class AuthorizationRefused(Exception):
    """The error of an authorization request, for a redirect, or for a page if the client is not trusted."""

    def __init__(self, error: str, location: str | None) -> None:
        super().__init__(error)
        self.error = error
        self.location = location


class _Request(OAuth2Request):  # type: ignore[misc]  # authlib is not typed
    """Parameters that are already parsed, each once."""

    def __init__(self, method: str, uri: str, parameters: Mapping[str, str], authorization: str = "") -> None:
        super().__init__(method, uri, headers={"Authorization": authorization} if authorization else {})
        self.payload = BasicOAuth2Payload(dict(parameters))

    @property
    def args(self) -> dict[str, str]:
        return cast("dict[str, str]", self.payload.data) if self.method == "GET" else {}

    @property
    def form(self) -> dict[str, str]:
        return cast("dict[str, str]", self.payload.data) if self.method == "POST" else {}


class OAuthServer(AuthorizationServer):  # type: ignore[misc]  # authlib is not typed
    """The OAuth server of `issuer`; `audience` is the resource of tokens unless a request names another."""

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        users: Iterable[DemoUser],
        clients: Iterable[DevClient],
        secret: str,
        clock: Clock,
    ) -> None:
        super().__init__()
        self.issuer = issuer
        self.audience = audience
        self.users = {user.identifier: user for user in users}
        self.clients = {client.client_id: client for client in (*clients, script_client(secret))}
        self.signer = TokenSigner(issuer, clock=clock)
        self.clock = clock
        self.codes: Expiring[IssuedCode] = Expiring(seconds=CODE_SECONDS, most=MOST, clock=clock)
        self.pending: Expiring[dict[str, str]] = Expiring(seconds=LOGIN_SECONDS, most=MOST, clock=clock)
        # Stored twice as long as codes are valid, so that a device learns that its code has expired.
        self.devices: Expiring[DeviceLogin] = Expiring(seconds=2 * LOGIN_SECONDS, most=MOST, clock=clock)

    def begin(self, parameters: Mapping[str, str]) -> tuple[str, str, str]:
        """Check an authorization request; return a key for `finish`, the client's identifier and the redirect URI.

        Raises `AuthorizationRefused`.
        """
        grant = self._consent("GET", parameters)
        if parameters.get("prompt") == "none":
            raise self._refused(OAuth2Error(error="login_required", redirect_uri=grant.redirect_uri), parameters)
        key = secrets.token_urlsafe(32)
        self.pending.put(key, dict(parameters))
        return key, parameters["client_id"], cast("str", grant.redirect_uri)

    def finish(self, key: str, user: str | None) -> str | None:
        """Return the URL for the browser after the user's choice, None if `key` or `user` is not valid.

        `user` None is a refusal. A key can be used once. Raises `AuthorizationRefused` if the answer is an error.
        """
        parameters = self.pending.take(key)
        if parameters is None or (user is not None and user not in self.users):
            return None
        grant = self._consent("GET", parameters)
        login = None
        if user is not None:
            login = self.login(
                self.users[user],
                client_id=parameters["client_id"],
                scope=parameters.get("scope", ""),
                audience=parameters.get("resource", ""),
                nonce=parameters.get("nonce", ""),
                max_age=_max_age(parameters),
            )
        reply: Reply = self.create_authorization_response(grant.request, login, grant)
        return self._location(dict(reply.headers)["Location"])

    def token(self, parameters: Mapping[str, str], authorization: str) -> Reply:
        """Answer a token request."""
        return cast("Reply", self.create_token_response(self._request("POST", "token", parameters, authorization)))

    def device_authorization(self, parameters: Mapping[str, str], authorization: str) -> Reply:
        """Answer a device authorization request (RFC 8628 section 3.1)."""
        request = self._request("POST", "device_authorization", parameters, authorization)
        return cast("Reply", self.create_endpoint_response(DEVICE_AUTHORIZATION, request))

    def waiting_device(self, user_code: str) -> DeviceLogin | None:
        """Return the device that shows `user_code` and waits for an answer."""
        wanted = user_code.strip().upper().replace(" ", "-")
        now = self.clock()
        return next(
            (
                device
                for device in self.devices.values()
                if device.user_code == wanted and not device.decided and device.expires > now
            ),
            None,
        )

    def login(
        self,
        user: DemoUser,
        *,
        client_id: str,
        scope: str = "",
        audience: str = "",
        session: str = "",
        expires_in: int = TOKEN_SECONDS,
        nonce: str = "",
        max_age: int | None = None,
    ) -> Login:
        """Return a login of `user`, of the age `user.login_age`, or made now if that is over `max_age`."""
        age = user.login_age if max_age is None or user.login_age <= max_age else 0
        return Login(
            user=user,
            client_id=client_id,
            scope=scope,
            audience=audience or self.audience,
            session=session or f"session-{secrets.token_urlsafe(12)}",
            auth_time=self.clock() // SECOND - age,
            expires_in=expires_in,
            nonce=nonce,
        )

    def issue(self, login: Login, *, identity: bool) -> TokenReply:
        """Return the token response of `login`; with an ID token if `identity` and the scope `openid`."""
        reply = TokenReply(
            access_token=self.signer.access_token(login),
            token_type="Bearer",  # noqa: S106  the type's name
            expires_in=login.expires_in,
            scope=login.scope,
        )
        if identity and "openid" in login.scope.split():
            reply["id_token"] = self.signer.id_token(login)
        return reply

    # The interface that authlib requires.

    def query_client(self, client_id: str) -> DevClient | None:
        """Return a client by its identifier."""
        return self.clients.get(client_id)

    def save_token(self, token: object, request: object) -> None:
        """Store nothing: tokens are self-contained."""

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Send no signal."""

    def validate_requested_scope(self, scope: str | None) -> None:
        """Refuse a malformed scope; any other may be requested."""
        if not valid_scope(scope or ""):
            raise OAuth2Error(error="invalid_scope")

    def create_oauth2_request(self, request: object) -> object:
        """Return the request unchanged: it is authlib's type already."""
        return request

    def handle_response(self, status: int, body: object, headers: Iterable[tuple[str, str]]) -> Reply:
        """Return a `Reply`."""
        content = dict(cast("Any", body)) if body else None
        return Reply(status, content, tuple(headers))

    def _consent(self, method: str, parameters: Mapping[str, str]) -> Any:
        try:
            return self.get_consent_grant(self._request(method, "authorize", parameters))
        except OAuth2Error as error:
            raise self._refused(error, parameters) from error

    def _refused(self, error: Any, parameters: Mapping[str, str]) -> AuthorizationRefused:
        error.state = parameters.get("state")
        location = None
        if error.redirect_uri:
            location = self._location(add_params_to_uri(error.redirect_uri, error.get_body()))
        return AuthorizationRefused(str(error.error), location)

    def _location(self, location: str) -> str:
        """Add the issuer to a redirect, so that a client of several servers can tell them apart (RFC 9207)."""
        return cast("str", add_params_to_uri(location, [("iss", self.issuer)]))

    def _request(self, method: str, endpoint: str, parameters: Mapping[str, str], authorization: str = "") -> _Request:
        return _Request(method, f"{self.issuer}/{endpoint}", parameters, authorization)


def _max_age(parameters: Mapping[str, str]) -> int | None:
    """Return the greatest age of a login in seconds (OpenID Connect Core section 3.1.2.1); `None` if it is not limited."""
    if "login" in parameters.get("prompt", "").split():
        return 0
    max_age = parameters.get("max_age", "")
    return int(max_age) if re.fullmatch("[0-9]{1,9}", max_age) else None


def checked_resource(data: dict[str, str]) -> str:
    """Return the resource that a request names, empty if none; raise authlib's error if it cannot be an audience."""
    resource = data.get("resource", "")
    if resource and not valid_resource(resource):
        raise OAuth2Error("resource must be an absolute URI without a fragment", error="invalid_target")
    return resource


class Issuing(BaseGrant):  # type: ignore[misc]  # authlib is not typed
    """A base of grants that makes the token response of the login `request.user`."""

    IDENTITY = False
    server: OAuthServer

    def generate_token(
        self,
        user: Login | None = None,
        scope: str | None = None,
        grant_type: str | None = None,
        expires_in: int | None = None,
        include_refresh_token: bool = False,
    ) -> TokenReply:
        """Return the token response of the login `user`; raise authlib's error if the request names another resource."""
        assert user is not None  # noqa: S101  authlib has called `authenticate_user`
        resource = checked_resource(self.request.payload.data)
        if resource and resource != user.audience:
            raise OAuth2Error("resource differs from the one first requested", error="invalid_target")
        return self.server.issue(user, identity=self.IDENTITY)
