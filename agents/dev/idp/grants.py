"""The grants of the development IdP, on authlib's own: code with PKCE, the device flow (RFC 8628), one for scripts."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped]  # authlib has no types
    InvalidRequestError,
    TokenEndpointMixin,
    UnauthorizedClientError,
)
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc7636.challenge import compare_s256_code_challenge  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc8628 import (  # type: ignore[import-untyped]  # authlib has no types
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
)

from sealbus.agents.dev.idp.login import DeviceLogin, IssuedCode, Login
from sealbus.agents.dev.idp.oauth import Issuing, OAuthServer, TokenReply, checked_resource
from sealbus.agents.dev.idp.registry import DEVICE_CODE, SCRIPTS, DemoUser, DevClient, valid_scope
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND

_TEXT: Final = re.compile(r"[\x21-\x7e]{1,128}")
_SECONDS: Final = re.compile(r"-?[0-9]{1,5}")
_AGE: Final = re.compile(r"[0-9]{1,9}")

SLOWER: Final = 5
"""Seconds that each early poll adds to a device's interval (RFC 8628 section 3.5)."""


class S256Only(CodeChallenge):  # type: ignore[misc]  # authlib is not typed
    """PKCE by S256 for every client: a request without a challenge, or with `plain`, is refused (RFC 9700)."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS = {"S256": compare_s256_code_challenge}  # noqa: RUF012  authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Refuse an authorization request without a challenge by S256."""
        super().validate_code_challenge(grant, redirect_uri)
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("code_challenge with code_challenge_method=S256 is required")
        checked_resource(data)


