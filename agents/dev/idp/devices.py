"""The device flow (RFC 8628) of the development IdP, over authlib's own."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, cast

from authlib.oauth2.rfc6749 import UnauthorizedClientError  # type: ignore[import-untyped]  # authlib has no types
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant  # type: ignore[import-untyped]  # authlib has no types

from sealbus.agents.dev.idp.clients import DEVICE_CODE, DevClient
from sealbus.agents.dev.idp.issuing import Issuing, checked_resource
from sealbus.agents.dev.idp.login import DeviceLogin, Login
from sealbus.envelopes.limits import SECOND

if TYPE_CHECKING:
    from sealbus.agents.dev.idp.oauth import OAuthServer

__all__ = ["DeviceAuthorization", "DeviceGrant"]

SLOWER: Final = 5
"""Seconds that each early question adds to a device's interval (RFC 8628 section 3.5)."""


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]  # authlib is not typed
    """Gives a device its codes."""

    CLIENT_AUTH_METHODS = ("none",)
    EXPIRES_IN = 600
    server: OAuthServer

    def create_endpoint_response(self, request: Any) -> Any:
        """Answer the device, and remember for which resource it asked."""
        audience = checked_resource(request.payload.data)
        status, data, headers = super().create_endpoint_response(request)
        device = self.server.devices.get(data["device_code"])
        assert device is not None  # noqa: S101  it was put there a moment ago
        device.audience = audience
        return status, data, headers

    def authenticate_client(self, request: Any) -> DevClient:
        """Return the client, if it may use devices."""
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
        """Keep what the codes stand for."""
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
    """The device flow (RFC 8628); a code that was answered for good is forgotten."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    _device: DeviceLogin | None = None

    def query_device_credential(self, device_code: str) -> _Asking | None:
        """Return the device that asks."""
        self._device = self.server.devices.get(device_code)
        return _Asking(self.server, device_code, self._device) if self._device is not None else None

    def validate_device_credential(self, credential: _Asking) -> Login:
        """Return the login that the user gave the device; raise what else it is to know (RFC 8628 section 3.5)."""
        if credential.device.decided:
            self.server.devices.take(credential.code)
        return cast("Login", super().validate_device_credential(credential))

    def query_user_grant(self, user_code: str) -> tuple[Login | None, bool] | None:
        """Return what the user answered; `None` if nothing yet."""
        device = self._device
        return (device.login, not device.denied) if device is not None and device.decided else None

    def should_slow_down(self, credential: _Asking) -> bool:
        """Say whether the device asked too early, and make its interval longer if so."""
        device, now = credential.device, self.server.clock()
        early = device.asked is not None and now - device.asked < device.interval * SECOND
        device.asked = now
        if early:
            device.interval += SLOWER
        return early


class _Asking:
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