class CodeGrant(Issuing, AuthorizationCodeGrant):  # type: ignore[misc]  # authlib is not typed
    """The authorization code flow of public clients."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    IDENTITY = True

    def generate_authorization_code(self) -> str:
        """Return 256 random bits."""
        return secrets.token_urlsafe(32)

    def save_authorization_code(self, code: str, request: Any) -> None:
        """Store the login behind the code."""
        data = request.payload.data
        self.server.codes.put(
            code,
            IssuedCode(
                login=cast("Login", request.user),
                redirect_uri=data["redirect_uri"],
                code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
            ),
        )

    def query_authorization_code(self, code: str, client: DevClient) -> IssuedCode | None:
        """Return the code and forget it: it can be used once, even if that fails."""
        issued = self.server.codes.take(code)
        return issued if issued is not None and issued.login.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: IssuedCode) -> None:
        """Do nothing: the lookup has removed the code."""

    def authenticate_user(self, authorization_code: IssuedCode) -> Login:
        """Return the login behind the code."""
        return authorization_code.login


class ScriptGrant(Issuing, TokenEndpointMixin):  # type: ignore[misc]  # authlib is not typed
    """A token for any user, for the holder of the secret in the state folder: `sealbus token`."""

    GRANT_TYPE = SCRIPTS
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

    def validate_token_request(self) -> None:
        """Check the secret and the requested contents of the token."""
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError
        data: dict[str, str] = self.request.payload.data
        user = self.server.users.get(data.get("user", ""))
        if user is None:
            raise InvalidRequestError("there is no such user; [dev.users] in sealbus.toml names more")
        texts = {name: data.get(name, "") for name in ("client", "session")}
        if any(value and not _TEXT.fullmatch(value) for value in texts.values()) or not valid_scope(
            data.get("scope", "")
        ):
            raise InvalidRequestError("client, session or scope is malformed")
        expires_in = data.get("expires_in", "900")
        if not _SECONDS.fullmatch(expires_in):
            raise InvalidRequestError("expires_in must be seconds")
        self.request.client = client
        self.request.user = self.server.login(
            _logged_in(user, data),
            client_id=texts["client"] or "dev",
            scope=data.get("scope", ""),
            audience=checked_resource(data),
            session=texts["session"],
            expires_in=int(expires_in),
        )

    def create_token_response(self) -> tuple[int, TokenReply, Any]:
        """Return the token."""
        return 200, self.generate_token(user=self.request.user), self.TOKEN_RESPONSE_HEADER


def _logged_in(user: DemoUser, data: Mapping[str, str]) -> DemoUser:
    """Return `user` with the login that the request states, or else the declared login."""
    stated: dict[str, Any] = {}
    if data.get("acr"):
        stated["acr"] = data["acr"]
    if data.get("amr"):
        stated["amr"] = tuple(data["amr"].split())
    if age := data.get("login_age"):
        stated["login_age"] = int(age) if _AGE.fullmatch(age) else -1
    try:
        return replace(user, **stated)
    except ConfigurationError as error:
        raise InvalidRequestError("acr, amr or login_age is malformed") from error


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]  # authlib is not typed
    """The endpoint that gives a device its codes."""

    CLIENT_AUTH_METHODS = ("none",)
    EXPIRES_IN = 600
    server: OAuthServer

    def create_endpoint_response(self, request: Any) -> Any:
        """Answer the device, and store the requested resource."""
        audience = checked_resource(request.payload.data)
        status, data, headers = super().create_endpoint_response(request)
        device = self.server.devices.get(data["device_code"])
        assert device is not None  # noqa: S101  stored a moment ago
        device.audience = audience
        return status, data, headers

    def authenticate_client(self, request: Any) -> DevClient:
        """Return the client if it may use the device flow."""
        client = cast("DevClient", super().authenticate_client(request))
        if not client.check_grant_type(DEVICE_CODE):
            raise UnauthorizedClientError
        return client

    def generate_device_code(self) -> str:
        """Return 256 random bits."""
        return secrets.token_urlsafe(32)

    def get_verification_uri(self) -> str:
        """Return the page where a user types the code."""
        return f"{self.server.issuer}/device"

    def save_device_credential(self, client_id: str, scope: str | None, data: dict[str, Any]) -> None:
        """Store the login behind the codes."""
        self.server.devices.put(
            data["device_code"],
            DeviceLogin(
                client_id=client_id,
                user_code=data["user_code"],
                scope=scope or "",
                audience="",
                expires=self.server.clock() + data["expires_in"] * SECOND,
                interval=data["interval"],
            ),
        )


class DeviceGrant(Issuing, DeviceCodeGrant):  # type: ignore[misc]  # authlib is not typed
    """The device flow (RFC 8628); a code is removed once its final answer was given."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    _device: DeviceLogin | None = None

    def query_device_credential(self, device_code: str) -> _PollingDevice | None:
        """Return the device that polls."""
        self._device = self.server.devices.get(device_code)
        return _PollingDevice(self.server, device_code, self._device) if self._device is not None else None

    def validate_device_credential(self, credential: _PollingDevice) -> Login:
        """Return the user's login for the device; raise the device's error otherwise (RFC 8628 section 3.5)."""
        if credential.device.decided:
            self.server.devices.take(credential.code)
        return cast("Login", super().validate_device_credential(credential))

    def query_user_grant(self, user_code: str) -> tuple[Login | None, bool] | None:
        """Return the user's answer; `None` if there is none yet."""
        device = self._device
        return (device.login, not device.denied) if device is not None and device.decided else None

    def should_slow_down(self, credential: _PollingDevice) -> bool:
        """Return whether the device polled too early, and make its interval longer if so."""
        device, now = credential.device, self.server.clock()
        early = device.polled is not None and now - device.polled < device.interval * SECOND
        device.polled = now
        if early:
            device.interval += SLOWER
        return early


class _PollingDevice:
    """A device and its code, as authlib's `DeviceCredentialMixin`."""

    def __init__(self, server: OAuthServer, code: str, device: DeviceLogin) -> None:
        self.server = server
        self.code = code
        self.device = device

    def get_client_id(self) -> str:
        return self.device.client_id

    def get_scope(self) -> str:
        return self.device.scope

    def get_user_code(self) -> str:
        return self.device.user_code

    def is_expired(self) -> bool:
        return self.device.expires <= self.server.clock()


def register_grants(server: OAuthServer) -> None:
    """Register the grants of this module at the authorization `server`."""
    server.register_grant(CodeGrant, [S256Only()])
    server.register_grant(DeviceGrant)
    server.register_grant(ScriptGrant)
    server.register_endpoint(DeviceAuthorization(server))
